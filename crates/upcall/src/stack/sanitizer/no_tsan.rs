//! Without ThreadSanitizer: nothing, at no cost.

pub struct Fiber;

impl Fiber {
    #[inline(always)]
    pub fn new() -> Self {
        Self
    }

    #[inline(always)]
    pub fn run<R>(&self, resume: impl FnOnce() -> R) -> R {
        resume()
    }
}
