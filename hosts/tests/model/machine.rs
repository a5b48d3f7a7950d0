//! A plain model of one thread, or of one worker's fiber: it predicts what must happen.
//!
//! The file is long because its middle, a match, has an arm for every step of a random program.

mod calls;
mod fibers;
mod hooks;

use std::collections::VecDeque;

use super::steps::{Choice, Feeder, How, Memory, Step};
use calls::FAILED;

pub const COROUTINES: usize = 5;
pub const FIBERS: usize = 4;

/// The number of a panic, used as its message.
type Panic = u32;
/// Not a panic, but the unwinding of a killed coroutine.
const KILLED: Panic = Panic::MAX;
/// The last panic of every thread at its start.
const FIRST: Panic = 1;
/// The last message of every fiber at its start: none.
const NO_MESSAGE: i64 = -1;
/// A last message that the model does not know: of a thread with other fibers.
const UNKNOWN: i64 = 0;

/// Where a thread of a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunsOn {
    Thread,
    /// A worker's fiber, with C on the fiber's stack.
    Fiber,
    /// A worker's fiber, with C on the worker's stack.
    Worker,
}

/// A frame of C.
struct Frame {
    id: usize,
    /// The kind of call that began the frame; `None` for the first frame of a coroutine or fiber.
    how: Option<How>,
    /// A downcall called the frame.
    downcall: bool,
    /// Its downcall was made on a fiber's stack.
    from_fiber: bool,
    /// The frame itself is on a fiber's stack.
    on_fiber: bool,
    /// The panic pending at its downcall.
    pending: Option<Panic>,
    /// The panic unwinding around it.
    dropping: Panic,
    /// The answer of the first part of a call in two parts.
    sum: i64,
    /// The owner of the fiber-local variable used by its upcall.
    uses: Option<usize>,
}

impl Frame {
    /// Returns whether `longjmp` must not skip the caller of this frame.
    fn must_return(&self) -> bool {
        matches!(self.how, Some(How::Dropping | How::Catching | How::Destroying))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unused,
    /// Running, or waiting for the return of a context resumed by it.
    Active,
    /// A coroutine after a yield.
    Suspended,
    /// A fiber in the run queue.
    Ready,
    /// A fiber or a coroutine waiting to be fed.
    Eating,
    /// A fiber or a coroutine waiting for the end of a fiber.
    Joining(usize),
    /// A fiber after its end, not joined yet.
    Ended(Result<i64, Panic>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Own,
    Coroutine(Option<Memory>),
    Fiber,
}

/// The call of the resumer: how the inner context was resumed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Resume,
    RunReady,
    Join(usize),
}

/// The result of a wait.
#[derive(Clone, Copy)]
enum Gives {
    Number(i64),
    /// The result of the fiber that ended.
    EndOf(usize),
}

/// A coroutine, a fiber, or the thread itself: whatever has frames of its own.
struct Context {
    kind: Kind,
    state: State,
    frames: Vec<Frame>,
    resumer: usize,
    inside: Inside,
    /// For a fiber: it was polled on the thread's own stack.
    polled_on_own: bool,
    /// The number fed to it, not eaten yet.
    fed: Option<i64>,
    /// For a fiber: the result of its wait at the next resumption.
    gives: Option<Gives>,
    /// Another context joins the fiber, or is bound to.
    claimed: bool,
    /// The handle of the fiber was dropped: nobody joins it.
    detached: bool,
    /// The context's fiber-local variable. The thread's variable is that of its own context.
    value: i64,
    /// For a fiber: the panic in the last message for C on its stack, or `NO_MESSAGE`.
    last: i64,
}

pub struct Machine {
    runs_on: RunsOn,
    contexts: Vec<Context>,
    current: usize,
    /// The panic in the last message for C outside fibers, or `UNKNOWN`.
    last: i64,
    unwinding: usize,
    /// The newest skipped frame on the thread's own stack. Only frames called by downcalls count.
    skipped: usize,
    /// A fiber has skipped downcalls. No coroutine runs from then on, since nothing tells skipped
    /// downcalls of a fiber's stacks from live ones.
    fiber_jumped: bool,
    /// A coroutine was killed in a wait for a fiber. The fiber's end may wake the next wait.
    joins_killed: bool,
    queue: VecDeque<usize>,
    /// The thread-local variable.
    value: i64,
    frames: usize,
    numbers: i64,
    panics: Panic,
    pub ended: bool,
    /// Calls were skipped or left suspended. Their resources need not all come back.
    pub leaves: bool,
}

/// The effects of the current step.
struct Effect {
    enters: usize,
    answer: i64,
    caught: Panic,
}

impl Machine {
    pub fn new(runs_on: RunsOn) -> Self {
        let context = |kind| Context {
            kind,
            state: State::Unused,
            frames: Vec::new(),
            resumer: 0,
            inside: Inside::Resume,
            polled_on_own: true,
            fed: None,
            gives: None,
            claimed: false,
            detached: false,
            value: 0,
            last: NO_MESSAGE,
        };
        let own = context(if runs_on == RunsOn::Thread { Kind::Own } else { Kind::Fiber });
        let coroutines = (0..COROUTINES).map(|_| context(Kind::Coroutine(None)));
        let fibers = (0..FIBERS).map(|_| context(Kind::Fiber));
        let mut machine = Self {
            runs_on,
            contexts: std::iter::once(own).chain(coroutines).chain(fibers).collect(),
            current: 0,
            last: if runs_on == RunsOn::Thread { i64::from(FIRST) } else { UNKNOWN },
            unwinding: 0,
            skipped: 0,
            fiber_jumped: false,
            joins_killed: false,
            queue: VecDeque::new(),
            value: 0,
            frames: 0,
            numbers: 0,
            panics: FIRST,
            ended: false,
            leaves: false,
        };
        machine.contexts[0].state = State::Active;
        machine.begin_context(0);
        if runs_on == RunsOn::Worker {
            machine.top().on_fiber = false;
        }
        machine
    }

