//! Upcalls and downcalls: where they run, what they answer, and who gets their panics.

use super::super::steps::{How, Memory};
use super::{Context, Effect, Frame, Kind, Machine, Panic, RunsOn, State};

/// Frames of C, one inside the other, that a stack of a host has room for.
const DEEPEST: usize = 8;
pub(super) const FAILED: i64 = -1;
const CAUGHT: i64 = -2;

impl Machine {
    /// Where upcalls from here run: the letters are those of `c/model.c`.
    pub(super) fn place(&mut self) -> (u8, i64) {
        let plain = matches!(self.top().how, Some(How::Plain | How::PlainThen)) && !self.top().downcall;
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

    /// `longjmp` over so many frames; gives the frame that it goes to.
    pub(super) fn jump(&mut self, levels: usize) -> Option<i64> {
        let frames = &self.contexts[self.current].frames;
        let target = frames.len().checked_sub(1 + levels.max(1))?;
        // What a destructor is in the middle of cannot be skipped.
        let skipped = &frames[target + 1..];
        let in_fiber = self.is_fiber(self.current);
        let coroutines = self
            .contexts
            .iter()
            .any(|context| matches!(context.kind, Kind::Coroutine(_)) && context.state != State::Unused);
        if self.unwinding > 0
            || in_fiber && coroutines
            || skipped.iter().any(|frame| frame.how == Some(How::Dropping))
        {
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

    /// Whether nothing tells the innermost downcall on the thread's own stack from one that was skipped there. Then it is not known where a panic goes
    /// that comes from a coroutine.
    pub(super) fn is_unknown(&self) -> bool {
        let on_own = (0..self.contexts.len()).filter(|&context| self.is_on_own(context));
        let frames = on_own.flat_map(|context| &self.contexts[context].frames);
        let newest = frames.filter(|frame| frame.downcall && !frame.on_fiber).map(|frame| frame.id).max();
        self.runs_on == RunsOn::Thread && newest.is_some_and(|newest| newest < self.skipped)
    }

    pub(super) fn upcall(&mut self, how: How, effect: &mut Effect) -> Option<()> {
        // A coroutine that unwinds must be able to go on whatever is known.
        if self.here().frames.len() > DEEPEST || how == How::Dropping && self.skipped > 0 {
            return None;
        }
        let (in_fiber, on_fiber) = (self.is_fiber(self.current), self.suspends());
        let downcall = !matches!(how, How::Plain | How::PlainThen);
        if how == How::Dropping {
            self.unwinding += 1;
            self.panics += 1;
        }
        let frame = self.new_frame(Some(how), downcall, in_fiber && on_fiber, on_fiber);
        self.begin(frame, effect);
        Some(())
    }

    /// The innermost frame of C returns `value`.
    pub(super) fn returns(&mut self, value: i64, effect: &mut Effect) -> Option<()> {
        if self.here().frames.len() == 1 {
            return self.context_ends(value, effect);
        }
        let Frame { how, pending, dropping, sum, from_fiber, on_fiber, .. } = self.here().frames.pop()?;
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
            (Some(How::Catch | How::CatchOnFiber), Some(panic)) => {
                effect.caught = panic;
                effect.answer = CAUGHT;
                return Some(());
            }
            (_, raised) => raised,
        };
        effect.answer = value + sum;
        if let Some(panic) = panic {
            effect.answer = FAILED;
            self.caught_at_upcall(panic);
        }
        Some(())
    }

    /// A panic was caught at an upcall that C code of this context made.
    pub(super) fn caught_at_upcall(&mut self, panic: Panic) {
        self.last = panic;
        fn leave(context: &mut Context, panic: Panic, encloses: impl Fn(&Frame) -> bool) -> bool {
            let mut frames = context.frames.iter_mut().rev();
            let frame = frames.find(|frame| frame.downcall && encloses(frame));
            frame.map(|frame| frame.pending.get_or_insert(panic)).is_some()
        }
        if leave(self.here(), panic, |_| true) {
            return;
        }
        // From a coroutine: the fiber that runs, if whoever polled it is on the thread's own stack, or else that stack.
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

    /// Whether a return would end the thread.
    pub fn is_outermost(&self) -> bool {
        self.current == 0 && self.contexts[0].frames.len() == 1
    }
}
