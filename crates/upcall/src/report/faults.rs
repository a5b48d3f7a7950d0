//! Reports of faults, stack overflows among them. They are installed only on request.
//!
//! `sys::faults` has the system's handlers, which call [`report`].
//!
//! Rule: **a report allocates nothing and waits for nobody**, since the fault may have happened at
//! any instruction.
//!
//! Rule: **on a thread that is not attached, a report reads no thread-local storage.** If the
//! library was loaded after the thread began, the first access might allocate.

use std::cell::UnsafeCell;
use std::fmt::Write;
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};

use stackbounds::stack_pointer;

use super::fault::Fault;
use super::overflowed::Overflowed;
use super::text::Text;
use crate::config::{Reports, settings};
use crate::process::with_signals_blocked;
use crate::stack::alternate;
use crate::stack::service::StaticStack;
use crate::sync::{Lock, Word};
use crate::sys::faults::{self, Raised};
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
/// # Windows
/// A vectored exception handler reports access violations, illegal and privileged instructions,
/// arithmetic errors, and stack overflows. It reports an exception before any handler sees it, also
/// one that the host handles. Then the search for a handler continues.
///
/// - The handler begins on the stack of the fault. For overflows, each attached thread gets a
///   guarantee of 20 KiB ([`SetThreadStackGuarantee`]), unless it has a greater one. The report
///   itself runs elsewhere.
/// - The system recognises the overflow of a stack described in the thread's TEB: the thread's own,
///   a pooled stack, a Windows fiber. If no description of it is known here, the report is the one
///   of a fault. The overflow of another stack is an access violation. There is no report of it if
///   the stack has no room for the handler.
/// - Rust's standard library has a handler, too. Its message follows, about a thread that "has
///   overflowed its stack". It also comes if the stack is a fiber's.
/// - Rust's and C's `abort` are fail-fast exceptions. No handler of the process sees them.
///
/// [`SetThreadStackGuarantee`]: https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-setthreadstackguarantee
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
        faults::install(settings().reports == Reports::Overflows, report)?;
        *installed = true;
    }
    Ok(())
}

static INSTALLED: Lock<bool> = Lock::new(false);

/// The lock of `install`, to be held across a fork.
pub(crate) fn lock_word() -> &'static Word {
    INSTALLED.word()
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
fn report(raised: &Raised) {
    let faults_itself = |report: &Report| report.stack.contains(raised.sp.unwrap_or(0));
    if REPORTS.iter().any(faults_itself) {
        return;
    }
    let Some(report) = REPORTS.iter().find(|report| !report.taken.swap(true, Acquire)) else { return };
    let fault = Fault { raised, record: attach::in_handler() };
    // SAFETY: this thread has set `taken`, so nobody else uses the stack and the text. A report is
    // of bounded depth, less than the stack has. Signals are blocked.
    with_signals_blocked(|_| unsafe { report.stack.run(&mut || write(&mut *report.text.get(), &fault)) });
    report.taken.store(false, Release);
}

fn write(text: &mut Text, fault: &Fault<'_>) {
    static FAULTS: AtomicUsize = AtomicUsize::new(0);
    text.clear();
    if let Some(overflowed) = Overflowed::by(fault) {
        let _ = write!(text, "{overflowed}");
    } else if fault.raised.overflows || settings().reports == Reports::Faults {
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
