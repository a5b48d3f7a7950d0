//! Settings of the process: set once, before the first upcall, or by `UPCALL_*` variables.
//!
//! Half of the file is the documentation of the settings.

mod environment;
mod installed;

use std::ffi::c_void;
use std::fmt;
use std::time::Duration;

use installed::{fix, is_in_use};
pub(crate) use installed::{settings, stack_margin};

/// The policy for upcalls from undescribed stacks.
///
/// A stack is undescribed if it is neither the thread's own nor registered with
/// [`stackbounds::register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForeignStacks {
    /// Serves the upcall: the host runs coroutines. The default.
    Allow,
    /// Serves the upcall, and reports it on stderr, once per thread.
    ///
    /// This is for hosts that never switch stacks: they learn of a stack pointer gone astray.
    Report,
    /// Refuses the upcall with [`Refusal::ForeignStack`](crate::Refusal::ForeignStack).
    Refuse,
}

/// The system call that makes the guard pages below pooled stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuardPages {
    /// `MADV_GUARD_INSTALL` on Linux 6.13 and later, `mprotect` elsewhere. The default.
    ///
    /// `MADV_GUARD_INSTALL` does not split a mapping.
    Auto,
    /// Always `mprotect`: two mappings per stack. Linux allows a process 65,530 mappings.
    Mprotect,
}

/// The faults to report after a call of [`report::install`](crate::report::install).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reports {
    /// All faults: SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT. The default.
    Faults,
    /// Only stack overflows.
    ///
    /// For hosts that raise SIGSEGV on purpose and handle it, such as a JVM or Go.
    Overflows,
}

/// The settings of the process, as a builder; [`config`] makes one.
///
/// | method | variable | default |
/// |---|---|---|
/// | [`min_stack`](Self::min_stack) | `UPCALL_MIN_STACK` (bytes) | 262144 |
/// | [`foreign_stacks`] | `UPCALL_FOREIGN_STACKS` = `allow`, `report`, `refuse` | `allow` |
/// | [`stack_margin`](Self::stack_margin) | `UPCALL_STACK_MARGIN` (bytes) | 98304 |
/// | [`open_upcalls`](Self::open_upcalls) | `UPCALL_OPEN_UPCALLS` (upcalls) | 16384 |
/// | [`idle_stacks`](Self::idle_stacks) | `UPCALL_IDLE_STACKS` (stacks) | 64 |
/// | [`guard_pages`](Self::guard_pages) | `UPCALL_GUARD_PAGES` = `auto`, `mprotect` | `auto` |
/// | [`fiber_stack`](Self::fiber_stack) | `UPCALL_FIBER_STACK` (bytes) | 917504 |
/// | [`workers`](Self::workers) | `UPCALL_WORKERS` (threads) | the cores available to the process |
/// | [`running_tasks`](Self::running_tasks) | `UPCALL_RUNNING_TASKS` (tasks) | no limit |
/// | [`reports`](Self::reports) | `UPCALL_REPORTS` = `faults`, `overflows` | `faults` |
/// | `makes_tokio_runtime` (feature `tokio`) | `UPCALL_TOKIO_RUNTIME` = `make`, `none` | `make` |
/// | [`wait_warning`] | `UPCALL_WAIT_WARNING` (milliseconds) | 60000; 5000 for a likely error |
///
/// If a variable is set, it overrides the program's own setting: the user of the process has the
/// last word. If its value is invalid, upcall reports the variable on stderr and ignores it.
///
/// [`foreign_stacks`]: Self::foreign_stacks
/// [`wait_warning`]: Self::wait_warning
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) min_stack: usize,
    pub(crate) stack_margin: usize,
    pub(crate) foreign_stacks: ForeignStacks,
    pub(crate) open_upcalls: usize,
    pub(crate) idle_stacks: usize,
    pub(crate) guard_pages: GuardPages,
    pub(crate) reports: Reports,
    pub(crate) fiber_stack: usize,
    pub(crate) workers: usize,
    #[cfg(feature = "runtime")]
    pub(crate) running_tasks: usize,
    pub(crate) wait_warning: Option<Duration>,
    pub(crate) interrupted: Option<fn() -> bool>,
    pub(crate) around_block: Option<AroundBlock>,
    pub(crate) fatal_handler: Option<fn(&str)>,
    #[cfg(feature = "runtime")]
    pub(crate) worker_start: Option<fn()>,
    #[cfg(feature = "runtime")]
    pub(crate) worker_end: Option<fn()>,
    #[cfg(feature = "tokio")]
    pub(crate) tokio: Option<fn() -> tokio::runtime::Handle>,
    #[cfg(feature = "tokio")]
    pub(crate) makes_tokio_runtime: bool,
}

