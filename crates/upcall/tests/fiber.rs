//! Fibers as futures: their ends, their stacks, and polls from any place.

mod common;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::FIBERS;
use common::{Comparator, Log, Random, child, message, part, poll, stderr_of_success, time_limit};
use futures_lite::future::{block_on, yield_now};
use upcall::{Fiber, Refusal, StackChoice, downcall, downcall_on_fiber, enter, entry, wait, with_stack};

#[test]
fn a_result_goes_to_whoever_polls() {
    assert_eq!(block_on(FIBERS.fiber(|| "done")), "done");
    assert_eq!(wait(FIBERS.fiber(|| wait(async { yield_now().await }))), ());
}

#[test]
fn a_panic_goes_to_whoever_polls_with_its_payload() {
    let mut fiber = Box::pin(FIBERS.fiber(|| {
        wait(yield_now());
        panic_any(42u16);
    }));
    assert!(poll(&mut fiber).is_pending());
    let payload = catch_unwind(AssertUnwindSafe(|| poll(&mut fiber))).unwrap_err();
    assert_eq!(*payload.downcast::<u16>().unwrap(), 42);
    let again = catch_unwind(AssertUnwindSafe(|| poll(&mut fiber))).unwrap_err();
    assert_eq!(message(again), "a fiber was polled after it had finished");
}

/// Uses the stack down to about `low`, and asserts that nothing else writes there.
#[inline(never)]
fn use_stack(low: usize) -> usize {
    let sp = stackbounds::stack_pointer();
    let frame = black_box([sp as u8; 1024]);
    if sp <= low {
        return 0;
    }
    let below = use_stack(low);
    assert!(frame.iter().all(|&byte| byte == sp as u8));
    below + 1
}

#[test]
fn a_builder_is_listened_to() {
    for size in [1 << 20, 3 << 20, 64 << 20] {
        let builder = FIBERS.builder().stack_size(size).name("deep");
        let mut fiber = Box::pin(
            builder
                .build(move || {
                    assert!(stackbounds::remaining().unwrap() > size - 4096);
                    wait(yield_now());
                    use_stack(stackbounds::stack_pointer() - (size - size / 8))
                })
                .unwrap(),
        );
        assert!(poll(&mut fiber).is_pending());
        assert!(format!("{fiber:?}").contains("name: \"deep\""), "{fiber:?}");
        assert!(poll(&mut fiber).is_ready());
    }
    assert_eq!(block_on(FIBERS.builder().stack_size(0).build(|| 6).unwrap()), 6);
}

#[test]
fn debug_says_how_it_stands() {
    let mut fiber = Box::pin(FIBERS.fiber(|| wait(yield_now())));
    assert_eq!(format!("{fiber:?}"), "Fiber { state: \"not started\" }");
    assert!(poll(&mut fiber).is_pending());
    let waits = format!("{fiber:?}");
    assert!(waits.starts_with("Fiber { state: \"suspended\", waits_at: "), "{waits}");
    assert!(waits.contains(file!()), "{waits}");
    assert!(poll(&mut fiber).is_ready());
    assert_eq!(format!("{fiber:?}"), "Fiber { state: \"finished\" }");
}

