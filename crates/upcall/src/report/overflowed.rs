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

use std::fmt;

use super::chain::{Calls, ThisThread, state_of};
use crate::stack::{StackHeader, header_of_thread_at, registered, service};
use crate::sys;
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
    /// The stack overflowed by an access of `address`, if it is an overflow.
    ///
    /// `sp` is SP at the access, if it is known. `record` is the calling thread's, if it is
    /// attached.
    pub fn by(address: usize, sp: Option<usize>, record: Option<&'a Record>) -> Option<Self> {
        if sp.is_some_and(|sp| sp > address.saturating_add(ABOVE_ACCESS)) {
            return None;
        }
        let found = |(stack, low, high)| Self { stack, low, high, address, record };
        if let Some((low, high)) = service::with_guard_at(address) {
            return Some(found((Stack::Service, low, high)));
        }
        let described = Self::described(address, record).filter(|(_, low, _)| low - address <= sys::REACH);
        let own = record.and_then(|record| state_of(record).own_stack());
        let own = own.filter(|(low, _)| address < *low && low - address <= sys::reach_below_own_stack());
        match (described, own) {
            (Some(stack), Some((own_low, _))) if stack.1 < own_low => Some(found(stack)),
            (_, Some((low, high))) => Some(found((Stack::Own, low, high))),
            (stack, None) => stack.map(found),
        }
    }

    /// The pooled or registered stack above `address`, if `address` itself is on no stack.
    fn described(address: usize, record: Option<&Record>) -> Option<(Stack, usize, usize)> {
        let gap = described(address);
        if gap.kind != RangeKind::Gap || gap.high == usize::MAX {
            return None;
        }
        let above = described(gap.high);
        match above.kind {
            RangeKind::Gap => None,
            RangeKind::Stack => Some((Stack::Registered, above.low, above.high)),
            RangeKind::Slot => {
                let header = header_of_thread_at(above.low, state_of(record?).id())?;
                Some((Stack::Pooled(header), above.low, header.base()))
            }
        }
    }

    fn what_to_do(&self) -> &'static str {
        match self.stack {
            Stack::Own => {
                "the thread needs a larger stack from whoever creates it (the main thread: from `ulimit -s`), or the Rust \
                 code that goes deep its own, by upcall::with_stack"
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
        let (low, high, below) = (self.low, self.high, self.low - self.address);
        writeln!(
            out,
            ", {low:#x}..{high:#x}, {} bytes, is used up: {:#x}, {below} bytes below it, was touched",
            high - low,
            self.address
        )?;
        if below > ABOVE_ACCESS && !matches!(self.stack, Stack::Pooled(_) | Stack::Service) {
            writeln!(
                out,
                "upcall: or it is a stack just below that one, if the host has any that it did not register"
            )?;
        }
        writeln!(out, "upcall: {}", self.what_to_do())?;
        Calls { record: self.record, from: Some(self.low) }.fmt(out)
    }
}
