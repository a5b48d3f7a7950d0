//! Settings of the process: once, before the first upcall, or from `UPCALL_*` variables.

use crate::quiet::report;
use std::fmt;
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicPtr};
use std::time::Duration;

/// What to do with an upcall from a stack that nobody described: not the thread's own, not registered with
/// [`stackbounds::register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForeignStacks {
    /// Serve it: the host runs coroutines. The default.
    Allow,
    /// Serve it, and say so on stderr, once a thread: a host that never switches stacks learns where its stack pointer went
    /// astray.
    Report,
    /// Answer it with [`Refusal::ForeignStack`](crate::Refusal::ForeignStack).
    Refuse,
}

/// How the guard pages below pooled stacks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuardPages {
    /// `MADV_GUARD_INSTALL` where there is one (Linux 6.13 and later), which splits no mapping; else `mprotect`. The default.
    Auto,
    /// Always `mprotect`: two mappings a stack, of which Linux allows a process 65,530.
    Mprotect,
}

/// The settings of the process, as a builder; [`config`] makes one.
///
/// | method | variable | default |
/// |---|---|---|
/// | [`min_stack`](Self::min_stack) | `UPCALL_MIN_STACK` (bytes) | 131072 |
/// | [`foreign_stacks`](Self::foreign_stacks) | `UPCALL_FOREIGN_STACKS` = `allow`, `report`, `refuse` | `allow` |
/// | [`open_upcalls`](Self::open_upcalls) | `UPCALL_OPEN_UPCALLS` (upcalls) | 16384 |
/// | [`idle_stacks`](Self::idle_stacks) | `UPCALL_IDLE_STACKS` (stacks) | 64 |
/// | [`guard_pages`](Self::guard_pages) | `UPCALL_GUARD_PAGES` = `auto`, `mprotect` | `auto` |
/// | [`fiber_stack`](Self::fiber_stack) | `UPCALL_FIBER_STACK` (bytes) | 163840 |
/// | [`workers`](Self::workers) | `UPCALL_WORKERS` (threads) | the cores that the process may use |
/// | [`wait_warning`](Self::wait_warning) | `UPCALL_WAIT_WARNING` (milliseconds) | 5000 |
///
/// A variable wins over what the program sets: who runs the process has the last word. A variable that cannot be read as
/// what it should be is named on stderr and ignored.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) min_stack: usize,
    pub(crate) foreign_stacks: ForeignStacks,
    pub(crate) open_upcalls: usize,
    pub(crate) idle_stacks: usize,
    pub(crate) guard_pages: GuardPages,
    pub(crate) fiber_stack: usize,
    pub(crate) workers: usize,
    pub(crate) wait_warning: Duration,
    pub(crate) fatal_handler: Option<fn(&str)>,
    #[cfg(feature = "tokio")]
    pub(crate) tokio: Option<tokio::runtime::Handle>,
}

/// The least and the most that [`Config::min_stack`] and [`Config::fiber_stack`] take, in bytes.
const MIN_STACK: std::ops::RangeInclusive<usize> = 16 << 10..=1 << 30;

/// Null until they are fixed. Not a lock that a fork, while another thread fixes them, would leave locked in the child.
static SETTINGS: AtomicPtr<Config> = AtomicPtr::new(ptr::null_mut());
/// Whether any thread has attached, from when on settings are fixed.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// Starts from the defaults; [`Config::install`] makes the result the settings of the process.
///
/// ```
/// use upcall::ForeignStacks;
///
/// upcall::config().min_stack(256 * 1024).foreign_stacks(ForeignStacks::Report).install()?;
/// # Ok::<(), upcall::ConfigError>(())
/// ```
pub fn config() -> Config {
    Config {
        min_stack: 128 << 10,
        foreign_stacks: ForeignStacks::Allow,
        open_upcalls: 16 << 10,
        idle_stacks: 64,
        guard_pages: GuardPages::Auto,
        fiber_stack: 160 << 10,
        workers: 0,
        wait_warning: Duration::from_secs(5),
        fatal_handler: None,
        #[cfg(feature = "tokio")]
        tokio: None,
    }
}

impl Config {
    /// The bytes of stack that every upcall has at least, unless its entry says otherwise.
    pub fn min_stack(mut self, bytes: usize) -> Self {
        self.min_stack = bytes;
        self
    }

    /// What to do with upcalls from undescribed stacks. Without effect on threads whose own stack is not known
    /// either, because the platform does not tell.
    pub fn foreign_stacks(mut self, policy: ForeignStacks) -> Self {
        self.foreign_stacks = policy;
        self
    }

    /// How many upcalls that came from undescribed stacks a thread may have open at one time; a further one is refused
    /// ([`Refusal::TooManyOpen`](crate::Refusal::TooManyOpen)). Each has a stack of its own, of which it uses two pages at least.
    ///
    /// There are as many as a host has coroutines that are suspended inside upcalls. A host that leaves upcalls by `longjmp` comes to any limit on such
    /// stacks, since nobody can tell those that were left from those that are suspended; on [registered](stackbounds::register) ones and the
    /// thread's own, what was left is found and used again.
    pub fn open_upcalls(mut self, upcalls: usize) -> Self {
        self.open_upcalls = upcalls;
        self
    }

    /// How many idle stacks keep their pages, beyond the few that each thread keeps. Further ones, and those larger than 1 MiB, keep only
    /// their address space.
    pub fn idle_stacks(mut self, stacks: usize) -> Self {
        self.idle_stacks = stacks;
        self
    }

    /// How guard pages are made.
    pub fn guard_pages(mut self, how: GuardPages) -> Self {
        self.guard_pages = how;
        self
    }