/// The two functions of the host around a sleep of one of its threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AroundBlock {
    pub before: fn() -> *mut c_void,
    pub after: fn(*mut c_void),
}

/// The range of [`Config::min_stack`] and [`Config::fiber_stack`], in bytes.
const MIN_STACK: std::ops::RangeInclusive<usize> = 16 << 10..=1 << 30;

/// HotSpot's guard zones (yellow, red, reserved) and its shadow zone, on x86-64 and aarch64 Linux.
const STACK_MARGIN: usize = (16 + 80) << 10;

/// Makes the default settings; [`Config::install`] applies them to the process.
///
/// ```
/// use upcall::ForeignStacks;
///
/// upcall::config().min_stack(256 * 1024).foreign_stacks(ForeignStacks::Report).install()?;
/// # Ok::<(), upcall::ConfigError>(())
/// ```
pub fn config() -> Config {
    Config {
        min_stack: 256 << 10,
        stack_margin: STACK_MARGIN,
        foreign_stacks: ForeignStacks::Allow,
        open_upcalls: 16 << 10,
        idle_stacks: 64,
        guard_pages: GuardPages::Auto,
        reports: Reports::Faults,
        fiber_stack: 896 << 10,
        workers: 0,
        #[cfg(feature = "runtime")]
        running_tasks: 0,
        wait_warning: None,
        interrupted: None,
        around_block: None,
        fatal_handler: None,
        #[cfg(feature = "runtime")]
        worker_start: None,
        #[cfg(feature = "runtime")]
        worker_end: None,
        #[cfg(feature = "tokio")]
        tokio: None,
        #[cfg(feature = "tokio")]
        makes_tokio_runtime: true,
    }
}

impl Config {
    /// The minimum size of a thread's spare stacks, in bytes: the same for upcalls and for fibers.
    pub(crate) fn spare_stack(&self) -> usize {
        self.min_stack.max(self.fiber_stack)
    }

    /// Sets the bytes of stack that every upcall has at least, unless its entry says otherwise.
    ///
    /// Takes 16 KiB to 1 GiB; the default is 256 KiB. Pooled stacks have the size of fibers' stacks
    /// if [`fiber_stack`](Self::fiber_stack) is larger.
    pub fn min_stack(mut self, bytes: usize) -> Self {
        self.min_stack = bytes;
        self
    }

    /// Sets the bytes that upcalls leave free at the low end of a thread's own stack.
    ///
    /// ```text
    ///  high ─┬──────────────┐
    ///        │ C's frames   │
    ///        ├──────────────┤ SP of the call of an exported function
    ///        │  min_stack   │ if it fits, the upcall runs here; otherwise, on a pooled stack
    ///        ├──────────────┤
    ///        │ stack_margin │ 80 KiB for the JVM's own code, and its guard zones of 16 KiB
    ///   low ─┴──────────────┘
    /// ```
    ///
    /// A JVM keeps its guard zones, 16 KiB, at the low end of a Java thread's stack, inside the
    /// bounds known to the system. It expects native code to leave the 80 KiB above them to the
    /// JVM. The default is the sum, 96 KiB. So a thread with less than 352 KiB of stack runs its
    /// upcalls on pooled stacks. A host without such zones can set 0.
    ///
    /// [Registered](stackbounds::register) stacks have no margin, nor has an upcall with
    /// [`StackChoice::Caller`](crate::StackChoice::Caller).
    pub fn stack_margin(mut self, bytes: usize) -> Self {
        self.stack_margin = bytes;
        self
    }

