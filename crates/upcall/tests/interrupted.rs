//! Interrupted waits: a host gets its thread back. Each case runs in its own process.

mod common;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant};

use common::{AtDrop, FIBERS, child, last_panic, part, stderr_of_success, time_limit};
use upcall::{Interrupted, downcall, downcall_on_fiber, enter, timer, wait, wait_interruptible};

/// The hook's next answer. Its calls reset it.
static WANTED: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicUsize = AtomicUsize::new(0);

fn wanted() -> bool {
    ASKED.fetch_add(1, SeqCst);
    WANTED.swap(false, SeqCst)
}

/// True in the child process of `test`, after installing `hook`. Otherwise runs the child, and
/// returns false.
fn with_hook(test: &'static str, hook: fn() -> bool) -> bool {
    if part().is_none() {
        stderr_of_success(&child(test, "run", &[]));
        return false;
    }
    upcall::config().interrupted(hook).install().unwrap();
    true
}

const FOR_EVER: Duration = Duration::from_secs(3600);

/// Has the hook answer yes once, 100 ms from now.
fn want_soon() {
    thread::spawn(|| {
        thread::sleep(Duration::from_millis(100));
        WANTED.store(true, SeqCst);
    });
}

/// An upcall that waits for ever.
extern "C" fn waits_for_ever() -> i32 {
    enter(|| {
        wait(timer(FOR_EVER));
        0
    })
    .unwrap_or(-1)
}

#[test]
fn a_wait_in_an_upcall_is_unwound_and_c_gets_the_declared_value() {
    const NAME: &str = "a_wait_in_an_upcall_is_unwound_and_c_gets_the_declared_value";
    if !with_hook(NAME, wanted) {
        return;
    }
    let _limit = time_limit(NAME);
    std::panic::set_hook(Box::new(|panic| panic!("it is no panic: {panic}")));
    want_soon();
    let dropped = Cell::new(0);
    let declared = enter(|| {
        let _dropped = AtDrop(|| dropped.set(dropped.get() + 1));
        wait(async {
            let _dropped = AtDrop(|| dropped.set(dropped.get() + 1));
            timer(FOR_EVER).await;
        });
    });
    let error = declared.unwrap_err();
    assert_eq!(error.message(), "the wait was interrupted by the host");
    assert_eq!(last_panic(), error.message());
    assert!(error.into_payload().unwrap().is::<Interrupted>());
    assert_eq!(dropped.get(), 2);
    // The next wait is independent of the interrupted one.
    enter(|| wait(timer(Duration::from_millis(120)))).unwrap();
    want_soon();
    assert_eq!(waits_for_ever(), -1);
}

