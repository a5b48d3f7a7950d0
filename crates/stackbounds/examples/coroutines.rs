//! A host describes stacks of its own: `cargo run --example coroutines -p stackbounds`.

use stackbounds::{Accuracy, StackBounds, register};

/// The room below `sp`, a coroutine's stack pointer, if it is known.
fn room(sp: usize) -> Option<usize> {
    stackbounds::at(sp).room_below(sp)
}

fn main() {
    // A real host runs code on this memory. This example only queries its bounds.
    let mut stack = vec![0_u8; 256 << 10].into_boxed_slice();
    let (low, size) = (stack.as_mut_ptr(), stack.len());
    let sp = low as usize + size - 1024;
    assert_eq!(room(sp), None, "nobody has described it: bounds are estimated, and promise no room");

    // SAFETY: the memory stays in place until `registration` is dropped, and has no other user.
    let registration = unsafe { register(low, size) }.unwrap();
    let bounds: StackBounds = stackbounds::at(sp);
    assert_eq!(bounds.accuracy(), Accuracy::Exact);
    println!("{} of {} bytes remain", room(sp).unwrap(), bounds.high() - bounds.low());

    drop(registration);
    assert_eq!(room(sp), None);
}
