//! Registering a stack: the owner's side of the registry.

use core::fmt;

use crate::registry::{self, Range, Slots};
use crate::sys::isa::valgrind;
use crate::{StackBounds, cache, stack_pointer};

// From valgrind.h.
const VALGRIND_STACK_REGISTER: usize = 0x1501;
const VALGRIND_STACK_DEREGISTER: usize = 0x1502;

/// Describes a stack made by the host (a coroutine's), for exact bounds on it.
///
/// The description applies to all threads until the [`Registration`] is dropped. `low` is the
/// lowest usable address, guard pages excluded. `size` is in bytes.
///
/// Registering and unregistering take a lock and, with 10,000 stacks registered, about a
/// microsecond. A lookup takes no lock and tens of nanoseconds, and happens only after a change of
/// stacks.
///
/// The child of a fork can register stacks, even if other threads were registering some at the
/// fork. An exception is the first registration of the process: if another thread forks during it,
/// the child's first registration may abort with a message.
///
/// # Errors
/// If the range is null, empty, reaches past the end of the address space, or overlaps a registered
/// range or the calling thread's own stack. The error names the overlapped range. Nothing is
/// changed then.
///
/// # Safety
/// Until the registration is dropped, `low..low + size` must be one stack, readable and writable
/// throughout: code that asks for its bounds may use all of it. A stack may also be one that the
/// system commits as it is used, such as a fiber's of Windows.
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
    if let Some(own) = cache::own(stack_pointer()) {
        if low < own.high() && own.low() < high {
            return Err(RegisterError::ThreadStack { low: own.low(), high: own.high() });
        }
    }
    let mut registration = insert(Range { low, high, slots: Slots::ONE_STACK })?;
    // SAFETY: the request only tells Valgrind of a stack. The caller guarantees that `low..high` is
    // one.
    registration.valgrind = Some(unsafe { valgrind([VALGRIND_STACK_REGISTER, low, high, 0, 0, 0]) });
    Ok(registration)
}

/// Describes `count` equal slots from `low` on, one stack each, by one entry.
///
/// A slot has `slot_size` bytes, a power of two. Its lowest `guard` bytes, whole 4 KiB pages, are
/// not stack. So a whole pool needs one entry.
///
/// # Safety
/// Each slot without its guard must meet the requirements of [`register`].
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

/// A registered stack, unregistered on drop.
///
/// It may be dropped on any thread.
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
    /// Valgrind's number for the stack (0 without Valgrind); `None` for an array of slots.
    valgrind: Option<usize>,
}

impl Registration {
    /// The bounds of the registered range, exact.
    pub fn bounds(&self) -> StackBounds {
        StackBounds::exact(self.low, self.high)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(stack) = self.valgrind {
            // SAFETY: the request only makes Valgrind forget a stack. `stack` is the number from
            // the registration.
            unsafe { valgrind([VALGRIND_STACK_DEREGISTER, stack, 0, 0, 0, 0]) };
        }
        registry::remove(self.low);
    }
}

/// The reason for which [`register`] refused a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// `low` is null.
    Null,
    /// `size` is 0.
    Empty,
    /// `low + size` is past the end of the address space.
    Wraps {
        /// The argument `low`.
        low: usize,
        /// The argument `size`, in bytes.
        size: usize,
    },
    /// Exactly this range is registered already.
    AlreadyRegistered {
        /// Lowest address of the range.
        low: usize,
        /// One past the highest address of the range.
        high: usize,
    },
    /// Part of the range is registered already.
    Overlaps {
        /// Lowest address of the overlapped registered range.
        low: usize,
        /// One past the highest address of that range.
        high: usize,
    },
    /// The range overlaps the calling thread's own stack, which needs no description.
    ThreadStack {
        /// Lowest address of the thread's stack.
        low: usize,
        /// One past the highest address of that stack.
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