    /// The bytes of stack that every fiber has at least, unless its builder says otherwise. Upcalls that C makes [on a fiber's
    /// stack](crate::downcall_on_fiber) run there while `min_stack` bytes are left, and on a further stack of the fiber's otherwise.
    pub fn fiber_stack(mut self, bytes: usize) -> Self {
        self.fiber_stack = bytes;
        self
    }

    /// How many worker threads run the fibers of [`spawn`](crate::spawn); 0 for as many as there are cores that the process may use. There are
    /// more for a time when some are stuck in blocking calls.
    pub fn workers(mut self, threads: usize) -> Self {
        self.workers = threads;
        self
    }

    /// After how long a wait is reported on stderr that blocks the thread of a current-thread tokio runtime, which can then not serve it
    /// (feature `tokio`). Zero for never.
    pub fn wait_warning(mut self, after: Duration) -> Self {
        self.wait_warning = after;
        self
    }

    /// What to call with the message before the process is stopped because something happened after which nothing can go on: a call that
    /// came back on another thread, an exception of C++ that reached Rust. For a log, or an end of the host's own: if it returns, the process
    /// aborts. The message has been written to stderr before.
    pub fn fatal_handler(mut self, handler: fn(&str)) -> Self {
        self.fatal_handler = Some(handler);
        self
    }

    /// The runtime whose reactor and timers futures find in any [`wait`](crate::wait) that is not in a tokio runtime anyway, or would
    /// block the only thread of one. It is to be a multi-thread runtime, or one that another thread drives.
    ///
    /// A wait inside the poll of a future that is polled so blocks the thread, on a fiber too.
    #[cfg(feature = "tokio")]
    pub fn tokio(mut self, handle: tokio::runtime::Handle) -> Self {
        self.tokio = Some(handle);
        self
    }

    /// Makes these the settings of the process, for its whole life.
    ///
    /// # Errors
    /// When settings were installed before, when a thread has made an upcall already (nothing is changed then), or when `min_stack` or
    /// `fiber_stack` is out of range.
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
        Err(if IN_USE.load(Relaxed) { ConfigError::InUse } else { ConfigError::AlreadyInstalled })
    }

    fn with_environment(mut self) -> Self {
        let bytes = |s: &str| s.parse().ok().filter(|bytes| MIN_STACK.contains(bytes));
        variable(
            "UPCALL_MIN_STACK",
            "a number of bytes from 16384 to 1073741824",
            bytes,
            &mut self.min_stack,
        );
        variable(
            "UPCALL_FIBER_STACK",
            "a number of bytes from 16384 to 1073741824",
            bytes,
            &mut self.fiber_stack,
        );
        variable("UPCALL_WORKERS", "a number of threads", |s| s.parse().ok(), &mut self.workers);
        let milliseconds = |s: &str| s.parse().ok().map(Duration::from_millis);
        variable("UPCALL_WAIT_WARNING", "a number of milliseconds", milliseconds, &mut self.wait_warning);
        let policy = |s: &str| match s {
            "allow" => Some(ForeignStacks::Allow),
            "report" => Some(ForeignStacks::Report),
            "refuse" => Some(ForeignStacks::Refuse),
            _ => None,
        };
        variable("UPCALL_FOREIGN_STACKS", "allow, report or refuse", policy, &mut self.foreign_stacks);
        variable("UPCALL_OPEN_UPCALLS", "a number of upcalls", |s| s.parse().ok(), &mut self.open_upcalls);
        variable("UPCALL_IDLE_STACKS", "a number of stacks", |s| s.parse().ok(), &mut self.idle_stacks);
        let guard = |s: &str| match s {
            "auto" => Some(GuardPages::Auto),
            "mprotect" => Some(GuardPages::Mprotect),
            _ => None,
        };
        variable("UPCALL_GUARD_PAGES", "auto or mprotect", guard, &mut self.guard_pages);
        self
    }
}

/// Reads one variable into `setting`, if it is there and means something.
fn variable<T>(name: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>, setting: &mut T) {
    let Some(value) = std::env::var_os(name) else { return };
    match value.to_str().and_then(parse) {
        Some(value) => *setting = value,
        None => report(format_args!("{name}={value:?} is ignored: it takes {expected}")),
    }
}

/// The settings, fixed from now on.
pub(crate) fn settings() -> &'static Config {
    IN_USE.store(true, Relaxed);
    installed()
        .or_else(|| fix(config()))
        .or_else(installed)
        .expect("upcall: settings stay when they are fixed")
}

fn installed() -> Option<&'static Config> {
    // SAFETY: null, or what `fix` leaked.
    unsafe { SETTINGS.load(Acquire).as_ref() }
}

/// Makes `config`, with what the environment says, the settings, unless there are some.
fn fix(config: Config) -> Option<&'static Config> {
    if installed().is_some() {
        return None;
    }
    let config = Box::into_raw(Box::new(config.with_environment()));
    if SETTINGS.compare_exchange(ptr::null_mut(), config, AcqRel, Acquire).is_ok() {
        return installed();
    }
    // SAFETY: it has not become the settings, so nobody else has it.
    drop(unsafe { Box::from_raw(config) });
    None
}

/// Why [`Config::install`] changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Settings were installed before.
    AlreadyInstalled,
    /// An upcall was made before, with the settings that were there.
    InUse,
    /// `min_stack` is below 16 KiB or above 1 GiB.
    MinStack {
        /// As given.
        bytes: usize,
    },
    /// `fiber_stack` is below 16 KiB or above 1 GiB.
    FiberStack {
        /// As given.
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
