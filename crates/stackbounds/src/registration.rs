//! Describing a stack: the owner's side of the registry.

use core::fmt;

use crate::registry::{self, Range, Slots};
use crate::{StackBounds, slots, stack_pointer, valgrind};

// From valgrind.h.
const VALGRIND_STACK_REGISTER: usize = 0x1501;
const VALGRIND_STACK_DEREGISTER: usize = 0x1502;

/// Describes a stack of the host's own making (a coroutine's), so that bounds on it are exact, for every thread, until
/// the [`Registration`] is dropped.
///
/// `low` is the lowest usable address, guard pages left out; `size` is in bytes. Registering and unregistering
/// take a lock and, with 10,000 stacks registered, about a microsecond; looking a stack up takes
/// no lock and tens of nanoseconds, and only when the stack in use has changed.
///
/// # Errors
/// The range is null, empty, reaches past the end of the address space, or overlaps a registered range or the calling
/// thread's own stack. The error says which range it clashes with. Nothing is changed then.
///
/// # Safety
/// From now until the registration is dropped, `low..low + size` is one stack, readable and writable
/// throughout: code that asks is entitled to use all of it.
///
/// ```
/// let mut stack = vec![0u8; 64 * 1024];
/// // SAFETY: `stack` outlives the registration and is writable throughout.
/// let registration = unsafe { stackbounds::register(stack.as_mut_ptr(), stack.len()) }?;
/// // … run coroutines on it …
/// drop(registration);
/// # Ok::<(), stackbounds::RegisterError>(())
/// ```
pub unsafe fn register(low: *mut u8, size: usize) -> Result<Registration, RegisterError> {
    let low = low as usize;
    if low == 0 {
        return Err(RegisterError::Null);
    }
    if size == 0 {
        return Err(RegisterError::Empty);
    }
    let high = low.checked_add(size).ok_or(RegisterError::Wraps { low, size })?;
    if let Some(own) = slots::own(stack_pointer()) {
        if low < own.high() && own.low() < high {
            return Err(RegisterError::ThreadStack { low: own.low(), high: own.high() });
        }
    }
    let mut registration = insert(Range { low, high, slots: Slots::ONE_STACK })?;
    registration.valgrind = Some(valgrind([VALGRIND_STACK_REGISTER, low, high, 0, 0, 0]));
    Ok(registration)
}

/// Describes `count` equal slots from `low` on, each a stack of `slot_size` bytes (a power of two) whose lowest `guard` bytes
/// (whole 4 KiB pages) are not stack: one entry for a whole pool. Not public API.
///
/// # Safety
/// As for [`register`], for each slot without its guard.
#[doc(hidden)]
pub unsafe fn register_slots(
    low: *mut u8,
    count: usize,
    slot_size: usize,
    guard: usize,
) -> Result<Registration, RegisterError> {
    let low = low as usize;
    insert(Range { low, high: low + count * slot_size, slots: Slots::of(slot_size, guard) })
}

fn insert(range: Range) -> Result<Registration, RegisterError> {
    match registry::insert(range) {
        Ok(()) => Ok(Registration { low: range.low, high: range.high, valgrind: None }),
        Err(clash) if (clash.low, clash.high) == (range.low, range.high) => {
            Err(RegisterError::AlreadyRegistered { low: clash.low, high: clash.high })
        }
        Err(clash) => Err(RegisterError::Overlaps { low: clash.low, high: clash.high }),
    }
}

/// A registered stack; unregisters it when dropped, on any thread.
///
/// ```
/// fn may_be_kept_anywhere(_: impl Send + Sync + 'static) {}
/// # let mut stack = vec![0u8; 4096];
/// # // SAFETY: writable, and outlives the registration, which is dropped at once.
/// may_be_kept_anywhere(unsafe { stackbounds::register(stack.as_mut_ptr(), stack.len()) }?);
/// # Ok::<(), stackbounds::RegisterError>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping the registration unregisters the stack"]
pub struct Registration {
    low: usize,
    high: usize,
    /// What Valgrind, where it runs, knows the stack by.
    valgrind: Option<usize>,
}

impl Registration {
    /// The registered range, exact.
    pub fn bounds(&self) -> StackBounds {
        StackBounds::exact(self.low, self.high)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(stack) = self.valgrind {
            valgrind([VALGRIND_STACK_DEREGISTER, stack, 0, 0, 0, 0]);
        }
        registry::remove(self.low);
    }
}

/// Why [`register`] refused a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// `low` is null.
    Null,
    /// `size` is 0.
    Empty,
    /// `low + size` is past the end of the address space.
    Wraps {
        /// As given.
        low: usize,
        /// As given.
        size: usize,
    },
    /// The very same range is registered.
    AlreadyRegistered {
        /// Its lowest address.
        low: usize,
        /// One past its highest.
        high: usize,
    },
    /// Part of the range is registered.
    Overlaps {
        /// Lowest address of the registered range that is in the way.
        low: usize,
        /// One past its highest.
        high: usize,
    },
    /// Part of the range is the calling thread's own stack, which needs no description.
    ThreadStack {
        /// Lowest address of the thread's stack.
        low: usize,
        /// One past its highest.
        high: usize,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Null => write!(out, "the stack's low end is null: pass its lowest usable address"),
            Self::Empty => write!(out, "the stack is empty: pass its size in bytes"),
            Self::Wraps { low, size } => write!(
                out,
                "a stack of {size} bytes at {low:#x} would reach past the end of the address space: \
                 pass its lowest address, not its highest, and its size in bytes"
            ),
            Self::AlreadyRegistered { low, high } => write!(
                out,
                "the stack {low:#x}..{high:#x} is already registered: drop its Registration before \
                 its memory becomes another stack"
            ),
            Self::Overlaps { low, high } => write!(
                out,
                "the stack overlaps the registered stack {low:#x}..{high:#x}: drop that Registration \
                 first, or leave its part out"
            ),
            Self::ThreadStack { low, high } => write!(
                out,
                "the stack overlaps the calling thread's own, {low:#x}..{high:#x}, which is known \
                 without registering"
            ),
        }
    }
}

impl core::error::Error for RegisterError {}
