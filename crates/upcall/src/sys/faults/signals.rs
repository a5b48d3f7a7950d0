//! POSIX: a handler of the signals of faults. It calls the report, and then the previous handler of
//! the signal.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, transmute, zeroed};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicUsize};

use super::Raised;
use crate::sys::isa::interrupted_at;
use crate::sys::selected::fault_address;

/// The report, set before a handler is installed.
static REPORT: OnceLock<fn(&Raised)> = OnceLock::new();

/// Has `report` called at each fault, or only at those of signals raised by stack overflows.
///
/// The previous handler of the signal is called afterwards. After an error, the signals are handled
/// as before.
pub(crate) fn install(only_overflows: bool, report: fn(&Raised)) -> io::Result<()> {
    REPORT.get_or_init(|| report);
    let signals = if only_overflows { &SIGNALS[..OF_OVERFLOWS] } else { &SIGNALS[..] };
    for (i, signal) in signals.iter().enumerate() {
        take_over(signal).inspect_err(|_| signals[..i].iter().for_each(give_back))?;
    }
    Ok(())
}

/// Does nothing: handlers run on an alternate stack.
pub(crate) fn keep_room() {}

/// A signal, and its previous handler.
struct Signal {
    number: c_int,
    /// Its name and meaning, for the report.
    what: &'static str,
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: UnsafeCell<MaybeUninit<libc::sigset_t>>,
}

// SAFETY: `mask` is written only while `on_fault` is not installed, and read only by `on_fault` and
// `give_back`, after that.
unsafe impl Sync for Signal {}

static SIGNALS: [Signal; 5] = [
    Signal::new(libc::SIGSEGV, "SIGSEGV (invalid memory access)"),
    Signal::new(libc::SIGBUS, "SIGBUS (memory that is not there)"),
    Signal::new(libc::SIGILL, "SIGILL (an illegal instruction)"),
    Signal::new(libc::SIGFPE, "SIGFPE (an arithmetic error)"),
    // The last one: see `without_report_of_abort`.
    Signal::new(libc::SIGABRT, "SIGABRT (abort)"),
];
/// The number of signals that stack overflows raise, at the beginning of the list.
const OF_OVERFLOWS: usize = 2;

impl Signal {
    const fn new(number: c_int, what: &'static str) -> Self {
        Self {
            number,
            what,
            handler: AtomicUsize::new(libc::SIG_DFL),
            flags: AtomicI32::new(0),
            mask: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }
}

fn take_over(signal: &Signal) -> io::Result<()> {
    // `on_fault` may run as soon as it is installed, so the previous handler is stored before.
    let before = change(signal.number, None)?;
    // SAFETY: `on_fault` is not installed yet, so it does not read the mask. `install` is called
    // under a lock, so nobody else writes it.
    unsafe { (*signal.mask.get()).write(before.sa_mask) };
    signal.flags.store(before.sa_flags, Relaxed);
    signal.handler.store(before.sa_sigaction, Release);
    // With SA_NODEFER, a fault during a report runs `on_fault` again, so the host's handler is
    // still called.
    let flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    change(signal.number, Some(&action(on_fault as Handler as usize, flags))).map(drop)
}

fn give_back(signal: &Signal) {
    let mut before = action(signal.handler.load(Relaxed), signal.flags.load(Relaxed));
    // SAFETY: `give_back` is called only after `take_over`, which wrote the mask.
    before.sa_mask = unsafe { (*signal.mask.get()).assume_init() };
    let _ = change(signal.number, Some(&before));
}

fn action(handler: usize, flags: c_int) -> libc::sigaction {
    // SAFETY: all-zero is a valid `sigaction`: numbers, and an empty mask.
    let mut action: libc::sigaction = unsafe { zeroed() };
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    action
}

/// Sets the action of a signal, if `to` is given. Returns the previous action.
fn change(signal: c_int, to: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut before = action(libc::SIG_DFL, 0);
    // SAFETY: `to` is null or an action with a valid handler, and `before` is valid for writing.
    match unsafe { libc::sigaction(signal, to.map_or(ptr::null(), ptr::from_ref), &mut before) } {
        0 => Ok(before),
        _ => Err(io::Error::last_os_error()),
    }
}

type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// The handler of all signals of the list: reports the fault, and passes the signal on.
///
/// # Safety
/// The arguments are those that the system gave to a handler of `signal`.
unsafe extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(signal) = SIGNALS.iter().find(|ours| ours.number == signal) else { return };
    // SAFETY: the caller guarantees the system's arguments: `info` and `context` are valid during
    // the handler.
    let (details, at) = unsafe { (&*info, interrupted_at(context)) };
    let (sp, code) = at.unzip();
    let sent = was_sent(details);
    let aborts = signal.number == libc::SIGABRT;
    let is_fault = if aborts { was_sent_here(details) } else { !sent };
    if let Some(report) = REPORT.get().filter(|_| is_fault) {
        let is_access = matches!(signal.number, libc::SIGSEGV | libc::SIGBUS);
        let address = if is_access { fault_address(details) } else { None };
        // The next handler finds the `errno` of the interrupted code.
        let _errno = SavedErrno::new();
        report(&Raised { what: signal.what, overflows: false, address, code, sp });
    }
    // SAFETY: the caller guarantees the system's arguments, and they are passed on unchanged.
    let pass_on = || unsafe { pass_on(signal, sent, info, context) };
    if aborts || sent { pass_on() } else { without_report_of_abort(pass_on) }
}

