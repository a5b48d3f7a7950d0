//! A recursive parser that never overflows its stack: `cargo run --example parser -p stackbounds`.
//!
//! The limit is the room on the stack in use, not a number of levels. So the same parser accepts
//! deep input on a main thread, less of it on a small thread, and never overflows.

use std::thread;

/// The most stack used by one level, with everything it calls.
const ROOM: usize = 16 << 10;

#[derive(Debug)]
enum Error {
    Unbalanced,
    TooDeep,
}

/// Counts the levels of `[[[]]]`.
fn depth(input: &[u8]) -> Result<(usize, &[u8]), Error> {
    if stackbounds::remaining().is_none_or(|bytes| bytes < ROOM) {
        return Err(Error::TooDeep);
    }
    let [b'[', rest @ ..] = input else { return Ok((0, input)) };
    let (levels, rest) = depth(rest)?;
    let [b']', rest @ ..] = rest else { return Err(Error::Unbalanced) };
    Ok((levels + 1, rest))
}

fn main() {
    for (levels, stack) in [(1000, 256 << 10), (1_000_000, 256 << 10), (1000, 64 << 20)] {
        let input = [vec![b'['; levels], vec![b']'; levels]].concat();
        let parse = move || depth(&input).map(|(levels, _)| levels);
        let parsed = thread::Builder::new().stack_size(stack).spawn(parse).unwrap().join().unwrap();
        println!("{levels} levels on {} KiB of stack: {parsed:?}", stack >> 10);
        assert_eq!(parsed.is_ok(), levels == 1000);
    }
    assert!(matches!(depth(b"[["), Err(Error::Unbalanced)));
}
