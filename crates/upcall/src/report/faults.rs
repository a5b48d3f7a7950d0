//! Signal handlers that report faults, stack overflows among them. They are installed only on
//! request.
//!
//! Rule: **the handler allocates nothing and waits for nobody**, since the fault may have happened
//! at any instruction.
//!
//! Rule: **on a thread that is not attached, the handler reads no thread-local storage.** If the
//! library was loaded after the thread began, the first access might allocate.
//!
//! The handler writes its report, and then calls the previous handler of the signal.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::io;
use std::mem::{MaybeUninit, transmute, zeroed};
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};

use stackbounds::stack_pointer;

use super::fault::Fault;
use super::overflowed::Overflowed;
use super::text::Text;
use crate::config::{Reports, settings};
use crate::process::with_signals_blocked;
use crate::stack::alternate;
use crate::stack::service::StaticStack;
use crate::sync::{Lock, Word};
use crate::sys;
use crate::thread::{Attached, ThreadState, attach};

/// Installs signal handlers that report faults and stack overflows on stderr.
///
/// The signals are SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT. The report of a fault lists the
/// calls between C and Rust that led there. If a stack has overflowed into its guard page, the
/// report also names the stack, its size, and a remedy. Afterwards the previous handler of the
/// signal is called.
///
/// upcall is a guest in the process: without this call, it handles no signal. A program with a Rust
/// `main` calls this first in `main`. A library leaves the call to its host, or to a setting of its
/// own.
///
/// ```
/// upcall::report::install()?;
/// # std::io::Result::Ok(())
/// ```
///
/// The report of an overflow, with line breaks added:
/// ```text
/// upcall: stack overflow on thread 0x7f6c5e9ff6c0 (upcall-worker-0): the stack of the fiber
///         "parser", 0x7f6c5d610000..0x7f6c5d63ff40, …
/// upcall: fibers get more by Fibers::builder().stack_size, Config::fiber_stack or …
/// upcall: open calls, the innermost first:
/// upcall:   Rust → C, C runs on a pooled stack, SP 0x7f6c5d63fc10
/// ```
///
/// The report of another fault, in C or Rust code:
/// ```text
/// upcall: SIGSEGV (invalid memory access) on thread 0x7fc0a4dff6c0 (main), at instruction
///         0x55e0d1e2a3c4, which touched 0x10
/// upcall: open calls, the innermost first:
/// upcall:   Rust → C, C runs on the thread's own stack, SP 0x7ffc1e3a9d60
/// upcall:   C → Rust, called from the thread's own stack, SP 0x7ffc1e3a9e90: geo::geo_render
/// ```
///
/// # Hosts that live with faults
/// A JVM, Go and some interpreters raise SIGSEGV on purpose, and handle it. For these, set
/// [`Reports::Overflows`](crate::Reports) with [`Config::reports`](crate::Config::reports), or
/// `UPCALL_REPORTS=overflows`. Then only SIGSEGV and SIGBUS are handled, and only stack overflows
/// are reported. With the default setting, reports of other faults end after the 16th.
///
/// # Which stacks
/// Overflows are recognised on pooled stacks, including fibers', on registered stacks, and on the
/// own stacks of attached threads. On a thread that is not attached, only the overflow of a
/// registered stack is recognised. The overflow of an unregistered coroutine's stack is reported as
/// any other fault.
///
/// A frame larger than the guard may skip it. The guard is 64 KiB on upcall's stacks, and often
/// one page on others. Compilers probe large frames of Rust code, and of C code with
/// `-fstack-clash-protection`.
///
/// # Threads
/// The handler needs an alternate stack (`sigaltstack`) on each thread. In a Rust program, threads
/// made by Rust's standard library have one. If another thread has none when it attaches, upcall
/// provides one until the thread's exit.
///
/// So call this function before the first upcall. If a thread was attached before and has no
/// alternate stack, an overflow kills the process without a report, as it would without this call.
/// A second call of the function, on such a thread, provides one.
///
/// # Other handlers
/// - A previous handler, the host's or that of Rust's standard library, is called after the report.
///   It gets the same arguments and the signal mask it was installed with. It runs on the alternate
///   stack, even if it was installed without `SA_ONSTACK`.
/// - If there was no handler, the default action of the signal is restored. The process then dies
///   of the original fault, at the original instruction.
/// - A handler installed later replaces upcall's. If it calls upcall's for the faults it does not
///   handle, these are still reported. Otherwise there are no reports.
///
/// While the previous handler of another signal runs, SIGABRT has its previous action. If this
/// handler leaves by `siglongjmp`, SIGABRT is not reported any more.
///
/// A second call of this function does not change the order of handlers. A signal sent by `kill`
/// and the like is passed on without a report, except SIGABRT from the process itself.
///
/// # Errors
/// An error means that the system refused the handler, or that there was no memory for the calling
/// thread's alternate stack. The signals are then handled as before.
pub fn install() -> io::Result<()> {
    let mut installed = INSTALLED.lock();
    alternate::want();
    let _attached = Attached::new(ThreadState::current(), stack_pointer());
    alternate::give()?;
    if !*installed {
        let signals = match settings().reports {
            Reports::Overflows => &SIGNALS[..OF_OVERFLOWS],
            Reports::Faults => &SIGNALS[..],
        };
        for (i, signal) in signals.iter().enumerate() {
            take_over(signal).inspect_err(|_| signals[..i].iter().for_each(give_back))?;
        }
        *installed = true;
    }
    Ok(())
}

