//! The ends of contexts, and fibers: their order, and the results of their waits.

use super::calls::FAILED;
use super::{Context, Effect, Gives, Inside, Kind, Machine, State};

impl Machine {
    /// Returns from the outermost frame of a context.
    pub(super) fn context_ends(&mut self, value: i64, effect: &mut Effect) -> Option<()> {
        let context = self.current;
        if context == 0 {
            let unused = |context: &Context| context.state == State::Unused;
            if !self.contexts[1..].iter().all(unused) || self.unwinding > 0 {
                return None;
            }
            self.ended = true;
            if self.is_fiber(0) {
                effect.answer = self.contexts[0].frames[0].pending.map_or(value, |_| FAILED);
            }
            return Some(());
        }
        if let Kind::Coroutine(_) = self.here().kind {
            self.here().state = State::Unused;
            self.here().frames.clear();
            self.current = self.here().resumer;
            return Some(());
        }
        let pending = self.here().frames[0].pending;
        let ended = pending.map_or(Ok(value), Err);
        let joiner = self.contexts.iter().position(|other| other.state == State::Joining(context));
        // A coroutine waits for the host to resume it.
        let joiner = joiner.filter(|&joiner| self.is_fiber(joiner));
        if self.unwinding > 0 || !self.can_leave(Some(context), joiner.is_some()) {
            return None;
        }
        self.here().frames.clear();
        self.here().state = State::Ended(ended);
        if std::mem::take(&mut self.here().detached) {
            (self.here().state, self.here().claimed) = (State::Unused, false);
        }
        if let Some(joiner) = joiner {
            self.wake(joiner, Gives::EndOf(context));
        }
        self.leave_fiber(effect);
        Some(())
    }

    /// Returns whether some context can run after the current fiber stops running.
    ///
    /// `ending` is the fiber that has ended, if any. `wakes` says that a joiner of it wakes.
    fn can_leave(&self, ending: Option<usize>, wakes: bool) -> bool {
        match self.contexts[self.current].inside {
            Inside::Join(other) => {
                wakes
                    || !self.queue.is_empty()
                    || ending == Some(other)
                    || matches!(self.contexts[other].state, State::Ended(_))
            }
            _ => true,
        }
    }

    /// Suspends the current fiber in a wait.
    pub(super) fn suspend(&mut self, state: State, effect: &mut Effect) -> Option<()> {
        if self.unwinding > 0 || !self.can_leave(None, false) {
            return None;
        }
        self.here().state = state;
        self.leave_fiber(effect);
        Some(())
    }

    /// Goes from the current fiber back to its resumer.
    fn leave_fiber(&mut self, effect: &mut Effect) {
        let inside = self.here().inside;
        self.current = self.here().resumer;
        match inside {
            Inside::RunReady => effect.answer = 1,
            Inside::Join(other) => match self.contexts[other].state {
                State::Ended(_) => self.joined(other, effect),
                _ => self.run_next(inside, effect),
            },
            Inside::Resume => unreachable!("fibers are not resumed"),
        }
    }

    /// Polls the fiber ready for the longest time.
    pub(super) fn run_next(&mut self, inside: Inside, effect: &mut Effect) {
        let fiber = self.queue.pop_front().expect("a fiber is ready");
        self.contexts[fiber].polled_on_own = self.is_on_own(self.current);
        self.run(fiber, inside);
        if self.here().frames.is_empty() {
            effect.enters = self.begin_context(fiber);
            return;
        }
        match self.here().gives.take().expect("a fiber that waits is woken with something") {
            Gives::Number(number) => effect.answer = number,
            Gives::EndOf(other) => self.joined(other, effect),
        }
    }

    pub(super) fn wake(&mut self, context: usize, gives: Gives) {
        self.contexts[context].state = State::Ready;
        self.contexts[context].gives = Some(gives);
        self.queue.push_back(context);
    }

    pub(super) fn join(&mut self, other: usize, effect: &mut Effect) -> Option<()> {
        let state = self.contexts[other].state;
        if self.contexts[other].claimed || matches!(state, State::Unused | State::Active) {
            return None;
        }
        if let State::Ended(_) = state {
            self.joined(other, effect);
        } else if self.unwinding > 0 || self.in_handler() || self.waits_for_the_active(other) {
            return None;
        } else if self.suspends() {
            self.suspend(State::Joining(other), effect)?;
            self.contexts[other].claimed = true;
        } else if self.queue.is_empty() {
            return None;
        } else {
            self.contexts[other].claimed = true;
            self.run_next(Inside::Join(other), effect);
        }
        Some(())
    }

    /// Returns whether a fiber can only end after the end of an active one.
    fn waits_for_the_active(&self, fiber: usize) -> bool {
        match self.contexts[fiber].state {
            State::Active => true,
            State::Joining(other) => self.waits_for_the_active(other),
            _ => false,
        }
    }

    /// Delivers the result of a joined fiber.
    pub(super) fn joined(&mut self, context: usize, effect: &mut Effect) {
        let State::Ended(result) = std::mem::replace(&mut self.contexts[context].state, State::Unused) else {
            unreachable!("only what has ended is joined")
        };
        self.contexts[context].claimed = false;
        match result {
            Ok(value) => effect.answer = value,
            Err(panic) => {
                effect.answer = FAILED;
                self.caught_at_upcall(panic);
            }
        }
    }
}
