//! Coroutines suspended by their waits, through the host's hooks.

use super::calls::FAILED;
use super::{COROUTINES, Context, Effect, Inside, KILLED, Kind, Machine, State};

impl Machine {
    /// Returns whether the context is a coroutine suspended by a wait.
    pub(super) fn awaits(&self, context: usize) -> bool {
        let Context { kind, state, .. } = self.contexts[context];
        matches!(kind, Kind::Coroutine(_)) && matches!(state, State::Eating | State::Joining(_))
    }

    /// Returns whether a wait has suspended the coroutine, and is ready.
    pub(super) fn is_ready(&self, coroutine: usize) -> bool {
        self.awaits(coroutine)
            && match self.contexts[coroutine].state {
                State::Joining(fiber) => matches!(self.contexts[fiber].state, State::Ended(_)),
                _ => self.contexts[coroutine].fed.is_some(),
            }
    }

    /// Suspends the current coroutine in a wait.
    pub(super) fn suspend_by_hook(&mut self, state: State) -> Option<()> {
        // There, waits block the thread.
        if self.unwinding > 0 || self.in_handler() {
            return None;
        }
        self.here().state = state;
        self.current = self.here().resumer;
        Some(())
    }

    /// Resumes a coroutine in a wait. If that is not ready, it suspends the coroutine again.
    pub(super) fn resume_wait(&mut self, coroutine: usize, effect: &mut Effect) {
        if !self.is_ready(coroutine) {
            self.contexts[coroutine].resumer = self.current;
            return;
        }
        let waited_for = self.contexts[coroutine].state;
        self.run(coroutine, Inside::Resume);
        match waited_for {
            State::Joining(fiber) => self.joined(fiber, effect),
            _ => effect.answer = self.here().fed.take().expect("it was fed"),
        }
    }

    /// Resumes a coroutine to end its wait.
    pub(super) fn kill(&mut self, coroutine: usize, effect: &mut Effect) {
        if let State::Joining(fiber) = self.contexts[coroutine].state {
            let fiber = &mut self.contexts[fiber];
            match fiber.state {
                State::Ended(_) => (fiber.state, fiber.claimed) = (State::Unused, false),
                _ => fiber.detached = true,
            }
            self.joins_killed = true;
        }
        self.run(coroutine, Inside::Resume);
        effect.answer = FAILED;
        self.caught_at_upcall(KILLED);
    }

    /// The coroutines with a property, as a set of bits.
    pub(super) fn set_of(&self, has: fn(&Self, usize) -> bool) -> i64 {
        (0..COROUTINES).filter(|&coroutine| has(self, coroutine + 1)).map(|coroutine| 1 << coroutine).sum()
    }
}
