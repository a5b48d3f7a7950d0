//! Cached ranges: the surroundings of the last upcalls, as found by a lookup.

use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::compiler_fence;

/// A range of addresses with a fact that holds for one version of stackbounds' registry.
///
/// A signal handler may switch to other coroutines between any two loads and stores. So the three
/// words may come from different calls of `set`. Then the seal does not match: ranges of one
/// version are disjoint, so no two begin at the same address.
pub(crate) struct CachedRange {
    low: Cell<usize>,
    size: Cell<usize>,
    /// A checksum of `low`, `size` and the version.
    seal: Cell<usize>,
}

#[inline(always)]
fn seal(low: usize, size: usize, version: usize) -> usize {
    low.wrapping_add(size.wrapping_mul(2)) ^ version
}

impl CachedRange {
    pub const fn empty() -> Self {
        Self { low: Cell::new(0), size: Cell::new(0), seal: Cell::new(0) }
    }

    #[inline(always)]
    pub fn contains(&self, sp: usize) -> bool {
        let (low, size) = (self.low.get(), self.size.get());
        sp.wrapping_sub(low) < size && seal(low, size, stackbounds::for_upcall::version()) == self.seal.get()
    }

    pub fn set(&self, low: usize, high: usize, version: usize) {
        let size = high.saturating_sub(low);
        self.low.set(low);
        self.size.set(size);
        compiler_fence(SeqCst);
        self.seal.set(seal(low, size, version));
    }
}
