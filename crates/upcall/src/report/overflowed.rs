//! Which stack overflowed, if a fault is the overflow of one: decided from the address that was touched, SP, and what is known of stacks.

use std::fmt;

use super::chain::{Chain, Step, stack_of};
use super::snapshot::StackKind;
use super::sys;
use crate::stack::{Control, control_of_thread_at, registered, service};
use crate::thread::{Hot, Record, thread_id};
use stackbounds::Kind;

/// An access below the low end of a stack belongs to it if SP was no higher than this above the access: code that overflows a stack touches
/// what it has just moved SP to.
const ABOVE_ACCESS: usize = 4096;
/// The calls that are shown.
const SHOWN: usize = 24;

/// A stack that overflowed, on the calling thread.
pub(super) struct Overflowed<'a> {
    stack: Stack,
    low: usize,
    high: usize,
    address: usize,
    record: Option<&'a Record>,
}

enum Stack {
    Own,
    Pooled(&'static Control),
    Registered,
    Service,
}

impl<'a> Overflowed<'a> {
    /// What an access of `address` with SP at `sp`, if that is known, has overflowed. `record` is the calling thread's, if it is attached.
    pub fn by(address: usize, sp: Option<usize>, record: Option<&'a Record>) -> Option<Self> {
        if sp.is_some_and(|sp| sp > address.saturating_add(ABOVE_ACCESS)) {
            return None;
        }
        let found = |(stack, low, high)| Self { stack, low, high, address, record };
        if let Some((low, high)) = service::with_guard_at(address) {
            return Some(found((Stack::Service, low, high)));
        }
        let described = Self::described(address, record).filter(|(_, low, _)| low - address <= sys::REACH);
        let own = record.and_then(|record| hot_of(record).own_stack());
        let own = own.filter(|(low, _)| address < *low && low - address <= sys::reach_below_own_stack());
        match (described, own) {
            (Some(stack), Some((own_low, _))) if stack.1 < own_low => Some(found(stack)),
            (_, Some((low, high))) => Some(found((Stack::Own, low, high))),
            (stack, None) => stack.map(found),
        }
    }

    /// The pooled or registered stack above `address`, which is on none.
    fn described(address: usize, record: Option<&Record>) -> Option<(Stack, usize, usize)> {
        let gap = stackbounds::described(address);
        if gap.kind != Kind::Gap || gap.high == usize::MAX {
            return None;
        }
        let above = stackbounds::described(gap.high);
        match above.kind {
            Kind::Gap => None,
            Kind::Stack => Some((Stack::Registered, above.low, above.high)),
            Kind::Slot => {
                let control = control_of_thread_at(above.low, hot_of(record?).mark())?;
                Some((Stack::Pooled(control), above.low, control.base()))
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
                "fibers get more by Fiber::builder().stack_size, Config::fiber_stack or UPCALL_FIBER_STACK, and deep recursion by \
                 upcall::with_stack"
            }
            Stack::Pooled(_) => {
                "upcalls get more by entry().min_stack, Config::min_stack or UPCALL_MIN_STACK, and deep recursion by upcall::with_stack"
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

/// The Hot of the calling thread, whose record this is.
fn hot_of(record: &Record) -> &Hot {
    // SAFETY: a record's Hot lives as long as its thread, which is this one.
    unsafe { &*record.hot }
}

impl fmt::Display for Overflowed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; 16];
        let name = sys::thread_name(&mut buffer).unwrap_or("unnamed");
        write!(out, "upcall: stack overflow on thread {:#x} ({name}): ", thread_id())?;
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
        match self.record {
            Some(record) => self.fmt_calls(out, record),
            None => writeln!(out, "upcall: the thread is not attached: it has made no call"),
        }
    }
}

impl Overflowed<'_> {
    fn fmt_calls(&self, out: &mut fmt::Formatter<'_>, record: &Record) -> fmt::Result {
        let hot = hot_of(record);
        let kind = |sp| match stack_of(hot, sp).0 {
            StackKind::Own => "the thread's own stack",
            StackKind::Pooled => "a pooled stack",
            StackKind::Registered => "a registered stack",
            StackKind::Undescribed => "an undescribed stack",
        };
        writeln!(out, "upcall: open calls, the innermost first:")?;
        let mut chain = Chain::from(hot, record, self.low);
        for step in chain.by_ref().take(SHOWN) {
            match step {
                Step::Upcall(sp, Some(function)) => {
                    writeln!(out, "upcall:   C → Rust, called from {}, SP {sp:#x}: {function:.256}", kind(sp))
                }
                Step::Upcall(sp, None) => {
                    writeln!(out, "upcall:   C → Rust, called from {}, SP {sp:#x}", kind(sp))
                }
                Step::Downcall(sp) => writeln!(out, "upcall:   Rust → C, C runs on {}, SP {sp:#x}", kind(sp)),
                Step::ToOwnStack => {
                    writeln!(out, "upcall:   (a coroutine; beneath it, on the thread's own stack:)")
                }
            }?;
        }
        if chain.next().is_some() {
            writeln!(
                out,
                "upcall:   … and so on: {} downcalls of the thread are open",
                record.open_calls().count()
            )?;
        }
        Ok(())
    }
}
