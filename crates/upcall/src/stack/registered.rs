//! The stacks registered by hosts through the C API, with their names.
//!
//! stackbounds knows the bounds of the stacks. This module keeps the host's name of each, and the
//! registration, which a Rust caller would keep itself.

use std::collections::BTreeMap;
use std::fmt;

use stackbounds::{RegisterError, Registration, StackBounds};

use crate::sync::{Lock, Word};

struct Entry {
    registration: Registration,
    name: Option<Box<str>>,
}

/// The registered stacks, by lowest address.
static REGISTERED: Lock<BTreeMap<usize, Entry>> = Lock::new(BTreeMap::new());

/// The lock of the registered stacks, for forks.
pub(crate) fn lock_word() -> &'static Word {
    REGISTERED.word()
}

/// Formats a registered stack for messages.
pub(crate) struct Described<'a> {
    bounds: StackBounds,
    name: Option<&'a str>,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the registered stack ")?;
        if let Some(name) = self.name {
            write!(out, "\"{name}\", ")?;
        }
        write!(out, "{:#x}..{:#x}", self.bounds.low(), self.bounds.high())
    }
}

impl Entry {
    fn described(&self) -> Described<'_> {
        Described { bounds: self.registration.bounds(), name: self.name.as_deref() }
    }
}

/// Registers the stack `low..low + size`, named `name`.
///
/// # Errors
/// If stackbounds refuses the stack, the message says why, and names a registered stack in the way.
///
/// # Safety
/// As for [`stackbounds::register`].
pub(crate) unsafe fn register(low: *mut u8, size: usize, name: Option<Box<str>>) -> Result<(), String> {
    let mut registered = REGISTERED.lock();
    // SAFETY: the caller guarantees the requirements of `stackbounds::register`.
    let registration = unsafe { stackbounds::register(low, size) }.map_err(|error| match error {
        RegisterError::AlreadyRegistered { low: other, .. } | RegisterError::Overlaps { low: other, .. } => {
            match registered.get(&other) {
                Some(other) => {
                    format!("{low:p}, {size} bytes, overlaps {}: unregister that first", other.described())
                }
                None => error.to_string(),
            }
        }
        _ => error.to_string(),
    })?;
    registered.insert(low as usize, Entry { registration, name });
    Ok(())
}

/// Unregisters the stack whose lowest address is `low`.
///
/// # Errors
/// If no stack was registered at `low`, or if `in_use` returns a user of the stack. It stays
/// registered then.
pub(crate) fn unregister(
    low: usize,
    in_use: impl FnOnce(StackBounds) -> Option<String>,
) -> Result<(), String> {
    let mut registered = REGISTERED.lock();
    let Some(entry) = registered.get(&low) else {
        let around = registered.range(..low).next_back().map(|(_, entry)| entry);
        return Err(match around.filter(|entry| entry.registration.bounds().contains(low)) {
            Some(entry) => format!("{low:#x} is inside {}: pass its lowest address", entry.described()),
            None => format!(
                "no stack is registered at {low:#x} by stack_register: it never was, or was unregistered already"
            ),
        });
    };
    if let Some(user) = in_use(entry.registration.bounds()) {
        return Err(format!("{} is in use: {user}", entry.described()));
    }
    registered.remove(&low);
    Ok(())
}

/// The text for messages about the registered stack around `address`.
pub(crate) fn described(address: usize) -> Option<String> {
    let registered = REGISTERED.lock();
    let (_, entry) = registered.range(..=address).next_back()?;
    entry.registration.bounds().contains(address).then(|| entry.described().to_string())
}

/// The name of the registered stack around `address`, if it has one.
pub(crate) fn name_of(address: usize) -> Option<String> {
    let registered = REGISTERED.lock();
    let (_, entry) = registered.range(..=address).next_back()?;
    let name = entry.name.as_ref().filter(|_| entry.registration.bounds().contains(address));
    name.map(|name| name.to_string())
}

/// Calls `look` with the name of the registered stack around `address`, if it has one.
///
/// For signal handlers: if somebody holds the lock, `look` gets no name.
pub(crate) fn with_name_in_handler<R>(address: usize, look: impl FnOnce(Option<&str>) -> R) -> R {
    let registered = REGISTERED.try_lock();
    let entry = registered.as_ref().and_then(|registered| registered.range(..=address).next_back());
    let entry = entry.filter(|(_, entry)| entry.registration.bounds().contains(address));
    look(entry.and_then(|(_, entry)| entry.name.as_deref()))
}
