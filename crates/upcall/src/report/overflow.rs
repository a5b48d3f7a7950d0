//! A report when a stack overflows: a handler of SIGSEGV and SIGBUS, for those who ask for it.
//!
//! Rule: **the handler allocates nothing and waits for nobody**, since the fault may have come at any instruction, and looks at no
//! thread-local storage of a thread that is not attached, which a library loaded later might have to allocate. It says what it
//! has to say, and gives whoever handled the signal before its turn.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::io;
use std::mem::{MaybeUninit, transmute, zeroed};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};

use stackbounds::stack_pointer;

use super::overflowed::Overflowed;
use super::sys;
use super::text::Text;
use crate::stack::alternate;
use crate::sync;
use crate::thread::{Hot, record};

/// Has stack overflows reported: from now on, one that ends in a guard page says on stderr which stack it was, how large that is, what to do, and
/// which calls between C and Rust led there. Then whoever handled SIGSEGV and SIGBUS before gets its turn.
///
/// upcall is a guest: without this call it handles no signal.
///
/// ```
/// upcall::report::install()?;
/// # std::io::Result::Ok(())
/// ```
///
/// An overflow looks like this:
/// ```text
/// upcall: stack overflow on thread 0x7f6c5e9ff6c0 (upcall-worker-0): the stack of the fiber "parser", 0x7f6c5d610000..0x7f6c5d63ff40, …
/// upcall: fibers get more by Fiber::builder().stack_size, Config::fiber_stack or UPCALL_FIBER_STACK, and deep recursion by upcall::with_stack
/// upcall: open calls, the innermost first:
/// upcall:   Rust → C, C runs on a pooled stack, SP 0x7f6c5d63fc10
/// ```
///
/// # Which stacks
/// Pooled stacks, fibers' included; registered ones; and the own stacks of attached threads. Of a thread that has not called Rust, only an
/// overflow on a registered stack is noticed; of a coroutine's stack that nobody registered, none. A fault that is no stack overflow is
/// passed on without a word.
///
/// A frame that is larger than the guard (64 KiB on our stacks, often a page elsewhere) may pass over it; compilers prevent that for Rust, and for C
/// with `-fstack-clash-protection`.
///
/// # Threads
/// The handler needs an alternate stack (`sigaltstack`) on each thread. Threads that Rust's standard library made in a Rust program have one; others get
/// one from us, if they have none when they attach, and until they exit. So this is to be called before the first upcall: a thread that
/// was attached before, and has no alternate stack, dies of an overflow without a report, as it would without this call. Calling this again,
/// on such a thread, gives it one.
///
/// # Other handlers
/// - One that was there before, a host's or the one of Rust's standard library, is called after the report, with the same arguments and with
///   the mask that it asked for; on the alternate stack, also if it did not ask for that.
/// - Where there was none, the signal's default action is restored, so that the process dies of the original fault, at the original place.
/// - One that is installed later takes our place. If it passes on what it does not handle, reports go on; if not, there are none.
///
/// A second call changes nothing in that, wherever the first handler is in the order by then.
///
/// # Errors
/// When the system refuses the handler, or there is no memory for the calling thread's alternate stack. The signals are handled as before then.
pub fn install() -> io::Result<()> {
    let mut installed = sync::lock(&INSTALLED);
    alternate::want();
    record::attach_if_new(Hot::here(), stack_pointer());
    alternate::give()?;
    if !*installed {
        take_over(&SEGV)?;
        take_over(&BUS).inspect_err(|_| give_back(&SEGV))?;
        *installed = true;
    }
    Ok(())
}

static INSTALLED: Mutex<bool> = Mutex::new(false);

/// Holds back who installs.
pub(crate) fn hold_lock() -> impl Sized + 'static {
    sync::lock(&INSTALLED)
}

/// A signal, and who handled it before.
struct Signal {
    number: c_int,
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: UnsafeCell<MaybeUninit<libc::sigset_t>>,
}

// SAFETY: `mask` is written before the handler is installed that reads it.
unsafe impl Sync for Signal {}

static SEGV: Signal = Signal::new(libc::SIGSEGV);
static BUS: Signal = Signal::new(libc::SIGBUS);