    fn here(&mut self) -> &mut Context {
        &mut self.contexts[self.current]
    }

    fn top(&mut self) -> &mut Frame {
        self.here().frames.last_mut().expect("what runs has a frame")
    }

    fn is_fiber(&self, context: usize) -> bool {
        self.contexts[context].kind == Kind::Fiber
    }

    /// Returns whether C is on a fiber's stack here, so a wait suspends the fiber.
    fn suspends(&mut self) -> bool {
        self.is_fiber(self.current) && self.top().on_fiber
    }

    /// Returns whether a signal handler runs here. A wait then blocks the thread, and no fiber runs
    /// meanwhile.
    fn in_handler(&mut self) -> bool {
        self.here().frames.iter().any(|frame| frame.how == Some(How::InHandler))
    }

    /// The owner of the fiber-local variable for upcalls from here, if known.
    fn owner_of_local(&mut self) -> Option<usize> {
        if self.suspends() { Some(self.current) } else { (self.runs_on == RunsOn::Thread).then_some(0) }
    }

    fn add_to_local(&mut self, owner: usize, number: i64) -> i64 {
        self.contexts[owner].value += number;
        self.contexts[owner].value
    }

    pub fn number(&mut self) -> i64 {
        self.numbers += 1;
        self.numbers
    }

    /// Makes a frame of C called by `how`, or the first frame of a context if `how` is `None`.
    fn new_frame(&mut self, how: Option<How>, downcall: bool, from_fiber: bool, on_fiber: bool) -> Frame {
        self.frames += 1;
        Frame {
            id: self.frames,
            how,
            downcall,
            from_fiber,
            on_fiber,
            pending: None,
            dropping: self.panics,
            sum: 0,
            uses: None,
        }
    }

    /// Pushes a frame onto the current context.
    fn begin(&mut self, frame: Frame, effect: &mut Effect) {
        effect.enters = frame.id;
        self.here().frames.push(frame);
    }

    /// Pushes the first frame of a context.
    fn begin_context(&mut self, context: usize) -> usize {
        let fiber = self.is_fiber(context);
        let frame = self.new_frame(None, fiber, fiber, fiber);
        let id = frame.id;
        self.contexts[context].value = 0;
        self.contexts[context].last = NO_MESSAGE;
        self.contexts[context].frames.push(frame);
        id
    }