/// Runs `pass_on` while SIGABRT has its previous action.
///
/// The host's handler may abort. The fault has been reported already, and the alternate stack may
/// have no room for one more signal frame.
fn without_report_of_abort(pass_on: impl FnOnce()) {
    let abort = &SIGNALS[SIGNALS.len() - 1];
    let ours = change(abort.number, None).ok().filter(|now| now.sa_sigaction == on_fault as Handler as usize);
    if ours.is_some() {
        give_back(abort);
    }
    pass_on();
    let theirs = abort.handler.load(Relaxed);
    let unchanged = || change(abort.number, None).is_ok_and(|now| now.sa_sigaction == theirs);
    if let Some(ours) = ours.filter(|_| unchanged()) {
        let _ = change(abort.number, Some(&ours));
    }
}

/// Calls the previous handler of the signal, or restores the default action.
///
/// # Safety
/// The arguments are those that the system gave to the handler of `signal`.
unsafe fn pass_on(signal: &Signal, sent: bool, info: *mut libc::siginfo_t, context: *mut c_void) {
    let flags = signal.flags.load(Relaxed);
    let handler = if flags & libc::SA_RESETHAND != 0 {
        signal.handler.swap(libc::SIG_DFL, Acquire)
    } else {
        signal.handler.load(Acquire)
    };
    match handler {
        // A fault cannot be ignored: its instruction would fault for ever.
        libc::SIG_IGN if sent => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            let _ = change(signal.number, Some(&action(libc::SIG_DFL, 0)));
            if sent {
                // SAFETY: `raise` has no preconditions.
                unsafe { libc::raise(signal.number) };
            }
            // Otherwise the instruction faults again, and the default action ends the process.
        }
        handler => {
            // SAFETY: `take_over` wrote the mask before it installed `on_fault`, and a mask
            // returned by `sigaction` is valid.
            let mut blocked = unsafe { (*signal.mask.get()).assume_init() };
            // SAFETY: `handler` is neither SIG_IGN nor SIG_DFL, so it is the previous handler, of
            // the type selected by SA_SIGINFO. Both masks are valid. The caller guarantees the
            // arguments.
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

/// Whether the signal was sent, by `kill` and the like. Otherwise it comes from an instruction,
/// which would fault again.
fn was_sent(info: &libc::siginfo_t) -> bool {
    info.si_code <= 0
}

/// Whether the process sent the signal to itself, as `abort` does.
fn was_sent_here(info: &libc::siginfo_t) -> bool {
    // SAFETY: a sent signal has a sender, so `si_pid` is valid. `getpid` has no preconditions.
    was_sent(info) && unsafe { info.si_pid() == libc::getpid() }
}

/// Saves `errno`. Dropping it restores `errno` for the interrupted code.
struct SavedErrno(i32);

impl SavedErrno {
    fn new() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl Drop for SavedErrno {
    fn drop(&mut self) {
        // SAFETY: `errno()` is valid for the calling thread, and no other thread uses it.
        unsafe { *errno() = self.0 };
    }
}

#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as errno;
#[cfg(target_os = "linux")]
use libc::__errno_location as errno;
#[cfg(any(target_os = "freebsd", target_vendor = "apple"))]
use libc::__error as errno;
