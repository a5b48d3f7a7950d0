//! Waits inside an initialiser of the standard library's `Once`, `OnceLock` or `LazyLock`, and
//! waits inside a signal handler.
//!
//! A thread that comes to a cell during its initialisation sleeps in the standard library. If the
//! initialiser is suspended on a fiber of that very thread, it never continues. Rule: **a wait
//! inside `Once` blocks its thread, and nothing else runs there meanwhile.**
//!
//! The rule also holds for a signal handler. It has interrupted code that may hold any lock, such
//! as the allocator's, and its signal is blocked for the whole thread. A handler is recognised by
//! the frame it returns to, if the C library describes that frame.
//!
//! All initialisers go through one function of the standard library, `Once::call`. To learn its
//! address, two initialisers walk the frames above them: it is the function common to both. If it
//! cannot be learnt, because it was inlined, waits suspend as anywhere.
//!
//! A walk takes microseconds, a yield less than 40 ns. The answer "no" is therefore cached for each
//! place in the source at each depth of the stack. Each fiber caches its last such place, too.

use std::hint::black_box;
use std::panic::Location;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::backtrace::walk;
use crate::coroutine::FiberContext;
use crate::stack::service;
use crate::sys::isa::switch::MARKED_AS_HANDLERS;
use crate::thread::ThreadState;
use crate::thread::attach::is_on_signal_stack;

/// The reason why a wait blocks its thread: the code around it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    Initialiser,
    SignalHandler,
}

/// An upper bound of the stack needed by a walk, in bytes. With less remaining, nothing is walked.
const ROOM: usize = 12 << 10;
/// The number of frames to walk. If a wait is deeper than this, its initialiser is not found.
const FRAMES: usize = 128;
/// The number of cached places.
const PLACES: usize = 1024;

/// A cache of waits outside any initialiser, by [`key`].
static OUTSIDE: [AtomicUsize; PLACES] = [const { AtomicUsize::new(0) }; PLACES];

/// The address of `Once::call`, once learnt.
static ONCE_CALL: AtomicUsize = AtomicUsize::new(UNKNOWN);
const UNKNOWN: usize = 0;
const NOT_FOUND: usize = 1;

/// Whether `fiber`, about to be suspended at `sp` by a wait at `at`, is inside an initialiser or a
/// signal handler.
#[inline(always)]
pub(crate) fn suspends_inside(fiber: &FiberContext, at: &'static Location<'static>, sp: usize) -> bool {
    // A fiber's stack does not move, so `sp` tells the depths of a place apart.
    let here = key(at, sp);
    fiber.outside.get() != here && suspends_elsewhere(fiber, at, sp, here)
}

/// Answers [`suspends_inside`] for a place other than the fiber's last.
#[inline(never)]
fn suspends_elsewhere(fiber: &FiberContext, at: &'static Location<'static>, sp: usize, here: usize) -> bool {
    let key = key(at, fiber.base().wrapping_sub(sp));
    let is_new = is_new(key);
    let inside = is_new && look(key, Some(fiber)).is_some();
    #[cfg(debug_assertions)]
    if is_new && !inside {
        super::borrow_check::look(fiber, at);
    }
    if !inside {
        fiber.outside.set(here);
    }
    inside
}

/// The initialiser or signal handler around the calling thread's code at `sp`, if any.
#[inline]
pub(crate) fn blocks_inside(at: &'static Location<'static>, sp: usize) -> Option<Inside> {
    let key = key(at, sp);
    if is_new(key) { look(key, None) } else { None }
}

/// Whether a wait at `at`, about to suspend a coroutine of the host, is inside an initialiser or a
/// signal handler.
///
/// On a pooled stack, the depths there and of C's code in its page tell apart the ways to a place.
/// They are the same on all coroutines whose stacks are whole pages.
pub(super) fn suspends_host_inside(thread: &ThreadState, at: &'static Location<'static>, sp: usize) -> bool {
    let depth = match thread.stack_at(sp) {
        Some(stack) => {
            let beneath = stack.system_sp.load(Relaxed) % 4096;
            stack.base().wrapping_sub(sp) ^ beneath.rotate_left(usize::BITS / 4)
        }
        None => sp,
    };
    let key = key(at, depth);
    is_new(key) && look(key, None).is_some()
}

#[inline(always)]
fn key(at: &'static Location<'static>, depth: usize) -> usize {
    ptr::from_ref(at) as usize ^ depth.rotate_left(usize::BITS / 2)
}

#[inline(always)]
fn place(key: usize) -> &'static AtomicUsize {
    // 2^64 divided by the golden ratio: the high bits of the product depend on all bits of `key`.
    const SPREADS: usize = 0x9e37_79b9_7f4a_7c15_u64 as usize;
    &OUTSIDE[key.wrapping_mul(SPREADS) >> (usize::BITS - PLACES.ilog2())]
}

