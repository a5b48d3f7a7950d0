//! Upcalls on the fibers of a Windows host: `CreateFiber` and `SwitchToFiber`.
#![cfg(windows)]

mod common;

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use common::sys::{Teb, deep};
use common::{FIBERS, Random, message, time_limit};
use corosensei::stack::{Stack, StackPointer, StackTebFields};
use corosensei::{Coroutine, Yielder};
use upcall::{StackChoice, downcall, enter, entry, sleep, wait, yield_now};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, PAGE_READWRITE, VirtualAlloc, VirtualFree,
};
use windows_sys::Win32::System::Threading::{
    ConvertFiberToThread, ConvertThreadToFiber, CreateFiber, DeleteFiber, SwitchToFiber,
};

const CHOICES: [StackChoice; 3] = [StackChoice::Auto, StackChoice::Caller, StackChoice::Pooled];

/// The fibers of one thread.
struct Host {
    /// The thread's own, and then the created ones.
    fibers: RefCell<Vec<*mut c_void>>,
    /// Indices of the fibers with unfinished code.
    unfinished: RefCell<Vec<usize>>,
    running: Cell<usize>,
}

impl Host {
    const OWN: usize = 0;

    /// Converts the calling thread to a fiber.
    fn new() -> Rc<Host> {
        // SAFETY: the thread is no fiber yet.
        let own = unsafe { ConvertThreadToFiber(ptr::null()) };
        assert!(!own.is_null());
        Rc::new(Host {
            fibers: RefCell::new(vec![own]),
            unfinished: RefCell::default(),
            running: Cell::new(Self::OWN),
        })
    }

    /// Creates a fiber for `code`, with a stack of a MiB. Returns its index.
    fn create(self: &Rc<Self>, code: impl FnOnce() + 'static) -> usize {
        type Code = Box<dyn FnOnce()>;
        unsafe extern "system" fn run(code: *mut c_void) {
            // SAFETY: the pointer comes from `Box::into_raw`, and is used once.
            unsafe { Box::from_raw(code.cast::<Code>())() };
        }
        let index = self.fibers.borrow().len();
        let host = Rc::as_ptr(self);
        let code: Code = Box::new(move || {
            code();
            // SAFETY: the thread's own fiber holds the host until all others have ended.
            let host = unsafe { &*host };
            host.unfinished.borrow_mut().retain(|&unfinished| unfinished != index);
            // The return of a fiber's function would end the thread.
            host.switch_to(Self::OWN);
        });
        let code = Box::into_raw(Box::new(code));
        // SAFETY: `run` takes this pointer.
        let fiber = unsafe { CreateFiber(1 << 20, Some(run), code.cast()) };
        assert!(!fiber.is_null());
        self.fibers.borrow_mut().push(fiber);
        self.unfinished.borrow_mut().push(index);
        index
    }

    /// Continues the fiber with this index. Returns when another one continues the caller.
    fn switch_to(&self, index: usize) {
        let caller = self.running.replace(index);
        if index != caller {
            let fiber = self.fibers.borrow()[index];
            // SAFETY: the fiber belongs to this thread, does not run, and is not deleted.
            unsafe { SwitchToFiber(fiber) };
            assert_eq!(self.running.get(), caller);
        }
    }

    /// Continues each unfinished fiber in turn, until none is left. Deletes them.
    fn run_all(&self) {
        while let Some(next) = self.first_unfinished() {
            self.switch_to(next);
        }
        for fiber in self.fibers.borrow_mut().drain(1..) {
            // SAFETY: the fiber has ended, and nobody switches to it again.
            unsafe { DeleteFiber(fiber) };
        }
        // SAFETY: this is the thread's own fiber.
        assert_ne!(unsafe { ConvertFiberToThread() }, 0);
    }

    /// Switches to each fiber in turn, to its next switch, until all have ended.
    fn run_all_in_turn(&self) {
        while self.first_unfinished().is_some() {
            let in_turn = self.unfinished.borrow().clone();
            in_turn.into_iter().for_each(|fiber| self.switch_to(fiber));
        }
        self.run_all();
    }

    fn first_unfinished(&self) -> Option<usize> {
        self.unfinished.borrow().first().copied()
    }

    /// One of the unfinished fibers, or the thread's own.
    fn any(&self, random: &mut Random) -> usize {
        let unfinished = self.unfinished.borrow();
        let chosen = random.below(unfinished.len() + 1);
        unfinished.get(chosen).copied().unwrap_or(Self::OWN)
    }
}