/// Calls `inside` in a fiber, with a pointer to the same fiber.
///
/// So `inside` can make a second reference beside the poller's. Safe code cannot have both, but a
/// faulty executor can.
fn with_itself(name: Option<&str>, inside: fn(*mut Fiber<()>)) {
    let itself = Rc::new(Cell::new(std::ptr::null_mut()));
    let inner = itself.clone();
    let builder = name.map_or(FIBERS.builder(), |name| FIBERS.builder().name(name));
    let fiber = builder.build(move || inside(inner.get())).unwrap();
    itself.set(Box::into_raw(Box::new(fiber)));
    // SAFETY: the fiber stays in its box until the end of this function.
    let pinned = unsafe { Pin::new_unchecked(&mut *itself.get()) };
    assert!(pinned.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    // SAFETY: the pointer comes from `Box::into_raw`, and no reference to the fiber remains.
    drop(unsafe { Box::from_raw(itself.get()) });
}

#[test]
fn polled_from_inside_itself() {
    fn inside(itself: *mut Fiber<()>) {
        // SAFETY: `with_itself` keeps the fiber alive and in its place.
        let pinned = unsafe { Pin::new_unchecked(&mut *itself) };
        let polled = AssertUnwindSafe(|| pinned.poll(&mut Context::from_waker(Waker::noop())));
        let said = message(catch_unwind(polled).unwrap_err());
        assert!(said.contains("fiber") && said.ends_with("was polled from inside itself"), "{said}");
        // SAFETY: `with_itself` keeps the fiber alive and in its place.
        assert!(format!("{:?}", unsafe { &*itself }).contains("running"));
    }
    with_itself(None, inside);
    with_itself(Some("ouroboros"), inside);
}

#[test]
fn forgotten() {
    const NAME: &str = "forgotten";
    if part().is_none() {
        stderr_of_success(&child(NAME, "forget", &[]));
        return;
    }
    let log = Log::default();
    let in_use = || upcall::snapshot().pool.in_use;
    upcall::wait(FIBERS.fiber(|| ()));
    let before = in_use();
    for _ in 0..20 {
        let said = log.at_drop("destructor");
        let mut fiber = Box::pin(FIBERS.fiber(move || {
            let _said = said;
            wait(std::future::pending::<()>());
        }));
        assert!(poll(&mut fiber).is_pending());
        std::mem::forget(fiber);
    }
    assert!(in_use() >= before + 19, "their stacks are theirs: {} after {before}", in_use());
    assert!(log.take().is_empty());
}

#[test]
fn a_fiber_in_a_fiber_in_a_fiber() {
    let log = Log::default();
    let innermost = log.clone();
    let mut fiber = Box::pin(FIBERS.fiber(move || {
        let middle = FIBERS.fiber(move || {
            let inner = FIBERS.fiber(move || {
                for _ in 0..3 {
                    innermost.add("inner");
                    wait(yield_now());
                }
                1
            });
            wait(yield_now());
            wait(inner) + 1
        });
        wait(middle) + 1
    }));
    let polls = std::iter::from_fn(|| match poll(&mut fiber) {
        Poll::Pending => Some(None),
        Poll::Ready(sum) => Some(Some(sum)),
    });
    let polls: Vec<_> = polls.take(5).collect();
    assert_eq!(polls, [None, None, None, None, Some(3)]);
    assert_eq!(log.take(), ["inner"; 3]);
}

/// Calls `f` below `frames` further frames.
#[inline(never)]
fn deeper(frames: usize, f: &mut dyn FnMut()) {
    let frame = black_box([frames; 16]);
    if frames == 0 {
        f()
    } else {
        deeper(frames - 1, f)
    }
    assert_eq!(frame, [frames; 16]);
}

#[test]
fn polled_from_other_depths_and_stacks_each_time() {
    const STEPS: i32 = 200;
    let _limit = time_limit("polled_from_other_depths_and_stacks_each_time");
    let make = |seed: i32| {
        Box::pin(FIBERS.fiber(move || {
            let mut kept: Vec<i32> = Vec::new();
            for step in 0..STEPS {
                kept.push((step * 7919 + seed) % 1009);
                let here = black_box([step; 64]);
                wait(yield_now());
                // C runs below the current poller, where the poller's other frames have been in the
                // meantime.
                let mut numbers = kept.clone();
                downcall(|| Comparator::new(&|a, b| b.cmp(&a)).sort(&mut numbers));
                with_stack(300 << 10, || {
                    wait(yield_now());
                    downcall(|| Comparator::new(&|a, b| a.cmp(&b)).sort(&mut numbers));
                });
                assert!(numbers.is_sorted());
                assert_eq!(numbers.iter().sum::<i32>(), kept.iter().sum::<i32>());
                assert_eq!(here, [step; 64]);
            }
            kept.len()
        }))
    };
    let mut fibers: Vec<_> = (0..4).map(make).collect();
    let mut random = Random::new();
    while !fibers.is_empty() {
        let at = random.below(fibers.len());
        let fiber = &mut fibers[at];
        let mut polled = Poll::Pending;
        let mut poll_it = || polled = poll(fiber);
        match random.below(5) {
            0 => poll_it(),
            1 => deeper(random.below(200), &mut poll_it),
            2 => entry().stack(StackChoice::Pooled).enter(|| deeper(random.below(50), &mut poll_it)).unwrap(),
            3 => with_stack(2 << 20, poll_it),
            // On a pooled stack, below a downcall.
            _ => entry().stack(StackChoice::Pooled).enter(|| downcall(poll_it)).unwrap(),
        }
        if let Poll::Ready(length) = polled {
            assert_eq!(length, STEPS as usize);
            drop(fibers.swap_remove(at));
        }
    }
}

#[test]
fn polled_from_different_fibers() {
    let log = Log::default();
    let inner = log.clone();
    let passed_on = Box::pin(FIBERS.fiber(move || {
        for _ in 0..4 {
            let mut numbers = [3, 1, 2];
            downcall(|| Comparator::new(&|a, b| a.cmp(&b)).sort(&mut numbers));
            assert_eq!(numbers, [1, 2, 3]);
            inner.add("step");
            wait(yield_now());
        }
    }));
    let hand_over = (0..4).fold(passed_on, |mut fiber, _| {
        wait(FIBERS.fiber(move || {
            assert!(poll(&mut fiber).is_pending());
            fiber
        }))
    });
    assert_eq!(log.take(), ["step"; 4]);
    wait(hand_over);
}

#[test]
fn woken_by_other_threads() {
    let _limit = time_limit("woken_by_other_threads");
    let (sender, receiver) = async_channel::bounded(1);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let sender = sender.clone();
            std::thread::spawn(move || (0..500).for_each(|n| sender.send_blocking(n).unwrap()))
        })
        .collect();
    drop(sender);
    let sum = move || std::iter::from_fn(|| wait(receiver.recv()).ok()).sum::<i32>();
    assert_eq!(block_on(FIBERS.fiber(sum)), 4 * 499 * 500 / 2);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// A poll's context is valid for this poll only. A poll suspended in its middle gets a new one.