    /// Sets the policy for upcalls from undescribed stacks.
    ///
    /// It has no effect on a thread whose own stack is unknown too, on platforms without such
    /// information.
    pub fn foreign_stacks(mut self, policy: ForeignStacks) -> Self {
        self.foreign_stacks = policy;
        self
    }

    /// Sets the limit on a thread's open upcalls from undescribed stacks.
    ///
    /// Further ones are refused ([`Refusal::TooManyOpen`](crate::Refusal::TooManyOpen)). Each open
    /// upcall has a pooled stack of its own, and uses at least two of its pages.
    ///
    /// The number to expect is the host's number of coroutines suspended inside upcalls. If a host
    /// leaves upcalls by `longjmp` on undescribed stacks, it reaches any limit: abandoned and
    /// suspended upcalls look the same there. On [registered](stackbounds::register) stacks and on
    /// the thread's own, upcall finds abandoned ones and reuses their stacks.
    pub fn open_upcalls(mut self, upcalls: usize) -> Self {
        self.open_upcalls = upcalls;
        self
    }

    /// Sets the number of idle stacks in the pool that keep their pages.
    ///
    /// Idle stacks of the default size count as one, larger ones as several, by their size. The few
    /// spares of each thread are not counted. Idle stacks beyond the limit keep only their address
    /// space. An idle stack has as many pages as its users touched.
    ///
    /// While a host of [`coroutines`](crate::coroutines) is installed, the limit is at least the
    /// greatest number of stacks in use at one time of late. It falls by 1 each 64 returned stacks.
    pub fn idle_stacks(mut self, stacks: usize) -> Self {
        self.idle_stacks = stacks;
        self
    }

    /// Sets the way to make guard pages.
    pub fn guard_pages(mut self, how: GuardPages) -> Self {
        self.guard_pages = how;
        self
    }

    /// Sets the faults that [`report::install`](crate::report::install) reports.
    pub fn reports(mut self, which: Reports) -> Self {
        self.reports = which;
        self
    }

    /// Sets the bytes of stack that every fiber has at least, unless its builder says otherwise.
    ///
    /// Takes 16 KiB to 1 GiB; the default is 896 KiB. If C code [on a fiber's
    /// stack](crate::downcall_on_fiber) makes an upcall with at least `min_stack` bytes remaining,
    /// the upcall runs there. Otherwise it runs on an extension stack of the fiber.
    pub fn fiber_stack(mut self, bytes: usize) -> Self {
        self.fiber_stack = bytes;
        self
    }

    /// Sets the number of worker threads for the fibers of [`spawn`](crate::Fibers::spawn).
    ///
    /// 0, the default, means as many as the cores available to the process. While some workers are
    /// stuck in blocking calls, there are temporarily more.
    pub fn workers(mut self, threads: usize) -> Self {
        self.workers = threads;
        self
    }

    /// Sets the number of tasks that may run at the same time: started by
    /// [`start`](crate::start), and not ended.
    ///
    /// 0, the default, means no limit. At the limit, a start is an error,
    /// [`TooMany`](crate::StartError::TooMany), or
    /// [waits](crate::TaskBuilder::wait_for_place).
    #[cfg(feature = "runtime")]
    pub fn running_tasks(mut self, tasks: usize) -> Self {
        self.running_tasks = tasks;
        self
    }

    /// Sets a hook for the start of each worker thread and each thread of
    /// [`blocking`](crate::blocking).
    ///
    /// The thread calls it before it runs anything else, for example to attach to a JVM or to set
    /// the thread's priority. The thread's first fiber waits for the hook. If the hook panics,
    /// upcall reports the panic, and the thread continues.
    #[cfg(feature = "runtime")]
    pub fn worker_start(mut self, hook: fn()) -> Self {
        self.worker_start = Some(hook);
        self
    }