/// Asserts that the TEB describes `stack`, which is in use.
#[track_caller]
fn on(stack: &Teb) {
    assert_eq!(Teb::right().stack(), stack.stack());
}

#[test]
fn each_kind_of_upcall_runs_on_a_fiber() {
    let _limit = time_limit("each_kind_of_upcall_runs_on_a_fiber");
    let threads = Teb::right();
    let host = Host::new();
    host.create(move || {
        let own = Teb::right();
        assert_ne!(own.stack(), threads.stack());
        for choice in CHOICES {
            let upcall = || {
                let here = Teb::right();
                // Whose stack it is, nobody can tell on a fiber.
                assert_eq!(here.stack() == own.stack(), choice == StackChoice::Caller, "{choice:?}");
                downcall(|| {
                    on(&own);
                    entry().stack(StackChoice::Pooled).enter(|| downcall(|| on(&own))).unwrap();
                });
                on(&here);
                sleep(Duration::from_millis(1));
                assert_eq!(wait(FIBERS.fiber(|| downcall(|| Teb::right().stack()))), own.stack());
                assert_eq!(FIBERS.spawn(|| 7).join().unwrap(), 7);
                on(&here);
            };
            entry().stack(choice).enter(upcall).unwrap();
            on(&own);
        }
    });
    host.run_all();
}

#[test]
fn downcalls_switch_to_any_other_fiber_and_back() {
    const FIBERS: usize = 8;
    const ROUNDS: usize = 200;
    let _limit = time_limit("downcalls_switch_to_any_other_fiber_and_back");
    let host = Host::new();
    let random = Rc::new(RefCell::new(Random::new()));
    let rounds = Rc::new(Cell::new(0));
    for number in 0..FIBERS {
        let (inner, random, rounds) = (host.clone(), random.clone(), rounds.clone());
        host.create(move || {
            let own = Teb::right();
            for round in 0..ROUNDS {
                let choice = CHOICES[random.borrow_mut().below(3)];
                let switches = || {
                    let next = inner.any(&mut random.borrow_mut());
                    inner.switch_to(next);
                    on(&own);
                };
                let kept = black_box([round; 16]);
                let upcall = || {
                    let here = Teb::right();
                    let kept = black_box([number; 16]);
                    downcall(switches);
                    on(&here);
                    downcall(|| enter(|| downcall(switches)).unwrap());
                    on(&here);
                    assert_eq!(kept, [number; 16]);
                    number
                };
                assert_eq!(entry().stack(choice).enter(upcall).unwrap(), number);
                on(&own);
                assert_eq!(kept, [round; 16]);
                rounds.set(rounds.get() + 1);
            }
        });
    }
    host.run_all();
    assert_eq!(rounds.get(), FIBERS * ROUNDS);
}

#[test]
fn panics_pass_between_switches() {
    let _limit = time_limit("panics_pass_between_switches");
    let host = Host::new();
    for number in 0..6 {
        let inner = host.clone();
        host.create(move || {
            let own = Teb::right();
            let switches = || inner.switch_to(Host::OWN);
            for choice in CHOICES {
                let text = format!("{number} {choice:?}");
                let raises = || {
                    downcall(|| {
                        switches();
                        let panics = || panic!("{text}");
                        drop(entry().stack(choice).enter(panics).map(|never: ()| never).unwrap_err());
                        switches();
                        on(&own);
                    });
                };
                let error = entry().stack(choice).enter(raises).unwrap_err();
                assert_eq!(error.message(), text);
                assert!(error.into_payload().is_some());
                switches();
                let caught = || {
                    let here = Teb::right();
                    let raised = catch_unwind(AssertUnwindSafe(raises)).unwrap_err();
                    on(&here);
                    message(raised)
                };
                assert_eq!(entry().stack(choice).enter(caught).unwrap(), text);
                on(&own);
            }
        });
    }
    host.run_all_in_turn();
}

#[test]
fn the_first_upcall_of_a_thread_may_be_on_a_fiber() {
    let _limit = time_limit("the_first_upcall_of_a_thread_may_be_on_a_fiber");
    for choice in CHOICES {
        let body = move || {
            let threads = Teb::right();
            let host = Host::new();
            let inner = host.clone();
            let fiber = host.create(move || {
                let own = Teb::right();
                let upcall = || downcall(|| inner.switch_to(Host::OWN));
                entry().stack(choice).enter(upcall).unwrap();
                on(&own);
            });
            host.switch_to(fiber);
            // The fiber is in a downcall.
            for choice in CHOICES {
                entry().stack(choice).enter(|| downcall(|| on(&threads))).unwrap();
                on(&threads);
            }
            host.run_all();
            enter(|| sleep(Duration::from_millis(1))).unwrap();
            on(&threads);
        };
        thread::spawn(body).join().unwrap();
    }
}

