//! Faults stay with their cause: panicking or blocking wakers, fiber-local values made anew for
//! ever, waits in places without suspension.
//!
//! Some messages appear once a process, so their tests run in their own processes.
#![cfg(feature = "runtime")]

mod common;
#[path = "common/memory.rs"]
mod memory;

use std::future::{Future, pending, poll_fn};
use std::panic::catch_unwind;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, LazyLock, Once, OnceLock};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{FIBERS, child, part, poll, stderr_of_success, time_limit};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use memory::Memory;
use upcall::{FiberLocal, blocking, downcall, enter, sleep, wait, yield_now};

/// A payload whose drop panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload's drop");
    }
}

/// A hostile waker's behaviour on `wake`.
#[derive(Clone, Copy)]
enum Woken {
    Panics,
    PanicsWithBomb,
    BlocksForEver,
    Sleeps,
}

static CALLED: AtomicUsize = AtomicUsize::new(0);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        CALLED.fetch_add(1, SeqCst);
        match *self {
            Woken::Panics => panic!("too many tasks queued"),
            Woken::PanicsWithBomb => std::panic::panic_any(Bomb),
            Woken::BlocksForEver => loop {
                thread::park();
            },
            Woken::Sleeps => sleep(Duration::from_millis(1)),
        }
    }
}

fn hostile(woken: Woken) -> Waker {
    Arc::new(woken).into()
}

fn quick(what: &str, f: impl FnOnce()) {
    let began = Instant::now();
    f();
    assert!(began.elapsed() < Duration::from_secs(5), "{what} took {:?}", began.elapsed());
}

/// Polls `future` with a hostile waker, and asserts that it is pending.
fn poll_with<F: Future>(future: &mut Pin<Box<F>>, woken: Woken) {
    assert!(future.as_mut().poll(&mut Context::from_waker(&hostile(woken))).is_pending());
}

/// True in the child process of `test`. Otherwise runs the child, asserts that stderr has `says`
/// once, and returns false.
fn in_child(test: &str, variables: &[(&str, &str)], says: &str) -> bool {
    if part().is_some() {
        return true;
    }
    let said = stderr_of_success(&child(test, "alone", variables));
    assert!(says.is_empty() || said.matches(says).count() == 1, "{said}");
    false
}

#[test]
fn timers_go_on_when_wakers_panic() {
    if !in_child("timers_go_on_when_wakers_panic", &[], "upcall: a waker panicked") {
        return;
    }
    let mut fibers = Vec::new();
    for woken in [Woken::Panics, Woken::PanicsWithBomb, Woken::Panics] {
        let mut fiber = Box::pin(FIBERS.fiber(|| sleep(Duration::from_millis(20))));
        poll_with(&mut fiber, woken);
        fibers.push(fiber);
    }
    // Sleeps with the same deadline and with later ones.
    let others: Vec<_> =
        (0..20).map(|n| FIBERS.spawn(move || sleep(Duration::from_millis(15 + n)))).collect();
    quick("others' sleeps", || others.into_iter().for_each(|other| other.join().unwrap()));
    quick("a later sleep", || sleep(Duration::from_millis(5)));
    assert_eq!(CALLED.load(SeqCst), 3);
    // The fibers themselves are unharmed.
    assert!(fibers.iter_mut().all(|fiber| poll(fiber).is_ready()));
}

#[test]
fn timers_go_on_when_wakers_block() {
    let _ends = time_limit("timers_go_on_when_wakers_block");
    let mut fibers = Vec::new();
    for n in 0..4 {
        let mut fiber = Box::pin(FIBERS.fiber(|| sleep(Duration::from_millis(10))));
        poll_with(&mut fiber, if n % 2 == 0 { Woken::BlocksForEver } else { Woken::Sleeps });
        fibers.push(fiber);
    }
    for _ in 0..20 {
        quick("a sleep", || sleep(Duration::from_millis(7)));
    }
    assert!(fibers.iter_mut().all(|fiber| poll(fiber).is_ready()));
}