    /// Returns whether the context's code has the thread's own stack as its system stack.
    fn is_on_own(&self, context: usize) -> bool {
        match self.contexts[context].kind {
            Kind::Own => true,
            Kind::Coroutine(_) => false,
            Kind::Fiber => self.contexts[context].polled_on_own,
        }
    }

    /// Takes the step of `choice`, or returns `None` if the step is not possible now.
    ///
    /// `received` is the number in a message from another thread.
    pub fn step(&mut self, choice: Choice, received: i64) -> Option<Step> {
        if self.ended {
            return None;
        }
        let frame = self.top().id;
        let mut effect = Effect { enters: 0, answer: 0, caught: 0 };
        let (what, a, b) = self.take(choice, received, &mut effect)?;
        let Effect { enters, answer, caught } = effect;
        let last = if self.suspends() { self.here().last } else { self.last };
        Some(Step { choice, what, a, b, frame, enters, answer, caught, last })
    }

    fn take(&mut self, choice: Choice, received: i64, effect: &mut Effect) -> Option<(u8, i64, i64)> {
        let current = self.current;
        let slot = |first: usize, slot: usize| (first + slot, slot as i64);
        Some(match choice {
            Choice::Upcall(how) => {
                self.upcall(how, effect)?;
                let number = match how {
                    How::Dropping => i64::from(self.panics),
                    How::Catching => 1,
                    How::Destroying => 0,
                    How::WithStack | How::WithStackOnFiber => 300 << 10,
                    _ => 40 << 10,
                };
                (b'c', i64::from(how.letter()), number)
            }
            Choice::Return => {
                let value = self.number();
                self.returns(value, effect)?;
                (b'r', value, 0)
            }
            Choice::Panic => {
                self.panics += 1;
                self.caught_at_upcall(self.panics);
                effect.answer = FAILED;
                (b'p', i64::from(self.panics), 0)
            }
            Choice::Increment => {
                let number = self.number();
                effect.answer = number + 1;
                (b'i', number, 0)
            }
            Choice::Where => {
                let (place, b) = self.place();
                (b'w', i64::from(place), b)
            }
            Choice::CountCalls => {
                if self.leaves || self.runs_on != RunsOn::Thread {
                    return None;
                }
                let frames = self.contexts.iter().flat_map(|context| &context.frames);
                let hooks = (1..=COROUTINES).filter(|&context| self.awaits(context)).count();
                (b'o', (frames.filter(|frame| frame.downcall).count() + hooks) as i64, 0)
            }
            Choice::Exceptions => {
                let (caught, uncaught) = self.exceptions();
                (b'X', caught, uncaught)
            }
            Choice::RegisterBriefly => (b'g', 0, 0),
            Choice::Jump(levels) => (b'j', self.jump(levels)?, 0),
            Choice::JumpOutOfWait => {
                if self.unwinding > 0 {
                    return None;
                }
                self.leaves = true;
                (b'J', 0, 0)
            }
            Choice::Start(number, memory) => {
                let (context, a) = slot(1, number);
                if self.contexts[context].state != State::Unused || self.is_unknown() || self.fiber_jumped {
                    return None;
                }
                self.contexts[context].kind = Kind::Coroutine(Some(memory));
                self.contexts[context].resumer = current;
                effect.enters = self.begin_context(context);
                self.run(context, Inside::Resume);
                (b's', a, memory as i64)
            }
            Choice::Resume(number) => {
                let (context, a) = slot(1, number);
                if self.is_unknown() {
                    return None;
                } else if self.awaits(context) {
                    self.resume_wait(context, effect);
                } else if self.contexts[context].state == State::Suspended {
                    self.run(context, Inside::Resume);
                } else {
                    return None;
                }
                (b'e', a, 0)
            }
            Choice::Yield => {
                let Kind::Coroutine(_) = self.here().kind else { return None };
                self.here().state = State::Suspended;
                self.current = self.here().resumer;
                (b'y', current as i64 - 1, 0)
            }
            Choice::Await => {
                let Kind::Coroutine(_) = self.here().kind else { return None };
                match self.here().fed.take() {
                    Some(food) => effect.answer = food,
                    None => self.suspend_by_hook(State::Eating)?,
                }
                (b'A', current as i64 - 1, 0)
            }
            Choice::AwaitFiber(number) => {
                let (context, b) = slot(1 + COROUTINES, number);
                let Kind::Coroutine(_) = self.here().kind else { return None };
                let Context { state, claimed, .. } = self.contexts[context];
                if claimed || matches!(state, State::Unused | State::Active) {
                    return None;
                } else if let State::Ended(_) = state {
                    self.joined(context, effect);
                } else {
                    self.suspend_by_hook(State::Joining(context))?;
                    self.contexts[context].claimed = true;
                }
                (b'B', current as i64 - 1, b)
            }
            Choice::FeedCoroutine(number, feeder) => {
                let (context, a) = slot(1, number);
                if feeder != Feeder::Itself && self.runs_on != RunsOn::Thread
                    || self.contexts[context].fed.is_some()
                {
                    return None;
                }
                let food = self.number();
                self.contexts[context].fed = Some(food);
                (b"WTV"[feeder as usize], a, food)
            }
            Choice::TakeReady => {
                // Threads of the program that share a worker would take each other's.
                if self.runs_on != RunsOn::Thread {
                    return None;
                }
                let ready = self.set_of(Self::is_ready);
                let possible = if self.joins_killed { self.set_of(Self::awaits) } else { ready };
                (b'q', ready, possible)
            }
            Choice::Kill(number) => {
                let (context, a) = slot(1, number);
                if !self.awaits(context) || self.is_unknown() {
                    return None;
                }
                self.kill(context, effect);
                (b'x', a, 0)
            }
            Choice::Discard(number) => {
                let (context, a) = slot(1, number);
                let Context { state, kind, frames, .. } = &mut self.contexts[context];
                let registered =
                    matches!(kind, Kind::Coroutine(Some(Memory::Registered | Memory::RegisteredSmall)));
                let drops = frames.iter().any(|frame| frame.how == Some(How::Dropping));
                if *state != State::Suspended || registered || drops {
                    return None;
                }
                *state = State::Unused;
                frames.clear();
                self.leaves = true;
                (b'd', a, 0)
            }
            Choice::SpawnLocal(number) => {
                let (context, a) = slot(1 + COROUTINES, number);
                if self.runs_on != RunsOn::Thread || self.contexts[context].state != State::Unused {
                    return None;
                }
                self.contexts[context].state = State::Ready;
                self.queue.push_back(context);
                (b'f', a, 0)
            }
            Choice::RunReady => {
                if self.runs_on != RunsOn::Thread || self.unwinding > 0 {
                    return None;
                }
                if !self.queue.is_empty() {
                    self.run_next(Inside::RunReady, effect);
                }
                (b'n', 0, 0)
            }
            Choice::Feed(number) => {
                let (context, a) = slot(1 + COROUTINES, number);
                if self.runs_on != RunsOn::Thread || self.contexts[context].fed.is_some() {
                    return None;
                }
                let food = self.number();
                if self.contexts[context].state == State::Eating {
                    self.wake(context, Gives::Number(food));
                } else {
                    self.contexts[context].fed = Some(food);
                }
                (b'm', a, food)
            }
            Choice::Eat => {
                if current <= COROUTINES || !self.suspends() {
                    return None;
                }
                match self.here().fed.take() {
                    Some(food) => effect.answer = food,
                    None if self.in_handler() => return None,
                    None => self.suspend(State::Eating, effect)?,
                }
                (b'a', (current - 1 - COROUTINES) as i64, 0)
            }
            Choice::YieldFiber => {
                if current <= COROUTINES || !self.suspends() || self.in_handler() || self.unwinding > 0 {
                    return None;
                }
                self.here().gives = Some(Gives::Number(0));
                self.queue.push_back(current);
                self.suspend(State::Ready, effect)?;
                (b'z', 0, 0)
            }
            Choice::Join(number) => {
                let (context, a) = slot(1 + COROUTINES, number);
                self.join(context, effect)?;
                (b'b', a, 0)
            }
            Choice::UseThreadLocal(way) => {
                let number = self.number();
                self.value += number;
                effect.answer = if self.runs_on == RunsOn::Thread { self.value } else { number };
                (b'l', way as i64, number)
            }
            Choice::UseFiberLocal => {
                let (owner, number) = (self.owner_of_local()?, self.number());
                effect.answer = self.add_to_local(owner, number);
                (b'L', number, 0)
            }
            Choice::YieldUsingFiberLocal => {
                if current <= COROUTINES || !self.suspends() || self.in_handler() || self.unwinding > 0 {
                    return None;
                }
                let number = self.number();
                let value = self.add_to_local(current, number);
                self.here().gives = Some(Gives::Number(value));
                self.queue.push_back(current);
                self.suspend(State::Ready, effect)?;
                (b'Z', number, 0)
            }
            Choice::ResumeElsewhere(number) => {
                let (context, a) = slot(1, number);
                let Context { state, frames, .. } = &self.contexts[context];
                let holds_rust = *state == State::Suspended && frames.len() > 1;
                if !holds_rust && !self.awaits(context) {
                    return None;
                }
                self.ended = true;
                (b'E', a, 0)
            }
            Choice::Exit => {
                let stays = |context: usize| {
                    matches!(self.contexts[context].state, State::Unused | State::Suspended)
                        || self.awaits(context)
                };
                let possible = self.runs_on == RunsOn::Thread && self.is_outermost() && self.unwinding == 0;
                if !possible || !(1..self.contexts.len()).all(stays) {
                    return None;
                }
                (self.ended, self.leaves) = (true, true);
                (b'r', 0, 0)
            }
            Choice::Send(to) => (b'S', to as i64, received),
            Choice::Receive(from) => {
                let possible = match self.runs_on {
                    RunsOn::Thread => !self.suspends() && self.queue.is_empty(),
                    // In a handler, the wait would block the worker, perhaps the sender's own.
                    _ => current == 0 && self.suspends() && !self.in_handler(),
                };
                if !possible || self.unwinding > 0 {
                    return None;
                }
                effect.answer = received;
                (b'R', from as i64, 0)
            }
            Choice::Spawn(_) if self.runs_on != RunsOn::Thread => return None,
            Choice::Spawn(thread) => (b'F', thread as i64, 0),
        })
    }

