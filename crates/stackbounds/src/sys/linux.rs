//! Linux, glibc and musl: `pthread_getattr_np`; a futex, `/proc`, and a page that the kernel clears
//! in children.
//!
//! A query takes 0.3–0.7 µs on a thread that pthread made. On the main thread, where glibc reads
//! `/proc/self/maps`, it takes 40–70 µs (2 ms with 5,000 mappings). glibc excludes guard pages
//! since 2.27.

use core::ptr;
use core::sync::atomic::AtomicU32;
use std::io::{Cursor, Write};
use std::time::Instant;

pub use super::unix::*;
use super::{Activity, Ended, ThreadStack};

/// The stack assumed below SP on a main thread without a stack limit: 64 MiB at a time.
const UNLIMITED: usize = 64 << 20;
/// How far a main stack without a limit may reach below its high end: 16 GiB. 1 GiB with 32 bits.
const UNLIMITED_REACH: usize = if usize::BITS == 64 { 16 << 30 } else { 1 << 30 };

pub fn thread_stack(sp: usize) -> Option<ThreadStack> {
    let (low, high) = range_from_attributes(|attributes| {
        // SAFETY: `attributes` is valid for writing. `pthread_self` names a live thread, the
        // calling one.
        unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes) }
    })?;
    if !is_main_stack(low, high) {
        return Some(ThreadStack { low, high, may_grow_to: low, limit: None });
    }
    // The main thread's stack grows on demand. musl reports its size so far. glibc reports the size
    // that the limit allows. Without a limit, that is everything down to the next mapping, and
    // later mappings (a host's coroutine stacks) may lie inside.
    let limit = stack_limit();
    let from = if low <= sp && sp < high { sp } else { high };
    let low = match limit {
        Some(limit) if cfg!(target_env = "musl") => lowest(high, limit).min(low),
        Some(_) => low,
        None if cfg!(target_env = "musl") => from.saturating_sub(UNLIMITED).min(low),
        None => low.max(from.saturating_sub(UNLIMITED)),
    };
    Some(ThreadStack { low, high, may_grow_to: may_grow_to(low, high, limit), limit })
}

/// The lowest address of the main stack that `limit` allows.
///
/// The kernel counts arguments and environment, which lie above `high`, towards the limit. The
/// program's name is the last of them.
fn lowest(high: usize, limit: usize) -> usize {
    // SAFETY: `getauxval` reads the loader's copy of the auxiliary vector, and returns 0 for a
    // missing entry. This entry is a C string.
    let name_end = unsafe {
        match libc::getauxval(libc::AT_EXECFN) as *const libc::c_char {
            name if name.is_null() => high,
            name => name as usize + libc::strlen(name),
        }
    };
    let page = page_size();
    // Above the name is one word, and nothing else.
    let end = (name_end + size_of::<usize>()).next_multiple_of(page).max(high);
    end.saturating_sub(limit).next_multiple_of(page).min(high)
}

fn may_grow_to(low: usize, high: usize, limit: Option<usize>) -> usize {
    let reach = limit.map_or(UNLIMITED_REACH, |limit| limit.max(NOTHING_ELSE));
    high.saturating_sub(reach).min(low)
}

/// Recomputes the main stack's bounds from the current stack limit.
///
/// Other stacks keep their bounds.
pub fn ask_again(known: ThreadStack, sp: usize) -> ThreadStack {
    let ThreadStack { low, high, .. } = known;
    if !is_main_stack(low, high) {
        return known;
    }
    let limit = stack_limit();
    let low = match (limit, known.limit) {
        (Some(now), Some(before)) => low.saturating_add(before).saturating_sub(now).min(high),
        (Some(now), None) => lowest(high, now),
        (None, _) if sp < low => sp.saturating_sub(UNLIMITED),
        (None, _) => low,
    };
    ThreadStack { low, high, may_grow_to: may_grow_to(low, high, limit), limit }
}