#[test]
fn a_future_that_waits_inside_its_own_poll_is_woken() {
    let _limit = time_limit("a_future_that_waits_inside_its_own_poll_is_woken");
    let kept = Rc::new(Cell::new(None));
    let keep = kept.clone();
    let mut fiber = Box::pin(FIBERS.fiber(move || {
        wait(async {
            for _ in 0..10 {
                wait(yield_now());
                let mut first = true;
                poll_fn(|context| {
                    keep.set(Some(context.waker().clone()));
                    if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
                })
                .await;
            }
        });
    }));
    // Each poll has its own waker and its own context, at another address. Both are gone before the
    // next poll.
    let polls: Vec<_> = (0..100).map(|_| Arc::new(Woken(AtomicBool::new(false)))).collect();
    let ended = polls.iter().enumerate().find(|(number, woken)| {
        let mut polled = Poll::Pending;
        deeper(number % 8, &mut || {
            let waker = Waker::from((*woken).clone());
            polled = fiber.as_mut().poll(&mut Context::from_waker(&waker));
        });
        if let Some(kept) = kept.take() {
            kept.wake();
        }
        assert!(polled.is_ready() || woken.0.load(Relaxed), "the waker of the last poll was not woken");
        polled.is_ready()
    });
    assert!(ended.is_some());
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn absurd_stack_sizes_are_refused() {
    for bytes in [usize::MAX, isize::MAX as usize, if usize::BITS == 64 { 1 << 46 } else { 3 << 30 }] {
        let log = Log::default();
        let said = log.at_drop("closure");
        let refusal = FIBERS.builder().stack_size(bytes).build(move || drop(said)).unwrap_err();
        assert_eq!(refusal, Refusal::OutOfMemory { bytes });
        assert_eq!(log.take(), ["closure"]);
        let refused = FIBERS.builder().stack_size(bytes).spawn(|| ()).join().unwrap_err();
        assert!(refused.is_refused() && refused.to_string().contains(&bytes.to_string()), "{refused}");
    }
}

#[cfg(unix)]
#[test]
fn no_memory_for_a_stack() {
    const NAME: &str = "no_memory_for_a_stack";
    if part().is_none() {
        stderr_of_success(&child(NAME, "limited", &[]));
        return;
    }
    let limit = libc::rlimit { rlim_cur: 1 << 30, rlim_max: 1 << 30 };
    // SAFETY: `limit` is a valid `rlimit`, and the call only reads it.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    let mut fibers = Vec::new();
    let refusal = loop {
        let number = fibers.len();
        match FIBERS.builder().build(move || (wait(yield_now()), number).1) {
            Ok(fiber) => fibers.push(Box::pin(fiber)),
            Err(refusal) => break refusal,
        }
        assert!(poll(fibers.last_mut().unwrap()).is_pending());
    };
    assert!(fibers.len() > 700, "{} of a MiB in one GiB", fibers.len());
    assert!(refusal.to_string().starts_with("there is no memory for a stack of"), "{refusal}");
    let said = message(catch_unwind(|| drop(FIBERS.fiber(|| ()))).unwrap_err());
    assert!(said.starts_with("Fibers::fiber: there is no memory for a stack of"), "{said}");
    // The existing fibers resume and end, and so free memory.
    for (number, fiber) in fibers.into_iter().enumerate() {
        assert_eq!(block_on(fiber), number);
    }
    assert_eq!(block_on(FIBERS.fiber(|| 7)), 7);
}

#[test]
fn suspended_when_their_thread_exits() {
    thread_local! {
        static KEPT: Cell<Vec<Pin<Box<Fiber<()>>>>> = const { Cell::new(Vec::new()) };
    }
    let _limit = time_limit("suspended_when_their_thread_exits");
    // The destructors sleep. On Windows they run under the loader's lock, where no thread can
    // begin. So the thread of the timers begins here.
    if cfg!(windows) {
        upcall::sleep(Duration::from_millis(1));
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let fibers = (0..20).map(|number| {
            let sender = sender.clone();
            let mut fiber = Box::pin(FIBERS.fiber(move || {
                let _said = common::AtDrop(move || {
                    upcall::sleep(Duration::from_millis(1));
                    sender.send((number, std::thread::current().id())).unwrap();
                });
                wait(std::future::pending::<()>());
            }));
            assert!(poll(&mut fiber).is_pending());
            fiber
        });
        KEPT.set(fibers.collect());
    });
    let id = thread.thread().id();
    thread.join().unwrap();
    assert_eq!(receiver.iter().collect::<Vec<_>>(), (0..20).map(|number| (number, id)).collect::<Vec<_>>());
}

