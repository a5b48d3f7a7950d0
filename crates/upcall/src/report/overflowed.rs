//! Finds the stack that overflowed, if a fault is a stack overflow.
//!
//! The decision uses the address of the access, SP, and the known bounds of stacks:
//!
//! ```text
//!   ├──────────────┤
//!   │ the stack    │
//!   ├──────────────┤ low
//!   │ guard pages  │ ← the access: at most `sys::REACH` below `low`,
//!   └──────────────┘   and with SP at most `ABOVE_ACCESS` above it
//! ```
//!
//! For the thread's own stack, `sys::reach_below_own_stack` takes the place of `sys::REACH`. For a
//! service stack, the access must be inside the guard.
//!
//! Windows keeps the lowest part of a stack for handlers, and tells an overflow when code touches
//! that part. Then the access may also be inside the bounds.

use std::fmt;

use super::chain::{Calls, ThisThread, state_of};
use super::fault::Fault;
use crate::stack::{StackHeader, header_of_thread_at, registered, service};
use crate::sys;
use crate::sys::faults::Raised;
use crate::thread::Record;
use stackbounds::for_upcall::{RangeKind, described};

/// The greatest distance of SP above the access in an overflow.
///
/// Code that overflows a stack moves SP first, and then touches memory near SP. If SP is higher,
/// the access has another cause.
const ABOVE_ACCESS: usize = 4096;

/// An overflowed stack of the calling thread.
pub(super) struct Overflowed<'a> {
    stack: Stack,
    low: usize,
    high: usize,
    address: usize,
    record: Option<&'a Record>,
}

enum Stack {
    Own,
    Pooled(&'static StackHeader),
    Registered,
    Service,
}

impl<'a> Overflowed<'a> {
    /// The overflowed stack, if the fault is an overflow and the stack is known.
    pub fn by(fault: &Fault<'a>) -> Option<Self> {
        let (Raised { overflows: told, address, sp, .. }, record) = (*fault.raised, fault.record);
        let address = address.or(sp.filter(|_| told))?;
        if !told && sp.is_some_and(|sp| sp > address.saturating_add(ABOVE_ACCESS)) {
            return None;
        }
        let found = |(stack, low, high)| Self { stack, low, high, address, record };
        if let Some((low, high)) = service::with_guard_at(address) {
            return Some(found((Stack::Service, low, high)));
        }
        let described = Self::described(address, told, record);
        let described = described.filter(|(_, low, _)| address >= *low || low - address <= sys::REACH);
        let own = record.and_then(|record| state_of(record).own_stack());
        let own = own.filter(|&(low, high)| {
            let reached = address < low && low - address <= sys::reach_below_own_stack();
            reached || told && (low..high).contains(&address)
        });
        match (described, own) {
            (Some(stack), Some((own_low, _))) if stack.1 < own_low => Some(found(stack)),
            (_, Some((low, high))) => Some(found((Stack::Own, low, high))),
            (stack, None) => stack.map(found),
        }
    }

    /// The pooled or registered stack above `address`. It may contain `address` only if the system
    /// has `told` of an overflow.
    fn described(address: usize, told: bool, record: Option<&Record>) -> Option<(Stack, usize, usize)> {
        let mut stack = described(address);
        if stack.kind == RangeKind::Gap {
            if stack.high == usize::MAX {
                return None;
            }
            stack = described(stack.high);
        } else if !told {
            return None;
        }
        match stack.kind {
            RangeKind::Gap => None,
            RangeKind::Stack => Some((Stack::Registered, stack.low, stack.high)),
            RangeKind::Slot => {
                let header = header_of_thread_at(stack.low, state_of(record?).id())?;
                Some((Stack::Pooled(header), stack.low, header.base()))
            }
        }
    }

    fn what_to_do(&self) -> &'static str {
        match self.stack {
            Stack::Own => {
                "the thread needs a larger stack from whoever creates it (the main thread: from `ulimit -s`, on Windows from the \
                 linker), or the Rust code that goes deep its own, by upcall::with_stack"
            }
            Stack::Pooled(stack) if stack.fiber().is_some_and(|fiber| fiber.began_on(stack)) => {
                "fibers get more by Fibers::builder().stack_size, Config::fiber_stack or UPCALL_FIBER_STACK, and deep recursion by \
                 upcall::with_stack"
            }
            Stack::Pooled(_) => {
                "upcalls get more by entry().min_stack, Config::min_stack or UPCALL_MIN_STACK, and deep recursion by upcall::with_stack"
            }
            Stack::Registered if cfg!(debug_assertions) => {
                "the host has to give it more memory (in unoptimised builds, each call into Rust needs 8 KiB of it), or the Rust code \
                 that goes deep a stack of its own, by upcall::with_stack"
            }
            Stack::Registered => {
                "the host has to give it more memory, or the Rust code that goes deep a stack of its own, by upcall::with_stack"
            }
            Stack::Service => {
                "upcall keeps it for its own work, so this is an error of upcall's: please report it"
            }
        }
    }
}

impl fmt::Display for Overflowed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "upcall: stack overflow on {ThisThread}: ")?;
        match self.stack {
            Stack::Own => write!(out, "the thread's own stack"),
            Stack::Registered => registered::with_name_in_handler(self.low, |name| match name {
                Some(name) => write!(out, "the registered stack \"{name:.64}\""),
                None => write!(out, "a registered stack"),
            }),
            Stack::Service => write!(out, "a service stack"),
            Stack::Pooled(stack) => match stack.fiber() {
                None => write!(out, "a pooled stack that an upcall runs on"),
                Some(fiber) => {
                    let further = if fiber.began_on(stack) { "the" } else { "a further" };
                    match &fiber.name {
                        Some(name) => write!(out, "{further} stack of the fiber \"{name:.64}\""),
                        None => write!(out, "{further} stack of an unnamed fiber"),
                    }
                }
            },
        }?;
        let (low, high, address) = (self.low, self.high, self.address);
        write!(out, ", {low:#x}..{high:#x}, {} bytes, is used up: {address:#x}, ", high - low)?;
        let below = low.checked_sub(address);
        match below {
            Some(below) => writeln!(out, "{below} bytes below it, was touched")?,
            None => writeln!(out, "{} bytes above its low end, was touched", address - low)?,
        }
        if below > Some(ABOVE_ACCESS) && !matches!(self.stack, Stack::Pooled(_) | Stack::Service) {
            writeln!(
                out,
                "upcall: or it is a stack just below that one, if the host has any that it did not register"
            )?;
        }
        writeln!(out, "upcall: {}", self.what_to_do())?;
        Calls { record: self.record, from: Some(self.low) }.fmt(out)
    }
}