#[test]
fn blocking_goes_on_when_wakers_panic() {
    if !in_child("blocking_goes_on_when_wakers_panic", &[], "upcall: a waker panicked") {
        return;
    }
    let _ends = time_limit("blocking_goes_on_when_wakers_panic");
    let mut fibers = Vec::new();
    // More calls than there are threads for them.
    for _ in 0..600 {
        let mut fiber = Box::pin(FIBERS.fiber(|| blocking(|| thread::sleep(Duration::from_millis(200)))));
        poll_with(&mut fiber, Woken::PanicsWithBomb);
        fibers.push(fiber);
    }
    assert_eq!(thread::spawn(|| blocking(|| 42)).join().unwrap(), 42);
    let handle = FIBERS.spawn(|| sleep(Duration::from_millis(200)));
    let mut joins = Box::pin(handle);
    poll_with(&mut joins, Woken::Panics);
    while CALLED.load(SeqCst) < 601 {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(poll(&mut joins), Poll::Ready(Ok(()))));
    assert!(fibers.iter_mut().all(|fiber| poll(fiber).is_ready()));
    quick("shutdown", || upcall::shutdown(Duration::from_secs(20)).unwrap());
}

#[test]
fn an_aborted_fiber_ends_when_who_awaits_it_panics() {
    let _ends = time_limit("an_aborted_fiber_ends_when_who_awaits_it_panics");
    let handle = FIBERS.spawn(|| wait(pending::<()>()));
    while handle.is_finished() {}
    thread::sleep(Duration::from_millis(20));
    let mut joins = Box::pin(handle);
    poll_with(&mut joins, Woken::Panics);
    joins.abort();
    thread::sleep(Duration::from_millis(50));
    let Poll::Ready(Err(error)) = poll(&mut joins) else { panic!("it has ended") };
    assert!(error.is_aborted());
}

/// A waker with counted clones. It may panic in `clone`, from a certain clone on, and in `drop`.
struct Fragile {
    clones: AtomicUsize,
    clone_panics: usize,
    drop_panics: bool,
}

fn fragile(fragile: &'static Fragile) -> Waker {
    fn of(data: *const ()) -> &'static Fragile {
        // SAFETY: `data` comes from the static reference below.
        unsafe { &*data.cast::<Fragile>() }
    }
    fn clone(data: *const ()) -> RawWaker {
        assert!(of(data).clones.fetch_add(1, SeqCst) < of(data).clone_panics, "a waker's clone");
        RawWaker::new(data, &VTABLE)
    }
    fn drop(data: *const ()) {
        assert!(!of(data).drop_panics || thread::panicking(), "a waker's drop");
    }
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, drop, |_| (), drop);
    // SAFETY: the functions use the static alone, and it is `Sync`, so any thread may call them.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::from_ref(fragile).cast(), &VTABLE)) }
}

