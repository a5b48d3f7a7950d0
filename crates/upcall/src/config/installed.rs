//! The settings of the process: fixed once, by the program or by the first upcall.

use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicPtr};

use super::{Config, STACK_MARGIN, config};
use crate::messages::set_fatal_handler;

/// The fixed settings; null before they are fixed.
///
/// It is not a lock: if the process forked while another thread fixed the settings, the lock would
/// stay locked in the child.
static SETTINGS: AtomicPtr<Config> = AtomicPtr::new(ptr::null_mut());
/// Whether any thread has attached. From then on the settings are fixed.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// Whether any thread has attached.
pub(super) fn is_in_use() -> bool {
    IN_USE.load(Relaxed)
}

/// The settings. If none are installed, fixes the defaults.
pub(crate) fn settings() -> &'static Config {
    IN_USE.store(true, Relaxed);
    installed()
        .or_else(|| fix(config()))
        .or_else(installed)
        .expect("upcall: settings stay when they are fixed")
}

/// The current [`Config::stack_margin`]; does not fix the settings.
pub(crate) fn stack_margin() -> usize {
    installed().map_or(STACK_MARGIN, |settings| settings.stack_margin)
}

fn installed() -> Option<&'static Config> {
    // SAFETY: `SETTINGS` is null or a box leaked by `fix`, which is never freed nor written again.
    unsafe { SETTINGS.load(Acquire).as_ref() }
}

/// Fixes `config`, overridden by the environment, as the settings.
///
/// Returns `None` if other settings are fixed already.
pub(super) fn fix(config: Config) -> Option<&'static Config> {
    if installed().is_some() {
        return None;
    }
    let config = Box::into_raw(Box::new(config.with_environment()));
    if SETTINGS.compare_exchange(ptr::null_mut(), config, AcqRel, Acquire).is_ok() {
        let installed = installed()?;
        if let Some(handler) = installed.fatal_handler {
            set_fatal_handler(handler);
        }
        return Some(installed);
    }
    // SAFETY: the exchange failed, so `SETTINGS` never held this box, and this function still owns
    // it.
    drop(unsafe { Box::from_raw(config) });
    None
}