    fn run(&mut self, context: usize, inside: Inside) {
        let resumer = self.current;
        let inner = &mut self.contexts[context];
        (inner.state, inner.resumer, inner.inside) = (State::Active, resumer, inside);
        self.current = context;
    }

    /// The choices that bring the thread nearer to its end, the best first.
    pub fn ending(&mut self) -> Vec<Choice> {
        let mut choices = Vec::new();
        let current = self.current;
        if self.here().frames.len() > 1 || !matches!(current, 0) && !self.is_fiber(current) {
            return vec![Choice::Return];
        }
        if current != 0 {
            choices.push(Choice::Return);
        }
        let contexts = &self.contexts;
        let of =
            |is: fn(&State) -> bool| (0..contexts.len()).filter(move |&context| is(&contexts[context].state));
        choices.extend(of(|state| *state == State::Suspended).map(|context| Choice::Resume(context - 1)));
        let number = |context: usize| context - 1 - COROUTINES;
        choices.extend(
            (1..=COROUTINES)
                .filter(|&context| self.is_ready(context))
                .map(|context| Choice::Resume(context - 1)),
        );
        choices.extend(of(|state| *state == State::Eating).map(|context| match context {
            1..=COROUTINES => Choice::FeedCoroutine(context - 1, Feeder::Itself),
            _ => Choice::Feed(number(context)),
        }));
        if current == 0 {
            if !self.queue.is_empty() {
                choices.push(Choice::RunReady);
            }
            let ended = of(|state| matches!(state, State::Ended(_)));
            choices.extend(ended.map(|context| Choice::Join(number(context))));
            choices.push(Choice::Return);
        }
        choices
    }
}