/// A stack for corosensei, all of it committed.
struct Committed(*mut c_void);

impl Committed {
    const SIZE: usize = 256 << 10;

    fn new() -> Self {
        // SAFETY: the system chooses the place of new memory.
        let low = unsafe { VirtualAlloc(ptr::null(), Self::SIZE, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE) };
        assert!(!low.is_null());
        Self(low)
    }
}

impl Drop for Committed {
    fn drop(&mut self) {
        // SAFETY: the memory was allocated by `new`, and its coroutine has ended.
        assert_ne!(unsafe { VirtualFree(self.0, 0, MEM_RELEASE) }, 0);
    }
}

// SAFETY: the memory is readable and writable, belongs to this value, and stays until its drop. The
// coroutines here need a small part of it.
unsafe impl Stack for Committed {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.0 as usize + Self::SIZE).unwrap()
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.0 as usize).unwrap()
    }

    fn teb_fields(&self) -> StackTebFields {
        let low = self.0 as usize;
        StackTebFields {
            StackBase: low + Self::SIZE,
            StackLimit: low,
            DeallocationStack: low,
            GuaranteedStackBytes: 0,
        }
    }

    fn update_teb_fields(&mut self, _limit: usize, _guarantee: usize) {}
}

/// corosensei writes its coroutine's bounds into the TEB, as Boost.Context does.
#[test]
fn the_first_upcall_of_a_thread_may_be_on_a_coroutine() {
    let _limit = time_limit("the_first_upcall_of_a_thread_may_be_on_a_coroutine");
    for choice in CHOICES {
        let body = move || {
            let threads = Teb::right();
            let threads_stack = threads.stack();
            let mut coroutine =
                Coroutine::with_stack(Committed::new(), move |yielder: &Yielder<(), ()>, ()| {
                    let own = Teb::right();
                    assert_ne!(own.stack(), threads_stack);
                    let upcall = || {
                        assert_eq!(Teb::right().stack() == own.stack(), choice == StackChoice::Caller);
                        downcall(|| yielder.suspend(()));
                    };
                    entry().stack(choice).enter(upcall).unwrap();
                    on(&own);
                });
            coroutine.resume(());
            enter(|| on(&threads)).unwrap();
            coroutine.resume(());
            assert!(coroutine.done());
            drop(coroutine);
            enter(|| on(&threads)).unwrap();
        };
        thread::spawn(body).join().unwrap();
    }
}

/// `SwitchToFiber` restores other bounds than those of the stack that C left.
#[test]
fn c_on_a_stack_of_ours_switches_too() {
    let _limit = time_limit("c_on_a_stack_of_ours_switches_too");
    let host = Host::new();
    for _ in 0..3 {
        let inner = host.clone();
        host.create(move || {
            let own = Teb::right();
            let fiber = FIBERS.builder().c_on_fiber().build(move || {
                let here = Teb::right();
                for _ in 0..3 {
                    downcall(|| inner.switch_to(Host::OWN));
                    on(&here);
                    deep(64 << 10, &mut || assert!(catch_unwind(|| panic!()).is_err()));
                    yield_now();
                    downcall(|| {
                        inner.switch_to(Host::OWN);
                        enter(|| on(&here)).unwrap();
                    });
                }
            });
            wait(fiber.unwrap());
            on(&own);
        });
    }
    host.run_all_in_turn();
}

/// Its fibers are lost with their stacks, like those of a host that ends early.
#[test]
fn a_thread_ends_with_fibers_in_upcalls() {
    let _limit = time_limit("a_thread_ends_with_fibers_in_upcalls");
    for _ in 0..10 {
        let body = || {
            let host = Host::new();
            for choice in CHOICES {
                let inner = host.clone();
                let fiber = host.create(move || {
                    entry().stack(choice).enter(|| downcall(|| inner.switch_to(Host::OWN))).unwrap();
                    unreachable!("nobody continues it");
                });
                host.switch_to(fiber);
            }
            enter(|| ()).unwrap();
            std::mem::forget(host);
        };
        thread::spawn(body).join().unwrap();
    }
    enter(|| sleep(Duration::from_millis(1))).unwrap();
}