#[test]
fn a_waker_may_panic_when_it_is_dropped() {
    let _ends = time_limit("a_waker_may_panic_when_it_is_dropped");
    static FRAGILE: Fragile =
        Fragile { clones: AtomicUsize::new(0), clone_panics: usize::MAX, drop_panics: true };
    let waker = std::mem::ManuallyDrop::new(fragile(&FRAGILE));
    let mut context = Context::from_waker(&waker);
    let mut fiber = Box::pin(FIBERS.fiber(|| {
        sleep(Duration::from_millis(5));
        blocking(|| thread::sleep(Duration::from_millis(5)));
        FIBERS.spawn(|| sleep(Duration::from_millis(5))).join().unwrap();
        FIBERS.scope(|scope| _ = scope.spawn(|| sleep(Duration::from_millis(5))));
        7
    }));
    let value = loop {
        if let Poll::Ready(value) = fiber.as_mut().poll(&mut context) {
            break value;
        }
        thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(value, 7);
    assert!(FRAGILE.clones.load(SeqCst) > 3);
}

#[test]
fn a_scope_stays_closed_when_the_waker_cannot_be_cloned() {
    let _ends = time_limit("a_scope_stays_closed_when_the_waker_cannot_be_cloned");
    static FRAGILE: Fragile = Fragile { clones: AtomicUsize::new(0), clone_panics: 0, drop_panics: false };
    let waker = fragile(&FRAGILE);
    let mut fiber = Box::pin(FIBERS.fiber(|| {
        let count = AtomicUsize::new(0);
        FIBERS.scope(|scope| {
            scope.spawn(|| {
                sleep(Duration::from_millis(20));
                count.fetch_add(1, SeqCst);
            });
        });
        count.load(SeqCst)
    }));
    assert_eq!(fiber.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(1));
}

/// A value with a destructor that makes a value of another variable.
struct Again(&'static FiberLocal<Again>, bool);

impl Drop for Again {
    fn drop(&mut self) {
        self.0.with(|_| ());
        assert!(!self.1, "the value's drop");
    }
}

#[test]
fn locals_that_are_made_anew_for_ever_are_leaked() {
    let says = "upcall: 10000 values of FiberLocal variables were dropped";
    if !in_child("locals_that_are_made_anew_for_ever_are_leaked", &[], says) {
        return;
    }
    static ONE: FiberLocal<Again> = FiberLocal::new(|| Again(&TWO, false));
    static TWO: FiberLocal<Again> = FiberLocal::new(|| Again(&ONE, false));
    wait(FIBERS.fiber(|| ONE.with(|_| ())));
    FIBERS.spawn(|| ONE.with(|_| ())).join().unwrap();
    thread::spawn(|| ONE.with(|_| ())).join().unwrap();
    // Without messages, since each of these drops panics.
    std::panic::set_hook(Box::new(|_| ()));
    static BAD: FiberLocal<Again> = FiberLocal::new(|| Again(&WORSE, true));
    static WORSE: FiberLocal<Again> = FiberLocal::new(|| Again(&BAD, true));
    assert!(FIBERS.spawn(|| BAD.with(|_| ())).join().unwrap_err().is_panic());
    thread::spawn(|| BAD.with(|_| ())).join().unwrap();
    assert_eq!(wait(FIBERS.fiber(|| 3)), 3);
}

#[test]
fn an_initialiser_may_wait() {
    let _ends = time_limit("an_initialiser_may_wait");
    static LAZY: LazyLock<u32> = LazyLock::new(|| {
        yield_now();
        sleep(Duration::from_millis(20));
        blocking(|| 42)
    });
    static CELL: OnceLock<u32> = OnceLock::new();
    static ONCE: Once = Once::new();
    fn initialise() -> u32 {
        wait(async { sleep_in_poll().await });
        43
    }
    async fn sleep_in_poll() {
        let (sender, receiver) = async_channel::bounded(1);
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(10));
            sender.send_blocking(()).unwrap();
        });
        receiver.recv().await.unwrap();
        other.join().unwrap();
    }
    let runtime = FIBERS.local_runtime().unwrap();
    let fibers = (0..3).map(|_| {
        runtime.spawn_local(|| {
            ONCE.call_once(|| sleep(Duration::from_millis(5)));
            *LAZY + *CELL.get_or_init(initialise)
        })
    });
    let fibers: Vec<_> = fibers.collect();
    assert!(fibers.into_iter().all(|fiber| fiber.join().unwrap() == 85));
    // On workers, and in code outside fibers, whose thread runs others meanwhile.
    static WORKERS: LazyLock<u32> = LazyLock::new(|| {
        yield_now();
        sleep(Duration::from_millis(10));
        1
    });
    let fibers: Vec<_> = (0..20).map(|_| FIBERS.spawn(|| *WORKERS)).collect();
    assert!(fibers.into_iter().all(|fiber| fiber.join().unwrap() == 1));
    static OUTSIDE: LazyLock<u32> = LazyLock::new(|| {
        sleep(Duration::from_millis(10));
        yield_now();
        2
    });
    let inside = runtime.spawn_local(|| *OUTSIDE);
    assert_eq!(*OUTSIDE + inside.join().unwrap(), 4);
    // One place in the source, first outside an initialiser and then inside.
    fn both() -> u32 {
        sleep(Duration::from_millis(1));
        5
    }
    static LATER: LazyLock<u32> = LazyLock::new(both);
    let fibers: Vec<_> = (0..2).map(|_| runtime.spawn_local(|| both() + *LATER)).collect();
    assert!(fibers.into_iter().all(|fiber| fiber.join().unwrap() == 10));
}