    /// Sets a hook for the end of each worker thread and each thread of
    /// [`blocking`](crate::blocking).
    ///
    /// The thread calls it after its last fiber or call: when it has been idle for long, and in
    /// [`shutdown`](crate::shutdown), which waits for the hook. If the hook panics, upcall reports
    /// the panic.
    ///
    /// Threads still there when the process exits do not end, so they do not call the hook. The
    /// child of a fork has none of its parent's threads, and calls no hook for them.
    #[cfg(feature = "runtime")]
    pub fn worker_end(mut self, hook: fn()) -> Self {
        self.worker_end = Some(hook);
        self
    }

    /// Sets the time after which a blocked thread is reported on stderr; zero for never.
    ///
    /// upcall reports each place in the source once, with the future it waits for:
    /// - A [`wait`](crate::wait) that blocks its thread: by default after a minute. The default is
    ///   5 seconds if nothing else may be able to end the wait: inside an initialiser, inside a
    ///   signal handler, or on the only thread of a tokio runtime.
    /// - A fiber in a blocking call, if other fibers of the same worker cannot run meanwhile: by
    ///   default after 5 seconds.
    pub fn wait_warning(mut self, after: Duration) -> Self {
        self.wait_warning = Some(after);
        self
    }

    /// Sets a hook by which the host takes a thread back from a blocking wait, after Ctrl-C for
    /// example.
    ///
    /// If the hook returns true, every wait that blocks the thread at this moment ends, the
    /// innermost first: by [unwinding](crate::wait), or with [an error](crate::wait_interruptible).
    /// upcall calls the hook on the blocked thread, as a [`downcall`](crate::downcall): after a
    /// signal handler has run there, and about every 50 ms, for signals delivered to another
    /// thread.
    ///
    /// Some waits stay, because the thing they wait for must be over first: those of
    /// [`scope`](crate::Fibers::scope), those of a fiber's drop, and those of a panicking thread.
    /// With `panic = "abort"`, only [`wait_interruptible`](crate::wait_interruptible) asks the
    /// hook.
    ///
    /// In a Python extension, the hook takes the GIL and returns `PyErr_CheckSignals() != 0`. The
    /// extension then raises the exception set by this call.
    pub fn interrupted(mut self, hook: fn() -> bool) -> Self {
        self.interrupted = Some(hook);
        self
    }

    /// Sets two hooks around each sleep of a thread, to release and take back a resource such as a
    /// GIL.
    ///
    /// upcall calls `before` when a wait is about to put its thread to sleep, but not while the
    /// wait only spins for a few microseconds. After the sleep it calls `after` on the same thread,
    /// with the value of `before`, before any other code runs there. So the pairs are always
    /// nested. Both are called as [`downcalls`](crate::downcall), on a panicking thread too, and
    /// must not panic. While a fiber is suspended and its thread runs others, no hook is called.
    ///
    /// For Python, if the GIL is not always held:
    ///
    /// ```
    /// # use std::ffi::{c_int, c_void};
    /// # mod ffi {
    /// #     use std::ffi::{c_int, c_void};
    /// #     pub unsafe extern "C" fn PyGILState_Check() -> c_int { 0 }
    /// #     pub unsafe extern "C" fn PyEval_SaveThread() -> *mut c_void { std::ptr::null_mut() }
    /// #     pub unsafe extern "C" fn PyEval_RestoreThread(_: *mut c_void) {}
    /// # }
    /// use ffi::{PyEval_RestoreThread, PyEval_SaveThread, PyGILState_Check};
    ///
    /// fn release() -> *mut c_void {
    ///     // SAFETY: any thread may ask.
    ///     if unsafe { PyGILState_Check() } == 0 {
    ///         return std::ptr::null_mut();
    ///     }
    ///     // SAFETY: the thread has the GIL.
    ///     unsafe { PyEval_SaveThread() }
    /// }
    ///
    /// fn take_back(state: *mut c_void) {
    ///     if !state.is_null() {
    ///         // SAFETY: `release` saved it, on this thread.
    ///         unsafe { PyEval_RestoreThread(state) }
    ///     }
    /// }
    ///
    /// upcall::config().around_block(release, take_back).install()?;
    /// # Ok::<(), upcall::ConfigError>(())
    /// ```
    pub fn around_block(mut self, before: fn() -> *mut c_void, after: fn(*mut c_void)) -> Self {
        self.around_block = Some(AroundBlock { before, after });
        self
    }