#[cfg(unix)]
#[test]
fn a_signal_on_the_blocked_thread_has_the_host_asked_at_once() {
    const NAME: &str = "a_signal_on_the_blocked_thread_has_the_host_asked_at_once";
    if !with_hook(NAME, wanted) {
        return;
    }
    let _limit = time_limit(NAME);
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handled(_: libc::c_int) {
        HANDLED.fetch_add(1, SeqCst);
        WANTED.store(true, SeqCst);
    }
    // SAFETY: `handled` only changes atomics, so it may run at any instruction.
    unsafe { libc::signal(libc::SIGUSR1, handled as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    let mut shortest = Duration::MAX;
    for _ in 0..20 {
        // SAFETY: `pthread_self` has no preconditions.
        let me = unsafe { libc::pthread_self() } as usize;
        let sent = thread::spawn(move || {
            thread::sleep(Duration::from_millis(2));
            let sent = Instant::now();
            // SAFETY: the target thread is alive, since it waits for the signal.
            unsafe { libc::pthread_kill(me as libc::pthread_t, libc::SIGUSR1) };
            sent
        });
        assert_eq!(wait_interruptible(timer(FOR_EVER)), Err(Interrupted));
        let ended = Instant::now();
        shortest = shortest.min(ended - sent.join().unwrap());
    }
    assert_eq!(HANDLED.load(SeqCst), 20);
    if cfg!(target_os = "linux") {
        assert!(shortest < Duration::from_millis(20), "the quickest of 20 took {shortest:?}");
    }
}

#[test]
fn an_interruptible_wait_gives_an_error() {
    const NAME: &str = "an_interruptible_wait_gives_an_error";
    if !with_hook(NAME, wanted) {
        return;
    }
    let _limit = time_limit(NAME);
    let error = enter(|| {
        assert_eq!(wait_interruptible(async { 7 }), Ok(7));
        want_soon();
        let mut kept = pin!(async {
            timer(Duration::from_millis(300)).await;
            7
        });
        // The future was lent to the wait, and survives it.
        let error = wait_interruptible(kept.as_mut()).unwrap_err();
        assert_eq!(wait_interruptible(kept), Ok(7));
        error
    });
    assert_eq!(error.unwrap().to_string(), "the wait was interrupted by the host");
}

#[test]
fn all_calls_around_it_end_and_c_between_them_gets_its_value() {
    const NAME: &str = "all_calls_around_it_end_and_c_between_them_gets_its_value";
    if !with_hook(NAME, wanted) {
        return;
    }
    let _limit = time_limit(NAME);
    want_soon();
    let inner = Cell::new(0);
    let outer = enter(|| downcall(|| inner.set(waits_for_ever())));
    assert_eq!(inner.get(), -1);
    assert_eq!(outer.unwrap_err().message(), "the wait was interrupted by the host");
}

#[test]
fn waits_below_a_wait_end_with_it() {
    const NAME: &str = "waits_below_a_wait_end_with_it";
    if !with_hook(NAME, wanted) {
        return;
    }
    let _limit = time_limit(NAME);
    let runtime = FIBERS.local_runtime().unwrap();
    let inner = std::rc::Rc::new(Cell::new(0));
    let of_fiber = inner.clone();
    // C runs on the system stack, so its upcall's wait blocks the thread, inside the outer wait
    // below.
    let fiber = runtime.spawn_local(move || downcall(|| of_fiber.set(waits_for_ever())));
    want_soon();
    let outer = enter(|| wait(timer(FOR_EVER)));
    assert_eq!(inner.get(), -1);
    assert!(outer.unwrap_err().into_payload().unwrap().is::<Interrupted>());
    let payload = fiber.join().unwrap_err().into_panic().unwrap();
    assert!(payload.is::<Interrupted>());
    // If code inside handles the interruption, the outer wait ends all the same: the host wants its
    // thread back.
    let fiber = runtime.spawn_local(move || downcall(|| enter(|| wait_interruptible(timer(FOR_EVER)))));
    want_soon();
    assert!(enter(|| wait(timer(FOR_EVER))).is_err());
    assert_eq!(fiber.join().unwrap().unwrap(), Err(Interrupted));
}

#[test]
fn the_thread_of_a_wait_is_asked_and_not_those_of_suspended_fibers() {
    const NAME: &str = "the_thread_of_a_wait_is_asked_and_not_those_of_suspended_fibers";
    fn on_main() -> bool {
        thread::current().name() == Some(NAME) && wanted()
    }
    if !with_hook(NAME, on_main) {
        return;
    }
    let _limit = time_limit(NAME);
    let (sender, receiver) = async_channel::bounded::<u8>(1);
    let fiber = FIBERS.spawn(move || wait(receiver.recv()));
    thread::Builder::new()
        .name(NAME.to_owned())
        .spawn(move || {
            want_soon();
            assert!(enter(|| wait(fiber).unwrap()).is_err());
            want_soon();
            // A fiber is suspended on this thread, and the thread blocks in the wait for it.
            static DROPPED: AtomicBool = AtomicBool::new(false);
            let fiber = FIBERS.fiber(|| {
                let _dropped = AtDrop(|| DROPPED.store(true, SeqCst));
                wait_interruptible(timer(FOR_EVER))
            });
            assert!(enter(|| wait(fiber)).is_err());
            assert!(DROPPED.load(SeqCst), "the fiber was unwound");
        })
        .unwrap()
        .join()
        .unwrap();
    // The first fiber has resumed and ended.
    sender.try_send(1).unwrap();
    while !sender.is_closed() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn outside_of_an_upcall_the_thread_ends() {
    const NAME: &str = "outside_of_an_upcall_the_thread_ends";
    if !with_hook(NAME, wanted) {
        return;
    }
    let _limit = time_limit(NAME);
    want_soon();
    let ended = thread::spawn(|| wait(timer(FOR_EVER))).join();
    assert!(ended.unwrap_err().is::<Interrupted>());
}

#[test]
fn what_must_be_over_first_stays() {
    const NAME: &str = "what_must_be_over_first_stays";
    fn always() -> bool {
        ASKED.fetch_add(1, SeqCst);
        true
    }
    if !with_hook(NAME, always) {
        return;
    }
    let _limit = time_limit(NAME);
    const NAP: Duration = Duration::from_millis(200);
    // A scope, with a fiber that uses a borrowed value.
    let ended = AtomicBool::new(false);
    FIBERS.scope(|scope| {
        scope.spawn(|| {
            wait(timer(NAP));
            ended.store(true, SeqCst);
        });
    });
    assert!(ended.load(SeqCst));
    assert_eq!(ASKED.load(SeqCst), 0);
    // A destructor, while a panic unwinds.
    let waited = Cell::new(Duration::ZERO);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _waits = AtDrop(|| {
            let start = Instant::now();
            wait(timer(NAP));
            waited.set(start.elapsed());
        });
        std::panic::resume_unwind(Box::new("a panic"));
    }));
    assert!(panicked.unwrap_err().is::<&str>());
    assert!(waited.get() >= NAP);
    assert_eq!(ASKED.load(SeqCst), 0);
    // The drop of a fiber with a wait remaining in a destructor.
    let mut fiber = Box::pin(FIBERS.fiber(|| {
        let _waits = AtDrop(|| wait(timer(NAP)));
        downcall_on_fiber(|| enter(|| wait(timer(FOR_EVER)))).unwrap();
    }));
    assert!(common::poll(&mut fiber).is_pending());
    let start = Instant::now();
    drop(fiber);
    assert!(start.elapsed() >= NAP);
}