static INSTALLED: Lock<bool> = Lock::new(false);

/// The lock of `install`, to be held across a fork.
pub(crate) fn lock_word() -> &'static Word {
    INSTALLED.word()
}

/// A signal, and its previous handler.
struct Signal {
    number: c_int,
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: UnsafeCell<MaybeUninit<libc::sigset_t>>,
}

// SAFETY: `mask` is written only while `on_fault` is not installed, and read only by `on_fault` and
// `give_back`, after that.
unsafe impl Sync for Signal {}

static SIGNALS: [Signal; 5] = [
    Signal::new(libc::SIGSEGV),
    Signal::new(libc::SIGBUS),
    Signal::new(libc::SIGILL),
    Signal::new(libc::SIGFPE),
    // The last one: see `without_report_of_abort`.
    Signal::new(libc::SIGABRT),
];
/// The number of signals that stack overflows raise, at the beginning of the list.
const OF_OVERFLOWS: usize = 2;

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
    // `on_fault` may run as soon as it is installed, so the previous handler is stored before.
    let before = change(signal.number, None)?;
    // SAFETY: `on_fault` is not installed yet, so it does not read the mask, and `install` holds
    // the lock, so nobody else writes it.
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
    // SAFETY: the caller guarantees the system's arguments: `info` and `context` are valid during
    // the handler.
    let (details, at) = unsafe { (&*info, sys::isa::interrupted_at(context)) };
    let (sp, code) = at.unzip();
    let sent = sys::was_sent(details);
    let aborts = signal == libc::SIGABRT;
    let is_fault = if aborts { sys::was_sent_here(details) } else { !sent };
    if is_fault {
        let address = if aborts { None } else { sys::fault_address(details) };
        // The next handler finds the `errno` of the interrupted code.
        let _errno = sys::SavedErrno::new();
        report(&Fault { signal, address, code, sp, record: attach::in_handler() });
    }
    let Some(signal) = SIGNALS.iter().find(|ours| ours.number == signal) else { return };
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

/// The buffer and the stack of one report at a time.
struct Report {
    taken: AtomicBool,
    text: UnsafeCell<Text>,
    stack: StaticStack,
}

// SAFETY: only the thread that set `taken` uses `text` and `stack`, until it clears `taken`.
unsafe impl Sync for Report {}

/// The places for reports, in static memory, with stacks of their own: alternate stacks may be
/// small.
///
/// There can be as many reports at one time. Further faults are passed on without a report, and so
/// is a fault inside a report.
static REPORTS: [Report; 4] = [const {
    Report { taken: AtomicBool::new(false), text: UnsafeCell::new(Text::new()), stack: StaticStack::new() }
}; 4];

/// The limit on reports of faults other than overflows.
///
/// A process that survives so many lives with its faults.
const MOST_FAULTS: usize = 16;

/// Reports the fault: the stack that overflowed, or else the kind of fault.
fn report(fault: &Fault<'_>) {
    let faults_itself = |report: &Report| report.stack.contains(fault.sp.unwrap_or(0));
    if REPORTS.iter().any(faults_itself) {
        return;
    }
    let Some(report) = REPORTS.iter().find(|report| !report.taken.swap(true, Acquire)) else { return };
    // SAFETY: this thread has set `taken`, so nobody else uses the stack and the text. A report is
    // of bounded depth, less than the stack has. Signals are blocked.
    with_signals_blocked(|_| unsafe { report.stack.run(&mut || write(&mut *report.text.get(), fault)) });
    report.taken.store(false, Release);
}

fn write(text: &mut Text, fault: &Fault<'_>) {
    static FAULTS: AtomicUsize = AtomicUsize::new(0);
    let in_guard = matches!(fault.signal, libc::SIGSEGV | libc::SIGBUS);
    let overflowed = fault.address.filter(|_| in_guard);
    let overflowed = overflowed.and_then(|address| Overflowed::by(address, fault.sp, fault.record));
    text.clear();
    if let Some(overflowed) = overflowed {
        let _ = write!(text, "{overflowed}");
    } else if settings().reports == Reports::Faults {
        match FAULTS.fetch_add(1, Relaxed) {
            n if n < MOST_FAULTS => drop(write!(text, "{fault}")),
            MOST_FAULTS => drop(writeln!(
                text,
                "upcall: the process goes on after faults, so no more are reported, but stack overflows: \
                 see Config::reports, or set UPCALL_REPORTS=overflows"
            )),
            _ => FAULTS.store(MOST_FAULTS + 1, Relaxed),
        }
    }
    text.write_to_stderr();
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
