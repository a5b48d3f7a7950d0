//! The bounds of a stack: plain arithmetic on addresses, independent of threads and the OS.

/// How far below SP an [`Accuracy::Estimated`] window reaches: 32 KiB.
///
/// Go's runtime assumes the same of an unknown stack.
pub(crate) const ESTIMATE_BELOW: usize = 32 * 1024;
/// How far above SP an [`Accuracy::Estimated`] window reaches: 1 KiB.
pub(crate) const ESTIMATE_ABOVE: usize = 1024;

/// Whether bounds are exact or estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accuracy {
    /// The operating system or the owner of the stack gave both ends.
    Exact,
    /// A window around the stack pointer at the time of the call: nobody described this stack.
    ///
    /// It says where the stack probably is, and promises nothing about the bytes remaining.
    Estimated,
}

/// The addresses `low..high` of one stack.
///
/// Stacks grow downwards: `low` is the end that overflows.
///
/// ```text
///  high ─┬─ one past the highest byte
///        │   frames in use
///    SP ─┤
///        │   room below SP
///   low ─┴─ lowest usable byte; a guard page may follow below
/// ```
///
/// ```
/// let stack = stackbounds::current();
/// let local = 0u8;
/// assert!(stack.contains(&raw const local as usize));
/// assert_eq!(stack.size(), stack.high() - stack.low());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StackBounds {
    low: usize,
    high: usize,
    accuracy: Accuracy,
}

impl StackBounds {
    #[inline]
    pub(crate) const fn exact(low: usize, high: usize) -> Self {
        Self { low, high, accuracy: Accuracy::Exact }
    }

    /// The estimated window around `sp`, used on an undescribed stack.
    ///
    /// It stops at either end of the address space.
    #[inline]
    pub(crate) const fn estimated(sp: usize) -> Self {
        Self {
            low: sp.saturating_sub(ESTIMATE_BELOW),
            high: sp.saturating_add(ESTIMATE_ABOVE),
            accuracy: Accuracy::Estimated,
        }
    }

    /// The lowest address of the stack, guard pages excluded if the OS reports them.
    #[inline]
    pub const fn low(&self) -> usize {
        self.low
    }

    /// The address one past the highest byte of the stack.
    #[inline]
    pub const fn high(&self) -> usize {
        self.high
    }

    /// The size in bytes: `high - low`.
    #[inline]
    pub const fn size(&self) -> usize {
        self.high - self.low
    }

    /// Whether `addr` lies in `low..high`.
    ///
    /// Both ends are checked: a coroutine's stack may lie above the thread's own as well as below
    /// it.
    #[inline]
    pub const fn contains(&self, addr: usize) -> bool {
        addr.wrapping_sub(self.low) < self.high - self.low
    }

    /// Whether the bounds are exact or estimated.
    #[inline]
    pub const fn accuracy(&self) -> Accuracy {
        self.accuracy
    }

    /// Whether [`accuracy`](Self::accuracy) is [`Accuracy::Exact`].
    #[inline]
    pub const fn is_exact(&self) -> bool {
        matches!(self.accuracy, Accuracy::Exact)
    }

    /// The bytes certainly remaining below `sp`.
    ///
    /// `None` if the bounds are estimated, or if `sp` is not on this stack.
    #[inline]
    pub const fn room_below(&self, sp: usize) -> Option<usize> {
        if self.is_exact() && self.contains(sp) { Some(sp - self.low) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_checked() {
        let stack = StackBounds::exact(0x1000, 0x2000);
        assert!(!stack.contains(0xfff));
        assert!(stack.contains(0x1000));
        assert!(stack.contains(0x1fff));
        assert!(!stack.contains(0x2000));
        assert!(!stack.contains(usize::MAX));
        assert!(!stack.contains(0));
    }

    #[test]
    fn an_empty_range_contains_nothing() {
        let stack = StackBounds::exact(0x1000, 0x1000);
        assert!(!stack.contains(0x1000));
        assert!(!stack.contains(0xfff));
    }

    #[test]
    fn an_estimate_is_32_kib_below_and_1_kib_above() {
        let stack = StackBounds::estimated(0x10_0000);
        assert_eq!((stack.low(), stack.high()), (0x10_0000 - 32768, 0x10_0000 + 1024));
        assert_eq!(stack.accuracy(), Accuracy::Estimated);
        assert!(stack.contains(0x10_0000));
    }

    #[test]
    fn an_estimate_stops_at_both_ends_of_the_address_space() {
        assert_eq!(StackBounds::estimated(100).low(), 0);
        assert_eq!(StackBounds::estimated(usize::MAX - 10).high(), usize::MAX);
    }

    #[test]
    fn an_estimate_promises_no_room() {
        assert_eq!(StackBounds::estimated(0x10_0000).room_below(0x10_0000), None);
        assert_eq!(StackBounds::exact(0x1000, 0x2000).room_below(0x1800), Some(0x800));
        assert_eq!(StackBounds::exact(0x1000, 0x2000).room_below(0x2000), None);
        assert_eq!(StackBounds::exact(0x1000, 0x2000).room_below(0xff8), None);
    }
}
