//! Upcalls and downcalls: their stacks, their answers, and the way of their panics.

use super::super::steps::{How, Memory};
use super::{Context, Effect, Frame, KILLED, Kind, Machine, NO_MESSAGE, Panic, RunsOn, State};

/// The number of nested C frames with enough room on a stack of the host.
const DEEPEST: usize = 8;
pub(super) const FAILED: i64 = -1;
const CAUGHT: i64 = -2;
const CAUGHT_KILLED: i64 = -4;

impl Machine {
    /// The place of upcalls from here, as a letter of `c/model.c` and a slot.
    pub(super) fn place(&mut self) -> (u8, i64) {
        let plain = self.top().how.is_some() && !self.top().downcall;
        let (kind, slot) = (self.here().kind, self.current as i64 - 1);
        match kind {
            Kind::Own => (b'o', 0),
            Kind::Coroutine(Some(Memory::Registered)) => (b'r', slot),
            Kind::Coroutine(_) if plain => (b'n', 0),
            Kind::Coroutine(_) => (b'p', 0),
            Kind::Fiber if self.top().on_fiber => (b'n', 0),
            Kind::Fiber => (b'a', 0),
        }
    }

    /// Skips this many frames by `longjmp`. Returns the frame jumped to.
    pub(super) fn jump(&mut self, levels: usize) -> Option<i64> {
        let frames = &self.contexts[self.current].frames;
        let target = frames.len().checked_sub(1 + levels.max(1))?;
        // A destructor must not be skipped while it runs.
        let skipped = &frames[target + 1..];
        let in_fiber = self.is_fiber(self.current);
        let coroutines = self
            .contexts
            .iter()
            .any(|context| matches!(context.kind, Kind::Coroutine(_)) && context.state != State::Unused);
        if self.unwinding > 0 || in_fiber && coroutines || skipped.iter().any(Frame::must_return) {
            return None;
        }
        let to = frames[target].id as i64;
        if self.is_on_own(self.current) {
            let skipped = skipped.iter().filter(|frame| frame.downcall).map(|frame| frame.id);
            self.skipped = skipped.fold(self.skipped, usize::max);
        }
        self.fiber_jumped |= in_fiber;
        self.leaves = true;
        self.here().frames.truncate(target + 1);
        Some(to)
    }

    /// Returns whether the innermost downcall on the thread's own stack looks like a skipped one.
    ///
    /// If so, the way of a panic from a coroutine is unknown.
    pub(super) fn is_unknown(&self) -> bool {
        let on_own = (0..self.contexts.len()).filter(|&context| self.is_on_own(context));
        let frames = on_own.flat_map(|context| &self.contexts[context].frames);
        let newest = frames.filter(|frame| frame.downcall && !frame.on_fiber).map(|frame| frame.id).max();
        self.runs_on == RunsOn::Thread && newest.is_some_and(|newest| newest < self.skipped)
    }

    /// The frame of the handled C++ exception, or 0, and the number of exceptions being thrown.
    pub(super) fn exceptions(&self) -> (i64, i64) {
        let mut context = &self.contexts[self.current];
        while let Kind::Coroutine(_) = context.kind {
            context = &self.contexts[context.resumer];
        }
        let of = |how| context.frames.iter().filter(move |frame| frame.how == Some(how));
        (of(How::Catching).next_back().map_or(0, |frame| frame.id as i64), of(How::Destroying).count() as i64)
    }