#[test]
fn a_fiber_that_blocks_its_worker_is_asked() {
    const NAME: &str = "a_fiber_that_blocks_its_worker_is_asked";
    if !with_hook(NAME, wanted) {
        return;
    }
    let _limit = time_limit(NAME);
    want_soon();
    let fiber = FIBERS.spawn(|| downcall(|| waits_for_ever()));
    while !fiber.is_finished() {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(fiber.join().unwrap_err().into_panic().unwrap().is::<Interrupted>());
}

#[test]
fn a_hook_that_waits_or_panics_harms_nothing() {
    const NAME: &str = "a_hook_that_waits_or_panics_harms_nothing";
    fn waits() -> bool {
        wait(timer(Duration::from_millis(120)));
        assert!(ASKED.fetch_add(1, SeqCst) < 2, "asked too often");
        false
    }
    if !with_hook(NAME, waits) {
        return;
    }
    let _limit = time_limit(NAME);
    std::panic::set_hook(Box::new(|_| ()));
    let error = enter(|| wait(timer(FOR_EVER))).unwrap_err();
    assert_eq!(error.message(), "asked too often");
    enter(|| wait(timer(Duration::from_millis(1)))).unwrap();
}

#[test]
fn many_short_waits_have_the_host_asked() {
    const NAME: &str = "many_short_waits_have_the_host_asked";
    if !with_hook(NAME, wanted) {
        return;
    }
    let _limit = time_limit(NAME);
    want_soon();
    let ended = enter(|| {
        loop {
            wait(timer(Duration::from_millis(2)));
        }
    });
    assert_eq!(ended.map(|never: ()| never).unwrap_err().message(), "the wait was interrupted by the host");
}
