//! Values that each fiber has for itself.

use std::cell::RefCell;
use std::rc::Rc;

use stackbounds::stack_pointer;

use crate::stack::locals::Locals;
use crate::thread::{Hot, KeptRecord, record};

/// A variable of which every fiber has one of its own, and every thread one for code outside fibers: what `thread_local!` is for
/// threads. `thread_local!` variables are shared by all fibers of a thread.
///
/// ```
/// use std::cell::Cell;
/// use upcall::FiberLocal;
///
/// static DEPTH: FiberLocal<Cell<u32>> = FiberLocal::new(|| Cell::new(0));
///
/// DEPTH.with(|depth| depth.set(7));
/// let fiber = upcall::Fiber::new(|| DEPTH.with(Cell::get));
/// assert_eq!(upcall::wait(fiber), 0);
/// ```
///
/// A value is made at the first use and dropped at the end of its fiber, on the fiber's stack, in the order in which they were made; for code
/// outside fibers at the exit of the thread. Code that uses it after that, in destructors at the thread's exit, has a new value
/// each time.
#[derive(Debug)]
pub struct FiberLocal<T: 'static> {
    init: fn() -> T,
}

impl<T: 'static> FiberLocal<T> {
    /// A variable, to be kept in a `static`, whose values begin as what `init` gives.
    pub const fn new(init: fn() -> T) -> Self {
        Self { init }
    }

    /// Calls `f` with the value of the calling fiber or thread.
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        let sp = stack_pointer();
        let hot = Hot::here();
        if let Some(fiber) = hot.fiber_at(sp) {
            return f(&self.value_in(&fiber.locals));
        }
        record::attach_if_new(hot, sp);
        // On a thread that is exiting, what `init` and `f` call would free the record.
        let kept = KeptRecord::of(hot);
        let value = self.value_in(&hot.record().expect("a thread that has just attached").locals);
        let result = f(&value);
        drop((value, kept));
        record::detach_if_exiting(hot);
        result
    }

    /// The value in `locals`, which is not borrowed while `init` runs: it may use other variables.
    fn value_in(&'static self, locals: &RefCell<Locals>) -> Rc<T> {
        let key = std::ptr::from_ref(self) as usize;
        let found = locals.borrow().iter().find(|(other, _)| *other == key).map(|(_, value)| {
            value.downcast_ref::<Rc<T>>().expect("a variable's values have its type").clone()
        });
        found.unwrap_or_else(|| {
            let value = Rc::new((self.init)());
            locals.borrow_mut().push_back((key, Box::new(value.clone())));
            value
        })
    }
}
