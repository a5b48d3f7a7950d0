//! The stacks that hosts registered through the C side, with the names that they gave them.
//!
//! stackbounds knows what is a stack; here is what its owner calls it, and the registration, which Rust code would keep itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use stackbounds::{RegisterError, Registration, StackBounds};

use crate::sync;

struct Entry {
    registration: Registration,
    name: Option<Box<str>>,
}

/// By lowest address.
static REGISTERED: Mutex<BTreeMap<usize, Entry>> = Mutex::new(BTreeMap::new());

/// Holds them as they are.
pub(crate) fn hold_lock() -> impl Sized + 'static {
    sync::lock(&REGISTERED)
}

/// A registered stack, as messages name it.
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

/// Registers a stack.
///
/// # Safety
/// As for [`stackbounds::register`].
pub(crate) unsafe fn register(low: *mut u8, size: usize, name: Option<Box<str>>) -> Result<(), String> {
    let mut registered = sync::lock(&REGISTERED);
    // SAFETY: the caller's promise.
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

/// Unregisters the stack whose lowest address is `low`, unless `in_use` says what uses it.
pub(crate) fn unregister(
    low: usize,
    in_use: impl FnOnce(StackBounds) -> Option<String>,
) -> Result<(), String> {
    let mut registered = sync::lock(&REGISTERED);
    let Some(entry) = registered.get(&low) else {
        let around = registered.range(..low).next_back().map(|(_, entry)| entry);
        return Err(match around.filter(|entry| entry.registration.bounds().contains(low)) {
            Some(entry) => format!("{low:#x} is inside {}: pass its lowest address", entry.described()),
            None => format!(
                "no stack is registered at {low:#x} by upcall_stack_register: it never was, or was unregistered already"
            ),
        });
    };
    if let Some(user) = in_use(entry.registration.bounds()) {
        return Err(format!("{} is in use: {user}", entry.described()));
    }
    registered.remove(&low);
    Ok(())
}

/// The registered stack that `address` is on, as messages name it.
pub(crate) fn described(address: usize) -> Option<String> {
    let registered = sync::lock(&REGISTERED);
    let (_, entry) = registered.range(..=address).next_back()?;
    entry.registration.bounds().contains(address).then(|| entry.described().to_string())
}

/// The name of the registered stack that `address` is on, if it has one.
pub(crate) fn name_of(address: usize) -> Option<String> {
    let registered = sync::lock(&REGISTERED);
    let (_, entry) = registered.range(..=address).next_back()?;
    let name = entry.name.as_ref().filter(|_| entry.registration.bounds().contains(address));
    name.map(|name| name.to_string())
}

/// Calls `look` with the name of the registered stack that `address` is on, if it has one. For the handlers of signals: if somebody has the lock,
/// there is no name.
pub(crate) fn with_name_in_handler<R>(address: usize, look: impl FnOnce(Option<&str>) -> R) -> R {
    let registered = REGISTERED.try_lock().ok();
    let entry = registered.as_ref().and_then(|registered| registered.range(..=address).next_back());
    let entry = entry.filter(|(_, entry)| entry.registration.bounds().contains(address));
    look(entry.and_then(|(_, entry)| entry.name.as_deref()))
}