    pub(super) fn upcall(&mut self, how: How, effect: &mut Effect) -> Option<()> {
        // An unwinding coroutine must be able to continue, so nothing may be unknown.
        if self.here().frames.len() > DEEPEST || how == How::Dropping && self.skipped > 0 {
            return None;
        }
        let (in_fiber, on_fiber) = (self.is_fiber(self.current), self.suspends());
        // Coroutines of C share the exception state of the C++ runtime with their resumers.
        // Exceptions in a coroutine would end in the order of the resumer's.
        let in_coroutine = matches!(self.here().kind, Kind::Coroutine(_));
        if matches!(how, How::Catching | How::Destroying) && in_coroutine {
            return None;
        }
        // The frame of a signal is large.
        const HANDLERS: usize = 2;
        let in_handler = |how| how == Some(How::InHandler);
        let handlers = self.here().frames.iter().filter(|frame| in_handler(frame.how)).count();
        if in_handler(Some(how)) && handlers == HANDLERS {
            return None;
        }
        let downcall = !matches!(how, How::InHandler | How::Plain | How::PlainThen);
        let uses = if how == How::UsingLocal { Some(self.owner_of_local()?) } else { None };
        if how == How::Dropping {
            self.unwinding += 1;
            self.panics += 1;
        }
        let frame = self.new_frame(Some(how), downcall, in_fiber && on_fiber, on_fiber);
        if let Some(owner) = uses {
            self.add_to_local(owner, frame.id as i64);
        }
        self.begin(Frame { uses, ..frame }, effect);
        Some(())
    }

    /// Returns `value` from the innermost frame of C.
    pub(super) fn returns(&mut self, value: i64, effect: &mut Effect) -> Option<()> {
        if self.here().frames.len() == 1 {
            return self.context_ends(value, effect);
        }
        let Frame { id, how, pending, dropping, sum, from_fiber, on_fiber, uses, .. } =
            self.here().frames.pop()?;
        if how == Some(How::PlainThen) && sum == 0 {
            let then = self.new_frame(how, true, from_fiber, on_fiber);
            self.begin(Frame { sum: value, ..then }, effect);
            return Some(());
        }
        // Nothing is raised while the thread unwinds.
        let raised = pending.filter(|_| self.unwinding == 0);
        let panic = match (how, raised) {
            (Some(How::Dropping), _) => {
                self.unwinding -= 1;
                Some(dropping)
            }
            (Some(How::Catch | How::CatchOnFiber), Some(KILLED)) => {
                effect.answer = CAUGHT_KILLED;
                return Some(());
            }
            (Some(How::Catch | How::CatchOnFiber), Some(panic)) => {
                effect.caught = panic;
                effect.answer = CAUGHT;
                return Some(());
            }
            (_, raised) => raised,
        };
        if let (Some(owner), None) = (uses, panic) {
            self.add_to_local(owner, id as i64);
        }
        effect.answer = value + sum;
        if let Some(panic) = panic {
            effect.answer = FAILED;
            self.caught_at_upcall(panic);
        }
        Some(())
    }

    /// Catches a panic at an upcall made by C code of this context.
    pub(super) fn caught_at_upcall(&mut self, panic: Panic) {
        let message = if panic == KILLED { NO_MESSAGE } else { i64::from(panic) };
        if self.suspends() {
            self.here().last = message;
        } else if self.runs_on == RunsOn::Thread {
            self.last = message;
        }
        fn leave(context: &mut Context, panic: Panic, encloses: impl Fn(&Frame) -> bool) -> bool {
            let mut frames = context.frames.iter_mut().rev();
            let frame = frames.find(|frame| frame.downcall && encloses(frame));
            frame.map(|frame| frame.pending.get_or_insert(panic)).is_some()
        }
        // A killed coroutine does not interrupt the code beneath.
        if leave(self.here(), panic, |_| true) || panic == KILLED {
            return;
        }
        // A panic from a coroutine goes to the nearest fiber outwards, if that was polled on the
        // thread's own stack, or else to that stack.
        let mut found_fiber = false;
        let mut outer = self.current;
        while outer != 0 {
            outer = self.contexts[outer].resumer;
            let (fiber, on_own) = (self.is_fiber(outer), self.is_on_own(outer));
            let context = &mut self.contexts[outer];
            if fiber && on_own && !found_fiber {
                leave(context, panic, |frame| frame.from_fiber);
                return;
            }
            found_fiber |= fiber;
            if on_own && leave(context, panic, |frame| !frame.on_fiber) {
                return;
            }
        }
    }

    /// Returns whether a return would end the thread.
    pub fn is_outermost(&self) -> bool {
        self.current == 0 && self.contexts[0].frames.len() == 1
    }
}