#[inline(always)]
fn is_new(key: usize) -> bool {
    place(key).load(Relaxed) != key
}

/// Walks the frames: those of `fiber`, or else those of the thread.
#[cold]
#[inline(never)]
fn look(key: usize, fiber: Option<&FiberContext>) -> Option<Inside> {
    let (thread, sp) = (ThreadState::current(), stackbounds::stack_pointer());
    if thread.stack_at(sp).is_some_and(|stack| sp - stack.low.get() < ROOM) {
        return None;
    }
    let once_call = match ONCE_CALL.load(Relaxed) {
        UNKNOWN => learn(sp),
        known => known,
    };
    let (mut inside, mut remaining) = (None, FRAMES);
    let mut callee_sp = sp;
    walk(&mut |frame| {
        let callee_sp = std::mem::replace(&mut callee_sp, frame.sp);
        if frame.calls_handler && !MARKED_AS_HANDLERS {
            if !is_handlers(callee_sp, frame.sp) {
                // The first frame of a host's coroutine: what follows is on another one.
                return false;
            }
            inside = Some(Inside::SignalHandler);
        } else if frame.function == once_call {
            inside = Some(Inside::Initialiser);
        }
        remaining -= 1;
        // A marked frame of a switch is between two stacks, and may have its SP on neither.
        let switches = frame.calls_handler && MARKED_AS_HANDLERS;
        // The walk ends at a stack that moves: an initialiser around frames there is not found.
        let moves = thread.stack_moves_at(frame.sp);
        // The first frame of an extension stack has the stack's base for SP. The byte below is on
        // the stack.
        let goes_on = || switches || fiber.is_none_or(|fiber| fiber.stack_with(frame.sp - 1).is_some());
        inside.is_none() && remaining != 0 && !moves && goes_on()
    });
    if inside.is_none() {
        place(key).store(key, Relaxed);
    }
    inside
}

/// Whether the frame at `sp` was interrupted by a signal, with the handler's first frame at
/// `handler_sp`.
///
/// Some coroutine libraries mark the first frame of a coroutine like that of a handler. The kernel
/// puts the handler's frame right below the interrupted code, or on the alternate stack.
fn is_handlers(handler_sp: usize, sp: usize) -> bool {
    /// More than the kernel saves of the interrupted code's registers.
    const SAVED: usize = 64 << 10;
    sp.wrapping_sub(handler_sp) < SAVED || service::ask(|| is_on_signal_stack(handler_sp))
}

/// The addresses of the functions of a few frames.
type Functions = [usize; 16];

/// Learns the address of `Once::call`. `base` is the caller's SP.
///
/// So this function's own frame is below `base` in all three walks: at a call, its SP may be lower
/// than elsewhere, by the arguments.
#[cold]
#[inline(never)]
fn learn(base: usize) -> usize {
    #[inline(never)]
    fn in_once<const N: usize>(base: usize) -> Functions {
        let mut functions = Functions::default();
        Once::new().call_once(|| {
            note(&mut functions, base);
            // Keeps the compiler from merging the instances of this function.
            black_box(N);
        });
        functions
    }
    #[inline(never)]
    fn outside(base: usize) -> Functions {
        let mut functions = Functions::default();
        note(&mut functions, base);
        functions
    }
    /// Collects the functions of the frames below `base`. Callers above `base` may be inside
    /// `Once`.
    #[inline(never)]
    fn note(functions: &mut Functions, base: usize) {
        let mut places = functions.iter_mut();
        walk(&mut |frame| frame.sp < base && places.next().map(|place| *place = frame.function).is_some());
    }

    let (first, second, outside) = (in_once::<1>(base), in_once::<2>(base), outside(base));
    let both =
        |function: &&usize| **function != 0 && second.contains(function) && !outside.contains(function);
    let mut common = first.iter().filter(both);
    let found = match (common.next(), common.next()) {
        (Some(&function), None) => function,
        _ => NOT_FOUND,
    };
    ONCE_CALL.store(found, Relaxed);
    found
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A coroutine's stack from `malloc` may begin anywhere in a page. If two of them shared their
    /// place in the cache, each of their waits would walk the frames.
    #[test]
    fn coroutines_differ_in_their_places() {
        let at = Location::caller();
        let depths = (0..64).map(|n: usize| 0x4e0 ^ (n * 64).rotate_left(usize::BITS / 4));
        let places: HashSet<_> = depths.map(|depth| ptr::from_ref(place(key(at, depth)))).collect();
        assert!(places.len() > 48, "64 coroutines have {} places", places.len());
    }
}
