//! What programs are made of: what is chosen, and what becomes of it.

/// How C calls Rust that calls C back. The letters are those of `c/model.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Call,
    Holding,
    Pooled,
    Caller,
    /// Without a downcall.
    Plain,
    /// Without a downcall, and then with one.
    PlainThen,
    WithStack,
    UseStack,
    /// With a downcall on the fiber's stack, where it is a fiber.
    OnFiber,
    WithStackOnFiber,
    /// With a downcall in a destructor, while a panic unwinds.
    Dropping,
    Catch,
    CatchOnFiber,
}

pub const HOWS: [How; 13] = {
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
        OnFiber,
        WithStackOnFiber,
        Dropping,
        Catch,
        CatchOnFiber,
    ]
};

impl How {
    pub fn letter(self) -> u8 {
        b"chpontwufxdkK"[self as usize]
    }
}

/// What C does next. Slots are those of coroutines, local fibers and threads, each kind numbered by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Upcall(How),
    /// The innermost frame of C returns.
    Return,
    Panic,
    Increment,
    Where,
    CountCalls,
    RegisterBriefly,
    /// `longjmp` to the frame of C that is so many further out.
    Jump(usize),
    Start(usize, Memory),
    Resume(usize),
    Yield,
    /// The stack of a suspended coroutine is freed, with what is on it.
    Discard(usize),
    SpawnLocal(usize),
    RunReady,
    /// Gives a local fiber what it waits or will wait for.
    Feed(usize),
    /// A local fiber waits to be fed.
    Eat,
    YieldFiber,
    Join(usize),
    /// To another thread, from another thread.
    Send(usize),
    Receive(usize),
    /// A suspended coroutine is resumed by another thread, and returns into Rust there: the process is stopped.
    ResumeElsewhere(usize),
    /// The thread ends though coroutines of it are suspended.
    Exit,
    /// A fiber of a worker, whose steps are those of a thread of the program.
    Spawn(usize),
}

/// A coroutine's stack.
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

/// A step of a thread of C, and what must come of it.
#[derive(Clone, Debug)]
pub struct Step {
    pub choice: Choice,
    pub what: u8,
    pub a: i64,
    pub b: i64,
    /// The frame of C that takes it.
    pub frame: usize,
    /// The frame that begins by it, or 0.
    pub enters: usize,
    /// What the call answers that ends by it.
    pub answer: i64,
    /// The panic that is caught by it, or 0.
    pub caught: u32,
    /// The thread's last panic then, or 0 if it is not known.
    pub last: u32,
}

impl Step {
    pub fn line(&self) -> String {
        let Step { what, a, b, frame, enters, answer, caught, last, .. } = self;
        format!("{} {a} {b} {frame} {enters} {answer} {caught} {last}\n", *what as char)
    }
}