    /// Sets a handler to call with the message before upcall aborts the process.
    ///
    /// upcall aborts when nothing can continue: a call has come back on another thread, or a C++
    /// exception has reached Rust frames. The handler can write to a log, or end the process in the
    /// host's own way. If it returns, the process aborts. The message is already on stderr when the
    /// handler is called.
    pub fn fatal_handler(mut self, handler: fn(&str)) -> Self {
        self.fatal_handler = Some(handler);
        self
    }

    /// Sets the tokio runtime that serves the timers and sockets of waits outside tokio.
    ///
    /// A [`wait`](crate::wait) polls its future in the context of this runtime if the calling
    /// thread is in no tokio runtime, or if the wait would block the only thread of one.
    /// [`tokio_runtime`](crate::tokio_runtime) sets it at any time. Without either, upcall makes a
    /// runtime of its own.
    ///
    /// If such a future waits inside its `poll`, this inner wait blocks the thread, on a fiber too.
    #[cfg(feature = "tokio")]
    pub fn tokio(mut self, handle: fn() -> tokio::runtime::Handle) -> Self {
        self.tokio = Some(handle);
        self
    }

    /// Sets whether upcall makes a tokio runtime for waits outside tokio; the default is true.
    ///
    /// The runtime, with its threads, is made only if a wait needs it and the process has given no
    /// other. The feature `tokio` may be enabled by another crate, in a library without any use of
    /// tokio. Such a library sets false.
    #[cfg(feature = "tokio")]
    pub fn makes_tokio_runtime(mut self, makes: bool) -> Self {
        self.makes_tokio_runtime = makes;
        self
    }

    /// Makes these the settings of the process, for its whole life.
    ///
    /// # Errors
    /// On an error, nothing is changed.
    /// - [`ConfigError::AlreadyInstalled`]: settings were installed before.
    /// - [`ConfigError::InUse`]: a thread has made an upcall already.
    /// - [`ConfigError::MinStack`], [`ConfigError::FiberStack`]: the size is out of range.
    pub fn install(self) -> Result<(), ConfigError> {
        if !MIN_STACK.contains(&self.min_stack) {
            return Err(ConfigError::MinStack { bytes: self.min_stack });
        }
        if !MIN_STACK.contains(&self.fiber_stack) {
            return Err(ConfigError::FiberStack { bytes: self.fiber_stack });
        }
        if fix(self).is_some() {
            return Ok(());
        }
        Err(if is_in_use() { ConfigError::InUse } else { ConfigError::AlreadyInstalled })
    }
}

/// The reason why [`Config::install`] changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Settings were installed before.
    AlreadyInstalled,
    /// An upcall was made before, and fixed the settings.
    InUse,
    /// `min_stack` is below 16 KiB or above 1 GiB.
    MinStack {
        /// The requested size in bytes.
        bytes: usize,
    },
    /// `fiber_stack` is below 16 KiB or above 1 GiB.
    FiberStack {
        /// The requested size in bytes.
        bytes: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyInstalled => out.write_str(
                "upcall is configured already: install settings once, where the library is initialised",
            ),
            Self::InUse => {
                out.write_str("upcall is in use already: install settings before the first upcall")
            }
            Self::MinStack { bytes } => out_of_range(out, "min_stack", *bytes),
            Self::FiberStack { bytes } => out_of_range(out, "fiber_stack", *bytes),
        }
    }
}

fn out_of_range(out: &mut fmt::Formatter<'_>, name: &str, bytes: usize) -> fmt::Result {
    write!(out, "{name} is {bytes} bytes: it takes {} to {}", MIN_STACK.start(), MIN_STACK.end())
}

impl std::error::Error for ConfigError {}