#[test]
fn fibers_outside_initialisers_suspend() {
    let runtime = FIBERS.local_runtime().unwrap();
    static LAZY: LazyLock<fn()> = LazyLock::new(|| || yield_now());
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    for n in 0..2 {
        let order = order.clone();
        runtime.spawn_local(move || {
            order.lock().unwrap().push(n);
            (*LAZY)();
            order.lock().unwrap().push(n);
        });
    }
    runtime.run_ready(usize::MAX);
    assert_eq!(*order.lock().unwrap(), [0, 1, 0, 1]);
}

#[test]
fn an_initialiser_that_waits_for_its_own_thread_is_reported() {
    let says = "inside the initialiser of a LazyLock";
    let variables = [("UPCALL_WAIT_WARNING", "200")];
    if !in_child("an_initialiser_that_waits_for_its_own_thread_is_reported", &variables, says) {
        return;
    }
    static LAZY: LazyLock<()> = LazyLock::new(|| FIBERS.spawn_local(|| ()).join().unwrap());
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(1));
        std::process::exit(0);
    });
    let runtime = FIBERS.local_runtime().unwrap();
    runtime.spawn_local(|| *LAZY).join().unwrap();
}

/// Opens upcalls on undescribed coroutines, and returns the number of upcalls not refused.
fn opened(count: usize) -> usize {
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..count {
        let mut coroutine =
            Coroutine::<(), (), bool, Memory>::with_stack(Memory::new(64 << 10), |yielder, ()| {
                let yielder: &Yielder<(), ()> = yielder;
                enter(|| downcall(|| yielder.suspend(()))).is_ok()
            });
        match coroutine.resume(()) {
            CoroutineResult::Yield(()) => open.push(coroutine),
            CoroutineResult::Return(ok) => {
                assert!(!ok);
                refused += 1;
            }
        }
    }
    let opened = open.len();
    assert_eq!(opened + refused, count);
    // All of them resume and end, and so make room for others.
    for mut coroutine in open {
        assert!(matches!(coroutine.resume(()), CoroutineResult::Return(true)));
    }
    opened
}

#[test]
fn as_many_upcalls_are_open_as_allowed() {
    if let Some(limit) = part() {
        let limit: usize = limit.parse().unwrap();
        upcall::attach().unwrap();
        for _ in 0..3 {
            assert_eq!(opened(limit + 20), limit);
        }
        // Spares do not count.
        for _ in 0..10 {
            upcall::entry().stack(upcall::StackChoice::Pooled).enter(|| ()).unwrap();
        }
        assert_eq!(opened(limit + 20), limit);
        return;
    }
    for limit in ["0", "1", "2", "10", "255", "256", "257", "1000"] {
        let variables = [("UPCALL_OPEN_UPCALLS", limit)];
        stderr_of_success(&child("as_many_upcalls_are_open_as_allowed", limit, &variables));
    }
}

#[test]
fn a_poll_that_panics_leaves_the_wait_right() {
    let panicked = catch_unwind(|| wait(poll_fn(|_| -> Poll<()> { panic!("the future") })));
    assert!(panicked.is_err());
    assert_eq!(FIBERS.spawn(|| 3).join().unwrap(), 3);
}