impl Signal {
    const fn new(number: c_int) -> Self {
        Self {
            number,
            handler: AtomicUsize::new(libc::SIG_DFL),
            flags: AtomicI32::new(0),
            mask: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }
}

fn take_over(signal: &Signal) -> io::Result<()> {
    // Known before the handler can be called.
    let before = change(signal.number, None)?;
    // SAFETY: the handler is not installed, and `install` has the lock.
    unsafe { (*signal.mask.get()).write(before.sa_mask) };
    signal.flags.store(before.sa_flags, Relaxed);
    signal.handler.store(before.sa_sigaction, Release);
    // SA_NODEFER, for the case that a report faults itself, when the host's handler is to have its turn all the same.
    let flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    change(signal.number, Some(&action(on_fault as Handler as usize, flags))).map(drop)
}

fn give_back(signal: &Signal) {
    let mut before = action(signal.handler.load(Relaxed), signal.flags.load(Relaxed));
    // SAFETY: written by `take_over`.
    before.sa_mask = unsafe { (*signal.mask.get()).assume_init() };
    let _ = change(signal.number, Some(&before));
}

fn action(handler: usize, flags: c_int) -> libc::sigaction {
    // SAFETY: all-zero is a valid `sigaction`: numbers, and a mask of nothing.
    let mut action: libc::sigaction = unsafe { zeroed() };
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    action
}

/// Changes what is done with a signal, if `to` is given; returns what was done before.
fn change(signal: c_int, to: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut before = action(libc::SIG_DFL, 0);
    // SAFETY: null, or an action whose handler is one; and `before` is valid for writing.
    match unsafe { libc::sigaction(signal, to.map_or(ptr::null(), ptr::from_ref), &mut before) } {
        0 => Ok(before),
        _ => Err(io::Error::last_os_error()),
    }
}

type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// # Safety
/// The system, or a handler that passes on, calls it with what it was given.
unsafe extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the caller's promise.
    let sent = unsafe { sys::was_sent(&*info) };
    if !sent {
        // SAFETY: the caller's promise.
        let (address, sp) = unsafe { (sys::fault_address(&*info), sys::stack_pointer(context)) };
        // What handles it next finds what the interrupted code had.
        let _errno = sys::KeptErrno::new();
        report(address, sp);
    }
    let signal = if signal == SEGV.number { &SEGV } else { &BUS };
    // SAFETY: the caller's promise.
    unsafe { pass_on(signal, sent, info, context) };
}

/// A place for one report at a time.
struct Report {
    taken: AtomicBool,
    text: UnsafeCell<Text>,
}

// SAFETY: `text` is touched only by who set `taken`, until it is cleared.
unsafe impl Sync for Report {}

/// In static memory, since alternate stacks may be small. As many can be made at one time; other faults are passed on at once, and so is that of a report
/// which faults again and again itself.
static REPORTS: [Report; 4] =
    [const { Report { taken: AtomicBool::new(false), text: UnsafeCell::new(Text::new()) } }; 4];

/// Says which stack overflowed, if one did.
fn report(address: usize, sp: Option<usize>) {
    let Some(report) = REPORTS.iter().find(|report| !report.taken.swap(true, Acquire)) else { return };
    if let Some(overflowed) = Overflowed::by(address, sp, record::in_handler()) {
        // SAFETY: we took it.
        let text = unsafe { &mut *report.text.get() };
        text.clear();
        let _ = write!(text, "{overflowed}");
        text.write_to_stderr();
    }
    report.taken.store(false, Release);
}

/// Gives whoever handled the signal before its turn.
///
/// # Safety
/// The arguments are those of the handler.
unsafe fn pass_on(signal: &Signal, sent: bool, info: *mut libc::siginfo_t, context: *mut c_void) {
    let flags = signal.flags.load(Relaxed);
    let handler = if flags & libc::SA_RESETHAND != 0 {
        signal.handler.swap(libc::SIG_DFL, Acquire)
    } else {
        signal.handler.load(Acquire)
    };
    match handler {
        // A fault cannot be ignored.
        libc::SIG_IGN if sent => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            let _ = change(signal.number, Some(&action(libc::SIG_DFL, 0)));
            if sent {
                // SAFETY: no preconditions.
                unsafe { libc::raise(signal.number) };
            }
            // Otherwise the instruction faults again.
        }
        handler => {
            // SAFETY: written by `take_over` before the handler was installed, and a mask as `sigaction` gives it is one.
            let mut blocked = unsafe { (*signal.mask.get()).assume_init() };
            // SAFETY: it was a handler of this kind before; the masks are valid; the arguments are the caller's promise.
            unsafe {
                if flags & libc::SA_NODEFER == 0 {
                    libc::sigaddset(&mut blocked, signal.number);
                }
                let mut before = zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, &mut before);
                if flags & libc::SA_SIGINFO != 0 {
                    transmute::<usize, Handler>(handler)(signal.number, info, context);
                } else {
                    transmute::<usize, unsafe extern "C" fn(c_int)>(handler)(signal.number);
                }
                libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
            }
        }
    }
}
