//! The parts of programs: choices, and the steps that result from them.

/// A way for C to call Rust code that calls C back. The letters are those of `c/model.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Call,
    Holding,
    Pooled,
    Caller,
    /// Calls C without a downcall.
    Plain,
    /// Calls C without a downcall, and then with one.
    PlainThen,
    WithStack,
    UseStack,
    /// Uses the variable of the fiber or thread during the call.
    UsingLocal,
    /// Calls C in the poll of a wait.
    Polling,
    /// Makes a downcall on the fiber's stack, if there is a fiber.
    OnFiber,
    WithStackOnFiber,
    /// Makes a downcall in a destructor, while a panic unwinds.
    Dropping,
    Catch,
    CatchOnFiber,
    /// Calls Rust in a C++ `catch` block.
    Catching,
    /// Calls Rust in a destructor run by a C++ exception.
    Destroying,
    /// Calls C from a signal handler. The signal interrupts the Rust code of an upcall.
    InHandler,
}

pub const WAYS_OF_THREAD_LOCALS: usize = 5;

pub const HOWS: [How; 18] = {
    use How::*;
    [
        Call,
        Holding,
        Pooled,
        Caller,
        Plain,
        PlainThen,
        WithStack,
        UseStack,
        UsingLocal,
        Polling,
        OnFiber,
        WithStackOnFiber,
        Dropping,
        Catch,
        CatchOnFiber,
        Catching,
        Destroying,
        InHandler,
    ]
};

impl How {
    pub fn letter(self) -> u8 {
        b"chpontwulPfxdkKees"[self as usize]
    }
}

/// The next action of C.
///
/// Its numbers are slots of coroutines, of local fibers, or of threads. Each kind counts from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Upcall(How),
    /// Returns from the innermost frame of C.
    Return,
    Panic,
    Increment,
    Where,
    CountCalls,
    /// Reads the handled C++ exception, and the number of exceptions being thrown.
    Exceptions,
    RegisterBriefly,
    /// Jumps by `longjmp`, this many frames of C outwards.
    Jump(usize),
    /// Jumps out of a wait: a signal handler jumps to the caller of the wait.
    JumpOutOfWait,
    Start(usize, Memory),
    Resume(usize),
    Yield,
    /// Waits to be fed, in a coroutine: the wait suspends it, by the host's hook.
    Await,
    /// Waits for the end of a local fiber, in a coroutine that is suspended meanwhile.
    AwaitFiber(usize),
    /// Feeds a number to a coroutine, before or during its wait.
    FeedCoroutine(usize, Feeder),
    /// Takes all coroutines that can go on, without resuming them.
    TakeReady,
    /// Resumes a coroutine suspended by a wait, to end the wait.
    Kill(usize),
    /// Frees the stack of a suspended coroutine, with all frames on it.
    Discard(usize),
    SpawnLocal(usize),
    RunReady,
    /// Feeds a number to a local fiber, before or during its wait.
    Feed(usize),
    /// Waits to be fed, in a local fiber.
    Eat,
    YieldFiber,
    Join(usize),
    /// Adds to a thread-local, in the way of this number.
    UseThreadLocal(usize),
    /// Adds to the variable of the fiber, or of the thread outside fibers.
    UseFiberLocal,
    /// Reads the variable of the fiber or thread, yields, and adds to it.
    YieldUsingFiberLocal,
    /// Sends to another thread. `Receive` receives from another thread.
    Send(usize),
    Receive(usize),
    /// Resumes another thread's suspended coroutine. The coroutine returns into Rust, and upcall
    /// aborts.
    ResumeElsewhere(usize),
    /// Ends the thread although its coroutines are suspended.
    Exit,
    /// Spawns a worker's fiber. Its steps are those of a thread of the program.
    Spawn(usize),
}

/// The code that feeds a coroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feeder {
    /// The code that takes the step.
    Itself,
    OtherThread,
    /// A fiber of a worker.
    Worker,
}

pub const FEEDERS: [Feeder; 3] = [Feeder::Itself, Feeder::OtherThread, Feeder::Worker];

/// The stack of a coroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Malloced,
    Guarded,
    Registered,
    /// Registered, but too small for upcalls.
    RegisteredSmall,
}

pub const MEMORIES: [Memory; 4] =
    [Memory::Malloced, Memory::Guarded, Memory::Registered, Memory::RegisteredSmall];

/// A step of a C thread, with its expected result.
#[derive(Clone, Debug)]
pub struct Step {
    pub choice: Choice,
    pub what: u8,
    pub a: i64,
    pub b: i64,
    /// The frame of C that takes the step.
    pub frame: usize,
    /// The frame begun by the step, or 0.
    pub enters: usize,
    /// The answer of the call ended by the step.
    pub answer: i64,
    /// The panic caught by the step, or 0.
    pub caught: u32,
    /// The panic in the last message for C here, after the step: -1 if there is no message, 0 if it
    /// is unknown.
    pub last: i64,
}

impl Step {
    pub fn line(&self) -> String {
        let Step { what, a, b, frame, enters, answer, caught, last, .. } = self;
        format!("{} {a} {b} {frame} {enters} {answer} {caught} {last}\n", *what as char)
    }
}
