//! Random programs.

use std::sync::OnceLock;

use super::host::{can_build, on_windows};
use super::machine::{COROUTINES, FIBERS, RunsOn};
use super::programs::{Program, World};
use super::steps::{Choice, FEEDERS, HOWS, How, MEMORIES, WAYS_OF_THREAD_LOCALS};

/// The generator splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Checks whether the C++ part of the host can be built.
fn has_cpp() -> bool {
    static HAS_CPP: OnceLock<bool> = OnceLock::new();
    *HAS_CPP.get_or_init(|| can_build("model_catch"))
}

/// Makes the program of a seed. Each program leaves some kinds of steps out and prefers others.
pub fn program(seed: u64) -> Program {
    let random = &mut Random(seed);
    // AddressSanitizer cannot follow a `longjmp` from stack to stack, and that of Windows unwinds.
    let jumps = random.below(4) == 0 && std::env::var_os("MODEL_WITHOUT_JUMPS").is_none() && !on_windows();
    let mut threads = vec![RunsOn::Thread];
    let kinds = if jumps { 1 } else { 3 };
    for _ in 0..[0, 0, 0, 1, 2, 3][random.below(6)] {
        threads.push([RunsOn::Thread, RunsOn::Fiber, RunsOn::Worker][random.below(kinds)]);
    }
    let weights = USUAL.map(|usual| usual * [0, 1, 1, 2, 4, 8][random.below(6)]);
    // `PlainThen` makes its downcall late. Until then, the remains of a skipped downcall in the
    // same place look like a live one.
    let cpp = has_cpp();
    let possible = |how| match how {
        How::PlainThen => !jumps,
        How::Catching | How::Destroying => cpp,
        How::InHandler => !on_windows(),
        _ => true,
    };
    let hows: Vec<_> = HOWS.into_iter().filter(|&how| random.below(3) > 0 && possible(how)).collect();
    let length = (20 + random.below(100)) * threads.len();
    let mut program = Program { seed, threads, choices: Vec::new() };
    let mut world = World::new(&program);
    let total: usize = weights.iter().sum();
    // Most of the choices tried are possible.
    for _ in 0..4 * length {
        if program.choices.len() == length || total == 0 {
            break;
        }
        let thread = random.below(program.threads.len());
        let mut at = random.below(total);
        let kind = weights.iter().position(|&weight| {
            let found = at < weight;
            at = at.wrapping_sub(weight);
            found
        });
        let choice = match kind.unwrap_or(0) {
            0 | 1 if hows.is_empty() => continue,
            0 | 1 => Choice::Upcall(hows[random.below(hows.len())]),
            2 => Choice::Return,
            3 => Choice::Panic,
            4 => Choice::Increment,
            5 => Choice::Where,
            6 => Choice::CountCalls,
            7 => Choice::RegisterBriefly,
            8 | 22 | 26 if !jumps => continue,
            27 if !cpp => continue,
            8 => Choice::Jump(1 + random.below(4)),
            9 => Choice::Start(random.below(COROUTINES), MEMORIES[random.below(MEMORIES.len())]),
            10 | 11 => Choice::Resume(random.below(COROUTINES)),
            12 => Choice::Yield,
            13 => Choice::SpawnLocal(random.below(FIBERS)),
            14 => Choice::RunReady,
            15 => Choice::Feed(random.below(FIBERS)),
            16 => Choice::Eat,
            17 => Choice::YieldFiber,
            18 => Choice::Join(random.below(FIBERS)),
            19 => Choice::Send(random.below(program.threads.len())),
            20 => Choice::Receive(random.below(program.threads.len())),
            21 => Choice::Spawn(random.below(program.threads.len())),
            22 => Choice::Discard(random.below(COROUTINES)),
            23 => Choice::UseThreadLocal(random.below(WAYS_OF_THREAD_LOCALS)),
            24 => Choice::UseFiberLocal,
            25 => Choice::YieldUsingFiberLocal,
            26 => Choice::JumpOutOfWait,
            28 | 29 => Choice::Await,
            30 | 31 => {
                Choice::FeedCoroutine(random.below(COROUTINES), FEEDERS[random.below(12).saturating_sub(9)])
            }
            32 => Choice::TakeReady,
            33 => Choice::Kill(random.below(COROUTINES)),
            34 => Choice::AwaitFiber(random.below(FIBERS)),
            _ => Choice::Exceptions,
        };
        if world.take(thread, choice) {
            program.choices.push((thread, choice));
        }
    }
    // Some threads end while their coroutines are suspended.
    for thread in 0..program.threads.len() {
        let exits = random.below(8) == 0;
        for choice in [Choice::Exit, Choice::Yield, Choice::Return].repeat(20) {
            if exits && world.take(thread, choice) {
                program.choices.push((thread, choice));
            }
        }
    }
    program
}

/// Makes a program that ends with one thread resuming another's coroutine.
///
/// Returns `None` if no coroutine can be resumed.
pub fn moved(seed: u64) -> Option<Program> {
    let mut program = program(seed);
    let moves = (0..COROUTINES).flat_map(|slot| {
        (0..program.threads.len()).map(move |thread| (thread, Choice::ResumeElsewhere(slot)))
    });
    let possible = moves.into_iter().find(|&(thread, choice)| program.world().take(thread, choice))?;
    program.choices.push(possible);
    Some(program)
}

/// The weight of each kind of choice in a program without preferences.
const USUAL: [usize; 35] =
    [4, 4, 4, 3, 1, 1, 1, 1, 2, 4, 4, 4, 4, 3, 3, 3, 4, 4, 3, 2, 4, 3, 2, 2, 2, 3, 2, 2, 6, 6, 2, 2, 2, 3, 3];
