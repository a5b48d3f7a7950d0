//! What stays resident. A process of its own, since that is measured.

use upcall::with_stack;

#[test]
fn large_idle_stacks_give_their_pages_back() {
    fn resident_kib() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
    }
    fn touch(bytes: usize) {
        let page = std::hint::black_box([1u8; 4096]);
        if bytes > 0 {
            touch(bytes.saturating_sub(4096));
        }
        std::hint::black_box(page);
    }
    with_stack(256 << 20, || touch(80 << 20));
    assert!(resident_kib() < 60 << 10, "{} KiB", resident_kib());
}