/// Whether all of `low..sp`, with the page of `sp`, is one mapping.
///
/// Asks the kernel to enlarge the part below the page of `sp`, where there is no room to do so. The
/// kernel refuses, with a different error if it first finds several mappings or none.
pub fn is_one_mapping(low: usize, sp: usize) -> bool {
    let page = page_size();
    let (low, high) = (low & !(page - 1), sp & !(page - 1));
    if low >= high || on_valgrind() {
        return true;
    }
    keeping_errno(|| {
        // SAFETY: the call changes nothing: the page after the range is in use, so the mapping
        // cannot grow there, and no flag allows the kernel to move it.
        let moved = unsafe { libc::mremap(low as *mut _, high - low, high - low + page, 0) };
        moved == libc::MAP_FAILED && matches!(errno(), libc::ENOMEM | libc::EAGAIN)
    }) && is_readable(high - page)
}

/// Whether the page of `address` is readable.
///
/// Asks by a system call that reads a signal set there and then rejects its other argument. If the
/// page is not readable, the call fails with EFAULT instead.
pub fn is_readable(address: usize) -> bool {
    const NO_SUCH_HOW: libc::c_int = -1;
    // The size of the kernel's set of signals.
    const SIZE: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 16 } else { 8 };
    let set = address & !(page_size() - 1);
    if on_valgrind() {
        return true;
    }
    keeping_errno(|| {
        // SAFETY: the kernel reads a set there, or fails to. For an unknown `how` it changes
        // nothing.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, NO_SUCH_HOW, set, 0usize, SIZE) };
        errno() != libc::EFAULT
    })
}

/// Whether the process runs on Valgrind. If so, this module checks no stack.
///
/// Valgrind reports system calls that read below SP as errors, and grows no stack for them.
fn on_valgrind() -> bool {
    const RUNNING_ON_VALGRIND: usize = 0x1001;
    // SAFETY: this request only asks whether Valgrind runs, and changes nothing.
    unsafe { super::isa::valgrind([RUNNING_ON_VALGRIND, 0, 0, 0, 0, 0]) != 0 }
}

fn errno() -> libc::c_int {
    // SAFETY: the pointer is to the calling thread's own errno, valid as long as the thread runs.
    unsafe { *libc::__errno_location() }
}

fn keeping_errno<R>(f: impl FnOnce() -> R) -> R {
    let before = errno();
    let result = f();
    // SAFETY: as in `errno`: the calling thread's own variable.
    unsafe { *libc::__errno_location() = before };
    result
}

pub fn page_size() -> usize {
    // SAFETY: `sysconf` only reads a constant, defined on every system.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// The range below the main stack's high end in which nothing else is mapped: 128 MiB.
const NOTHING_ELSE: usize = 128 << 20;

/// Whether `low..high` is the main stack.
///
/// The kernel puts arguments, environment and some random bytes above that stack, in 6 MiB at most.
/// glibc counts part of them as stack. [Nothing else](NOTHING_ELSE) is near. So the check looks for
/// the address of the random bytes. It needs no system call, unlike a comparison of thread and
/// process numbers.
fn is_main_stack(low: usize, high: usize) -> bool {
    // SAFETY: `getauxval` reads the loader's copy of the auxiliary vector, and returns 0 for a
    // missing entry.
    let random_bytes = unsafe { libc::getauxval(libc::AT_RANDOM) } as usize;
    low <= random_bytes && random_bytes < high.saturating_add(6 << 20)
}

/// The stack limit of the main thread in bytes, if there is one.
fn stack_limit() -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing one `rlimit`.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &mut limit) };
    (failed == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur as usize)
}

/// Sleeps while `number` is `value`, until the deadline, or until it is woken.
pub fn sleep_while(number: &AtomicU32, value: u32, deadline: Option<Instant>) -> Ended {
    let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    // A deadline beyond the range of the system's clock is no deadline.
    let remaining = remaining.and_then(|remaining| {
        let tv_sec = remaining.as_secs().try_into().ok()?;
        Some(libc::timespec { tv_sec, tv_nsec: remaining.subsec_nanos() as _ })
    });
    let timeout = remaining.as_ref().map_or(ptr::null(), ptr::from_ref);
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel reads the number and the timeout. Both live during the call.
    let result = unsafe { libc::syscall(libc::SYS_futex, number.as_ptr(), wait, value, timeout) };
    match if result == 0 { 0 } else { errno() } {
        libc::ETIMEDOUT => Ended::TimedOut,
        libc::EINTR => Ended::Signalled,
        _ => Ended::Changed,
    }
}

