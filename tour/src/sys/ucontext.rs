//! Stacks from the heap, switched by `swapcontext`, and not described to upcall.

use std::cell::UnsafeCell;
use std::mem;

use libc::{getcontext, makecontext, swapcontext, ucontext_t};

use super::coroutines::main;

const STACK_SIZE: usize = 256 << 10;

/// The stack of a coroutine, and both sides of its switches.
pub struct Context {
    /// The coroutine's point of resumption. It is boxed, since a context contains its own address.
    coroutine: Box<UnsafeCell<ucontext_t>>,
    /// The resumer's point of resumption.
    resumer: Box<UnsafeCell<ucontext_t>>,
    _stack: Box<[u8]>,
}

impl Context {
    /// Makes a stack. The first `resume` calls [`main`] on it.
    pub fn new() -> Result<Self, &'static str> {
        // SAFETY: all-zero is a valid `ucontext_t`: integers, and pointers that may be null.
        let [coroutine, resumer] = [(); 2].map(|()| Box::new(UnsafeCell::new(unsafe { mem::zeroed() })));
        let mut stack = vec![0; STACK_SIZE].into_boxed_slice();
        // SAFETY: the context has a stable address in its box, and its stack lives as long as it
        // does.
        unsafe {
            let context: *mut ucontext_t = coroutine.get();
            getcontext(context);
            (*context).uc_stack.ss_sp = stack.as_mut_ptr().cast();
            (*context).uc_stack.ss_size = STACK_SIZE;
            makecontext(context, main, 0);
        }
        Ok(Self { coroutine, resumer, _stack: stack })
    }

    /// Runs the coroutine until it gives way.
    pub fn resume(&self) {
        // SAFETY: `new` made the context, or `give_way` saved it when it left the coroutine.
        unsafe { swapcontext(self.resumer.get(), self.coroutine.get()) };
    }

    /// Leaves the coroutine, which is running, until it is resumed.
    pub fn give_way(&self) {
        // SAFETY: `resume` saved the context when it entered the coroutine.
        unsafe { swapcontext(self.coroutine.get(), self.resumer.get()) };
    }
}
