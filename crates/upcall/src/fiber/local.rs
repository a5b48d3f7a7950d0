//! Fiber-local values.

use std::cell::RefCell;
use std::rc::Rc;

use stackbounds::stack_pointer;

use crate::thread::locals::Locals;
use crate::thread::{Attached, RecordPin, ThreadState};

/// A variable with a value for each fiber, and one for each thread's code outside fibers.
///
/// It is to fibers what `thread_local!` is to threads. Variables of `thread_local!` are shared by
/// all fibers of a thread.
///
/// ```
/// # const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
/// use std::cell::Cell;
/// use upcall::FiberLocal;
///
/// static DEPTH: FiberLocal<Cell<u32>> = FiberLocal::new(|| Cell::new(0));
///
/// DEPTH.with(|depth| depth.set(7));
/// let fiber = FIBERS.fiber(|| DEPTH.with(Cell::get));
/// assert_eq!(upcall::wait(fiber), 0);
/// ```
///
/// A value is made at its first use. If `init` uses its own variable, the value made by the inner
/// use stays.
///
/// The values of a fiber are dropped at its end, on its stack, in the order of their creation. The
/// values of code outside fibers are dropped at the thread's exit. Later uses, by destructors at
/// the thread's exit, get a new value each time.
#[derive(Debug)]
pub struct FiberLocal<T: 'static> {
    init: fn() -> T,
}

impl<T: 'static> FiberLocal<T> {
    /// Makes a variable, to be put into a `static`. Each value begins as the result of `init`.
    pub const fn new(init: fn() -> T) -> Self {
        Self { init }
    }

    /// Calls `f` with the value of the calling fiber or thread.
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        let sp = stack_pointer();
        let thread = ThreadState::current();
        if let Some(fiber) = thread.fiber_at(sp) {
            return f(&self.value_in(&fiber.locals));
        }
        self.with_threads(thread, sp, f)
    }

    /// Calls `f` with the value of the thread. Not inlined, because [`RecordPin::of`] needs a frame
    /// of its own.
    #[inline(never)]
    fn with_threads<R>(&'static self, thread: &'static ThreadState, sp: usize, f: impl FnOnce(&T) -> R) -> R {
        let _attached = Attached::new(thread, sp);
        // On an exiting thread, the end of a call made by `init` or `f` would free the record.
        let pin = RecordPin::of(thread);
        let value = self.value_in(&thread.record().expect("a thread that has just attached").locals);
        let result = f(&value);
        drop((value, pin));
        result
    }

    /// The value in `locals`. `locals` is not borrowed while `init` runs: it may use other
    /// variables.
    fn value_in(&'static self, locals: &RefCell<Locals>) -> Rc<T> {
        let key = std::ptr::from_ref(self) as usize;
        let found = || {
            locals.borrow().iter().find(|(other, _)| *other == key).map(|(_, value)| {
                value.downcast_ref::<Rc<T>>().expect("a variable's values have its type").clone()
            })
        };
        found().unwrap_or_else(|| {
            let value = Rc::new((self.init)());
            // `init` may have used this variable itself.
            found().unwrap_or_else(|| {
                locals.borrow_mut().push_back((key, Box::new(value.clone())));
                value
            })
        })
    }
}
