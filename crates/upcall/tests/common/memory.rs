//! Memory of a host for the stack of a coroutine.
#![allow(dead_code)]

use corosensei::stack::{Stack, StackPointer};

/// A stack in ordinary memory, all of it usable.
pub struct Memory(Box<[u128]>);

impl Memory {
    /// `bytes` bytes, without a guard.
    pub fn new(bytes: usize) -> Self {
        Self(vec![0; bytes / size_of::<u128>()].into_boxed_slice())
    }

    /// The lowest address, and the size in bytes.
    pub fn range(&mut self) -> (*mut u8, usize) {
        (self.0.as_mut_ptr().cast(), size_of_val(&*self.0))
    }
}

// SAFETY: the memory is the box's, aligned to 16 bytes. No test overflows it.
unsafe impl Stack for Memory {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.0.as_ptr_range().end as usize).expect("not null")
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.0.as_ptr() as usize).expect("not null")
    }

    #[cfg(windows)]
    fn teb_fields(&self) -> corosensei::stack::StackTebFields {
        corosensei::stack::StackTebFields {
            StackBase: self.base().get(),
            StackLimit: self.limit().get(),
            DeallocationStack: self.limit().get(),
            GuaranteedStackBytes: 0,
        }
    }

    #[cfg(windows)]
    fn update_teb_fields(&mut self, _stack_limit: usize, _guaranteed_stack_bytes: usize) {}
}
