use core::hint::black_box;

/// The stack pointer of the calling function, as an address: near enough, from a local's address.
/// A frame of this function's own may lie between it and the caller's, so it is at or a little
/// below the caller's stack pointer.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let local = 0u8;
    black_box(&raw const local) as usize
}
