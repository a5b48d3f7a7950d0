//! The table of the values that C has numbers for.
//!
//! Slots are in chunks, each twice as large as the one before, which are never freed: a lookup takes no lock, and looks at nothing that C gave but its bits.
//! The vacant slots are a list under a lock. Nothing here is thread-local or destroyed, so all of it works in destructors of keys and at exit.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::HandleError;
use super::kind::Kind;
use super::number::{INDICES, Number};
use super::slot::{Share, Slot};
use crate::quiet::quietly;
use crate::sync::lock;

/// Slots in the first chunk.
const FIRST: usize = 64;
/// As many indices as there are, but for those below `FIRST`.
const CHUNKS: usize = (INDICES / FIRST).ilog2() as usize;

static SLOTS: [AtomicPtr<Slot>; CHUNKS] = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];

struct Vacant {
    /// The first of the list, counted from 1; 0 for none.
    first: usize,
    /// Slots that have been used.
    used: usize,
}

static VACANT: Mutex<Vacant> = Mutex::new(Vacant { first: 0, used: 0 });

/// Holds the list of vacant slots as it is.
pub(crate) fn hold_lock() -> impl Sized + 'static {
    lock(&VACANT)
}

/// Which chunk an index is in, and where.
#[inline(always)]
fn place(index: usize) -> (usize, usize) {
    let chunk = (index + FIRST).ilog2() - FIRST.ilog2();
    (chunk as usize, index + FIRST - (FIRST << chunk))
}

#[inline(always)]
fn slot(index: usize) -> Option<&'static Slot> {
    let (chunk, at) = place(index);
    let chunk = NonNull::new(SLOTS.get(chunk)?.load(Acquire))?;
    // SAFETY: the chunk has `FIRST << chunk` slots, which are never freed; `at` is below that.
    Some(unsafe { chunk.add(at).as_ref() })
}

/// Takes a vacant slot.
fn vacant() -> (usize, &'static Slot) {
    let mut vacant = lock(&VACANT);
    if let Some(index) = vacant.first.checked_sub(1) {
        let slot = slot(index).expect("a vacant slot has been used");
        vacant.first = slot.next.load(Relaxed);
        return (index, slot);
    }
    let index = vacant.used;
    let (chunk, at) = place(index);
    assert!(chunk < CHUNKS, "{index} handles have not been freed, which is as many as there can be");
    if at == 0 {
        SLOTS[chunk].store(make(FIRST << chunk).as_ptr(), Release);
    }
    vacant.used += 1;
    (index, slot(index).expect("its chunk is there"))
}

fn make(slots: usize) -> NonNull<Slot> {
    let layout = Layout::array::<Slot>(slots).expect("a chunk is smaller than what can be addressed");
    // SAFETY: the layout has a size.
    let Some(chunk) = NonNull::new(unsafe { std::alloc::alloc(layout) }) else { handle_alloc_error(layout) };
    let chunk = chunk.cast::<Slot>();
    for at in 0..slots {
        // SAFETY: inside what was allocated, and aligned.
        unsafe { chunk.add(at).write(Slot::new()) };
    }
    chunk
}

/// Gives a slot back whose value has been taken out. One without generations left stays as it is, so that no number comes twice.
fn vacate(index: usize, slot: &'static Slot) {
    if !slot.is_used_up() {
        let mut vacant = lock(&VACANT);
        slot.next.store(vacant.first, Relaxed);
        vacant.first = index + 1;
    }
}

/// Keeps a value for C, which gets a number for it.
pub(crate) fn insert<T>(value: T) -> usize {
    let value = Box::new(value);
    let (index, slot) = vacant();
    let generation = slot.publish(Kind::of::<T>(), Box::into_raw(value).cast());
    Number::new(index, generation).value
}

/// A slot that a number leads to.
struct Found {
    number: Number,
    slot: &'static Slot,
}

impl Found {
    #[inline(always)]
    fn by(number: usize) -> Result<Self, HandleError> {
        let number = Number::of(number)?;
        let slot = slot(number.index).ok_or(HandleError::Foreign { value: number.value })?;
        Ok(Self { number, slot })
    }
}

/// Empties the slot.
///
/// # Safety
/// Its value is the caller's, and a `T`.
unsafe fn value<T>(index: usize, slot: &'static Slot) -> Box<T> {
    // SAFETY: `insert` made it of a box, and the caller alone has it.
    let value = unsafe { Box::from_raw(slot.value().cast()) };
    vacate(index, slot);
    value
}

/// Somebody inside a slot, where a `T` is.
struct Inside<T> {
    found: Found,
    share: Share,
    value: NonNull<T>,
}

impl<T> Inside<T> {
    #[inline(always)]
    fn enter(number: usize, share: Share) -> Result<Self, HandleError> {
        let found = Found::by(number)?;
        found.slot.enter(found.number, Kind::of::<T>(), share)?;
        // SAFETY: what `insert` put there is a box's.
        let value = unsafe { NonNull::new_unchecked(found.slot.value().cast()) };
        Ok(Self { found, share, value })
    }
}

impl<T> Drop for Inside<T> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.found.slot.leave(self.share) {
            drop_removed::<T>(self.found.number.index, self.found.slot);
        }
    }
}

/// Drops a value that was removed, where the last left who was inside.
#[cold]
#[inline(never)]
fn drop_removed<T>(index: usize, slot: &'static Slot) {
    // SAFETY: the value is a `T`, and this thread's now.
    quietly(|| drop(unsafe { value::<T>(index, slot) }));
}

/// Shows the value to `f`, and to others at the same time.
///
/// # Safety
/// What `f` does with it may be done on this thread, beside others that do so.
#[inline(always)]
pub(crate) unsafe fn with<T, R>(number: usize, f: impl FnOnce(&T) -> R) -> Result<R, HandleError> {
    let inside = Inside::<T>::enter(number, Share::ONE)?;
    // SAFETY: the value stays until `inside` leaves, and others inside have shared references too.
    Ok(f(unsafe { inside.value.as_ref() }))
}

/// Gives the value to `f` alone.
///
/// # Safety
/// What `f` does with it may be done on this thread.
#[inline(always)]
pub(crate) unsafe fn with_mut<T, R>(number: usize, f: impl FnOnce(&mut T) -> R) -> Result<R, HandleError> {
    let mut inside = Inside::<T>::enter(number, Share::ALL)?;
    // SAFETY: the value stays until `inside` leaves, and nobody else is inside.
    Ok(f(unsafe { inside.value.as_mut() }))
}

/// Takes the value out, unless somebody is inside.
///
/// # Safety
/// It may come to this thread.
pub(crate) unsafe fn take<T>(number: usize) -> Result<T, HandleError> {
    let found = Found::by(number)?;
    found.slot.take(found.number, Kind::of::<T>())?;
    // SAFETY: it was taken.
    Ok(*unsafe { value(found.number.index, found.slot) })
}

/// Drops the value: here, or where the last leaves who is inside. The number is stale at once.
///
/// # Safety
/// It may be dropped on this thread, and on those of all who are inside.
pub(crate) unsafe fn remove<T>(number: usize) -> Result<(), HandleError> {
    let found = Found::by(number)?;
    if found.slot.remove(found.number, Kind::of::<T>())? {
        // SAFETY: it was removed, and nobody is inside.
        drop(unsafe { value::<T>(found.number.index, found.slot) });
    }
    Ok(())
}