#[test]
fn ten_thousand_suspended() {
    // On 32 bits, so many stacks would be more than the address space.
    const SUSPENDED: usize = if usize::BITS == 64 { 10_000 } else { 1000 };
    let _limit = time_limit("ten_thousand_suspended");
    type Order = fn(&mut Vec<usize>, &mut Random);
    let orders: [Order; 3] = [
        |_, _| (),
        |order, _| order.reverse(),
        |order, random| (1..order.len()).for_each(|i| order.swap(i, random.below(i + 1))),
    ];
    for arrange in orders {
        let mut random = Random::new();
        let mut fibers: Vec<_> = (0..SUSPENDED)
            .map(|number| {
                Box::pin(FIBERS.fiber(move || {
                    let kept = black_box([number; 32]);
                    wait(yield_now());
                    wait(yield_now());
                    assert_eq!(kept, [number; 32]);
                    number
                }))
            })
            .collect();
        let mut order: Vec<usize> = (0..SUSPENDED).collect();
        for _ in 0..2 {
            arrange(&mut order, &mut random);
            assert!(order.iter().all(|&number| poll(&mut fibers[number]).is_pending()));
        }
        arrange(&mut order, &mut random);
        assert!(order.iter().all(|&number| poll(&mut fibers[number]) == Poll::Ready(number)));
    }
}

/// A closure larger than the stack is not written past the stack's end. With enough room, it runs.
#[test]
fn large_closures() {
    let on_a_large_stack = || {
        let large = [7u8; 300_000];
        drop(FIBERS.fiber(move || large.len()));
        let fiber =
            FIBERS.builder().stack_size(8 << 20).build(move || large.iter().map(|&b| u64::from(b)).sum());
        assert_eq!(upcall::wait::<Fiber<u64>>(fiber.unwrap()), 2_100_000);
    };
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(on_a_large_stack);
    thread.unwrap().join().unwrap();
}

#[test]
fn c_stays_on_the_fiber_until_its_own_call_returns() {
    wait(FIBERS.fiber(|| {
        let here = downcall_on_fiber(|| {
            enter(|| {
                downcall_on_fiber(|| ());
                (stackbounds::current(), downcall(stackbounds::current))
            })
        });
        let (rust, c) = here.unwrap();
        assert_eq!(rust, c);
    }));
}
