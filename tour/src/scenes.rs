//! The scenes: the threads and stacks of the jobs.

use std::thread;

use crate::check::at_least;
use crate::job::{Report, ask, ask_in_vain, ask_little, look};
use crate::sys::take_turns;

/// One row of the table.
pub struct Scene {
    /// The scene's name in the table.
    pub name: &'static str,
    /// Plays the scene. An error is the platform's reason against it.
    pub play: fn() -> Result<Vec<Report>, &'static str>,
}

/// All scenes, in their order.
pub const SCENES: [Scene; 6] = [
    Scene { name: "main thread", play: || Ok(vec![ask()]) },
    Scene { name: "four threads", play: || Ok(on_four_threads()) },
    Scene { name: "coroutines, main thread", play: || in_turns(&[ask, ask]) },
    Scene { name: "coroutines, other thread", play: || on_a_thread(|| in_turns(&[ask, ask])) },
    Scene { name: "panic, main thread", play: || Ok(vec![ask_in_vain()]) },
    Scene { name: "panic, coroutines", play: || in_turns(&[ask_in_vain, ask, ask_in_vain]) },
];

/// Takes a snapshot in the second of two coroutines, while the first is in the middle of a query.
pub fn snapshot() -> Result<String, &'static str> {
    let first = || {
        ask_little();
        String::new()
    };
    let (mut trees, _) = on_a_thread(|| take_turns(&[first, look]))?;
    let tree = trees.swap_remove(1);
    let open_upcalls = tree.matches("C → Rust").count();
    at_least("open upcalls of both coroutines", open_upcalls, 2 + 3);
    Ok(tree)
}

fn on_four_threads() -> Vec<Report> {
    thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(ask));
        threads.map(|thread| thread.join().expect("a job does not panic")).to_vec()
    })
}

fn on_a_thread<T: Send>(job: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("coroutines".to_owned()).spawn_scoped(scope, job);
        thread.expect("one more thread").join().expect("a job does not panic")
    })
}

/// Does each job on a coroutine of its own, and checks that the coroutines took turns.
fn in_turns<T: 'static>(jobs: &[fn() -> T]) -> Result<Vec<T>, &'static str> {
    let (results, turns) = take_turns(jobs)?;
    at_least("turns of the coroutines", turns, 100);
    Ok(results)
}
