//! Numbers: what C holds in place of a pointer.
//!
//! ```text
//! TAG, 16 bits │ index, 24 bits │ generation, 24 bits      the last two mixed with this copy's key
//! ```
//!
//! The tag makes the number an address invalid on every processor. If C code dereferences it, the
//! process faults there. No pointer of C's is mistaken for a number either. Two copies of upcall in
//! one process have different keys, so the numbers of one lead to nothing in the other. On 32-bit
//! systems, the tag has 2 bits and protects less.

use std::ptr;

use super::HandleError;

const TAG_BITS: u32 = if usize::BITS == 64 { 16 } else { 2 };
const PART: u32 = (usize::BITS - TAG_BITS) / 2;
/// "up" in ASCII.
const TAG: usize = 0x7570 >> (16 - TAG_BITS);
/// The exclusive upper bound of indices.
pub(super) const INDICES: usize = 1 << PART;
/// The exclusive upper bound of generations. The first generation is 1.
pub(super) const GENERATIONS: usize = 1 << PART;

/// A number, decoded.
#[derive(Clone, Copy)]
pub(super) struct Number {
    pub index: usize,
    pub generation: usize,
    /// The encoded number, as C has it.
    pub value: usize,
}

impl Number {
    pub fn new(index: usize, generation: usize) -> Self {
        let parts = (index << PART | generation) ^ key();
        Self { index, generation, value: TAG << (2 * PART) | parts }
    }

    #[inline(always)]
    pub fn of(value: usize) -> Result<Self, HandleError> {
        if value >> (2 * PART) != TAG {
            return Err(if value == 0 { HandleError::Null } else { HandleError::Foreign { value } });
        }
        let parts = value ^ TAG << (2 * PART) ^ key();
        Ok(Self { index: parts >> PART, generation: parts & (GENERATIONS - 1), value })
    }
}

/// The key of this copy of upcall.
///
/// Different copies have different keys: multiplying by an odd factor maps different addresses to
/// different products.
#[inline(always)]
fn key() -> usize {
    static COPY: u8 = 0;
    // 2^64 divided by the golden ratio.
    const FACTOR: usize = 0x9E37_79B9_7F4A_7C15u64 as usize;
    ptr::from_ref(&COPY).addr().wrapping_mul(FACTOR) & ((1 << (2 * PART)) - 1)
}
