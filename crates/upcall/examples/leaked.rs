//! Fibers dropped or aborted in the middle, in a program whose panics abort.
//!
//! Nothing can be unwound there, so each fiber is leaked, and everything else continues.
//! `ci/panic-abort.sh` builds this example so.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use upcall::{Fiber, sleep, wait};

// SAFETY: no code on these fibers holds a borrow of a thread-local across a wait, and no
// initialiser of a thread-local waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn main() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let waits = || {
        let counted = Counted(dropped.clone());
        move || {
            let _counted = counted;
            wait(pending::<()>());
        }
    };
    let poll = |fiber: Fiber<()>| {
        let mut fiber = Box::pin(fiber);
        assert!(fiber.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        fiber
    };
    // Dropped: without a name, with a name, in a group, and inside another fiber.
    drop(poll(FIBERS.fiber(waits())));
    drop(poll(FIBERS.builder().name("named").build(waits()).unwrap()));
    drop((0..100).map(|_| poll(FIBERS.fiber(waits()))).collect::<Vec<_>>());
    let inner = waits();
    wait(FIBERS.fiber(move || drop(poll(FIBERS.fiber(inner)))));
    let ended = 103;

    // Aborted.
    let handles: Vec<_> = (0..10).map(|_| FIBERS.spawn(waits())).collect();
    sleep(Duration::from_millis(20));
    handles.iter().for_each(|handle| handle.abort());
    assert!(handles.into_iter().all(|handle| handle.join().unwrap_err().is_aborted()));

    // Dropped with its runtime, twice on a thread of its own; then the thread exits.
    let (inside, outside) = (waits(), waits());
    let local = thread::spawn(move || {
        let runtime = FIBERS.local_runtime().unwrap();
        let handle = runtime.spawn_local(outside);
        runtime.run_ready(10);
        drop(runtime);
        assert!(handle.join().unwrap_err().is_aborted());
        // The thread has nothing in use any more.
        assert_eq!(upcall::detach(), Ok(()));
        let runtime = FIBERS.local_runtime().unwrap();
        let handle = runtime.spawn_local(inside);
        runtime.run_ready(10);
        let ends = runtime.spawn_local(|| 7);
        assert_eq!(ends.join().unwrap(), 7);
        drop(runtime);
        assert!(handle.is_finished());
    });
    local.join().unwrap();

    // A fiber that has not begun is dropped normally.
    drop(FIBERS.fiber(waits()));
    let unwinds = cfg!(panic = "unwind");
    assert_eq!(dropped.load(SeqCst), if unwinds { ended + 10 + 2 + 1 } else { 1 });

    // Everything still works.
    assert_eq!(FIBERS.spawn(|| wait(FIBERS.fiber(|| 5))).join().unwrap(), 5);
    upcall::shutdown(Duration::from_secs(10)).unwrap();
    println!("fibers were {}", if unwinds { "unwound" } else { "leaked" });
}
