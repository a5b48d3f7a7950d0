//! Uses a whole stack, down to the lowest byte of its bounds.

use std::hint::black_box;

use stackbounds::{Accuracy, current, remaining, stack_pointer, thread};

pub const QUERIED: bool = !cfg!(stackbounds_no_query);

/// Recurses until few bytes remain above `low`, and then writes to them.
///
/// Writes downwards, and leaves out no page: some systems commit a stack page by page.
#[inline(never)]
pub fn use_down_to(low: usize) {
    let frame = black_box([0_u8; 1024]);
    let sp = stack_pointer();
    if sp - low > 8192 {
        use_down_to(low);
    } else {
        let mut at = sp - 1024;
        while at > low {
            // SAFETY: nothing lives there yet: it is below the frames of this function and of the
            // write. This is the claim under test: the stack is usable down to `low`.
            unsafe { (at as *mut u8).write_volatile(1) };
            at = (at - 1024).max(low);
        }
        // SAFETY: as above.
        unsafe { (low as *mut u8).write_volatile(1) };
    }
    black_box(frame);
}

pub fn assert_exact_and_usable_to_the_end() {
    let stack = current();
    assert!(stack.contains(stack_pointer()));
    if !QUERIED {
        assert_eq!(stack.accuracy(), Accuracy::Estimated);
        assert_eq!((thread(), remaining()), (None, None));
        return;
    }
    assert_eq!(stack.accuracy(), Accuracy::Exact);
    assert_eq!(thread(), Some(stack));
    use_down_to(stack.low());
}