/// Wakes at least one sleeper.
pub fn wake(number: &AtomicU32) {
    wake_up_to(number, 1);
}

pub fn wake_all(number: &AtomicU32) {
    wake_up_to(number, i32::MAX);
}

fn wake_up_to(number: &AtomicU32, sleepers: i32) {
    let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel does not access the number: its address only identifies the sleepers.
    unsafe { libc::syscall(libc::SYS_futex, number.as_ptr(), wake, sleepers) };
}

pub fn thread_number() -> i32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// The handle of the process's first thread.
///
/// The kernel knows the head of each thread's list of robust mutexes. That head lies in the threads
/// library's descriptor of the thread, always at the same offset. The handle points to that
/// descriptor. With musl, the kernel knows the list only of threads that have used such a mutex.
///
/// ```text
/// head(first) - handle(first) == head(caller) - handle(caller)
/// ```
pub fn first_thread() -> Option<usize> {
    let list_of = |thread: i32| {
        let (mut head, mut length) = (0_usize, 0_usize);
        // SAFETY: `head` and `length` are valid for writing a word each.
        let failed = unsafe { libc::syscall(libc::SYS_get_robust_list, thread, &mut head, &mut length) };
        (failed == 0 && head != 0).then_some(head)
    };
    // SAFETY: the calls have no arguments and cannot fail.
    let (handle, process) = unsafe { (libc::pthread_self() as usize, libc::getpid()) };
    Some(list_of(process)?.wrapping_sub(list_of(0)?.wrapping_sub(handle)))
}

/// The activity of a thread of this process, from `/proc`.
///
/// Allocates nothing: the caller may be in an allocator's hook.
pub fn activity_of(thread: i32) -> Activity {
    // SAFETY: signal 0 reaches no thread; the call only checks that the thread exists.
    if unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, 0) } != 0 {
        return Activity::Gone;
    }
    let mut stat = [0; 128];
    let Some(stat) = read_stat(thread, &mut stat) else { return Activity::Unknown };
    // The state follows the name. The name is in parentheses, and may contain some.
    let state = stat.iter().rposition(|&byte| byte == b')').and_then(|end| stat.get(end + 2));
    match state {
        Some(b'S') => Activity::Asleep,
        Some(b'Z' | b'X') => Activity::Gone,
        Some(_) => Activity::Busy,
        None => Activity::Unknown,
    }
}

/// The beginning of the system's `stat` file for a thread.
fn read_stat(thread: i32, stat: &mut [u8; 128]) -> Option<&[u8]> {
    let mut path = [0; 64];
    write!(Cursor::new(&mut path[..]), "/proc/self/task/{thread}/stat\0").ok()?;
    // SAFETY: the path ends with a zero. `read` gets the buffer with its length. The descriptor
    // belongs to this function, and is closed once.
    unsafe {
        let file = libc::open(path.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let read = libc::read(file, stat.as_mut_ptr().cast(), stat.len());
        libc::close(file);
        stat.get(..usize::try_from(read).ok()?)
    }
}

/// A word that is 0 in children of forks, told and untold.
///
/// A process that shares this one's memory sees this one's value. `None` if the kernel has no such
/// pages.
pub fn make_wiped_page() -> Option<&'static AtomicU32> {
    let size = page_size();
    let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the mapping is new and a whole page. It is never unmapped after this function returns
    // it. Zeros are a valid word.
    unsafe {
        let page = libc::mmap(ptr::null_mut(), size, rights, kind, -1, 0);
        if page == libc::MAP_FAILED {
            return None;
        }
        if libc::madvise(page, size, libc::MADV_WIPEONFORK) != 0 {
            libc::munmap(page, size);
            return None;
        }
        Some(&*page.cast::<AtomicU32>())
    }
}
