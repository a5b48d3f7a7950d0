//! The table of the values behind C's numbers.
//!
//! Slots are in chunks, each twice as large as the one before. Chunks are never freed. So a lookup
//! takes no lock, and dereferences nothing that C passed. A list under a lock has the vacant slots,
//! and a word one more. So a thread that makes and frees one handle after the other takes no lock.
//! Nothing here is thread-local or destroyed, so all of it works in destructors of keys and at
//! exit.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicUsize};

use super::HandleError;
use super::number::{INDICES, Number};
use super::slot::{Share, Slot};
use super::type_tag::TypeTag;
use crate::drop_guards::drop_ignoring_panics;
use crate::sync::{Lock, Word};

/// The number of slots in the first chunk.
const FIRST: usize = 64;
/// The number of chunks. Together they have `INDICES - FIRST` slots.
const CHUNKS: usize = (INDICES / FIRST).ilog2() as usize;

static SLOTS: [AtomicPtr<Slot>; CHUNKS] = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];

struct Vacant {
    /// The first vacant slot, counted from 1; 0 for none.
    first: usize,
    /// The number of slots used so far.
    used: usize,
}

static VACANT: Lock<Vacant> = Lock::new(Vacant { first: 0, used: 0 });

/// A vacant slot, counted from 1; 0 for none. It belongs to whoever exchanges it for 0.
static ONE_VACANT: AtomicUsize = AtomicUsize::new(0);

/// The lock of the list of vacant slots, for forks.
pub(crate) fn lock_word() -> &'static Word {
    VACANT.word()
}

/// The chunk of an index, and the position in it.
#[inline(always)]
fn place(index: usize) -> (usize, usize) {
    let chunk = (index + FIRST).ilog2() - FIRST.ilog2();
    (chunk as usize, index + FIRST - (FIRST << chunk))
}

/// The index of the slot to be used after `count` others.
///
/// Two slots share a cache line. A chunk's first slots to be used are the even ones, then come the
/// odd ones. So slots used one after the other are on different lines, and threads with different
/// values rarely disturb each other.
fn apart(count: usize) -> usize {
    let (chunk, at) = place(count);
    let half = FIRST << chunk >> 1;
    let apart = if at < half { 2 * at } else { 2 * (at - half) + 1 };
    count - at + apart
}

#[inline(always)]
fn slot(index: usize) -> Option<&'static Slot> {
    let (chunk, at) = place(index);
    let chunk = NonNull::new(SLOTS.get(chunk)?.load(Acquire))?;
    // SAFETY: a chunk has `FIRST << chunk` slots and is never freed; `at` is below this number.
    Some(unsafe { chunk.add(at).as_ref() })
}

/// Takes a vacant slot, allocating a chunk if there is none.
fn vacant() -> (usize, &'static Slot) {
    loop {
        let chunk = match try_vacant() {
            Ok(found) => return found,
            Err(chunk) => chunk,
        };
        // Without the lock: an allocator may call back into this table.
        let (size, new) = (FIRST << chunk, make(FIRST << chunk));
        if SLOTS[chunk].compare_exchange(ptr::null_mut(), new.as_ptr(), AcqRel, Acquire).is_err() {
            // SAFETY: `make` allocated the chunk with the layout that `layout` returns again here.
            // Another thread stored its own chunk first, so nobody else has this one. Slots have no
            // destructor.
            unsafe { std::alloc::dealloc(new.as_ptr().cast(), layout(size)) };
        }
    }
}

/// Takes a vacant slot. If there is none, returns the number of the missing chunk.
fn try_vacant() -> Result<(usize, &'static Slot), usize> {
    let used = |index| slot(index).expect("upcall: a vacant slot has been used");
    let one = if ONE_VACANT.load(Relaxed) == 0 { 0 } else { ONE_VACANT.swap(0, Acquire) };
    if let Some(index) = one.checked_sub(1) {
        return Ok((index, used(index)));
    }
    let mut vacant = VACANT.lock();
    if let Some(index) = vacant.first.checked_sub(1) {
        let slot = used(index);
        vacant.first = slot.next.load(Relaxed);
        return Ok((index, slot));
    }
    let index = apart(vacant.used);
    let (chunk, _) = place(index);
    // The index beyond the last chunk is also the number of slots.
    if chunk >= CHUNKS {
        // A panic hook may use handles.
        drop(vacant);
        panic!("{index} handles have not been freed, which is as many as there can be");
    }
    let slot = slot(index).ok_or(chunk)?;
    vacant.used += 1;
    Ok((index, slot))
}

fn layout(slots: usize) -> Layout {
    Layout::array::<Slot>(slots).expect("a chunk is smaller than what can be addressed")
}

fn make(slots: usize) -> NonNull<Slot> {
    let layout = layout(slots);
    // SAFETY: the layout's size is not zero: a chunk has at least `FIRST` slots.
    let Some(chunk) = NonNull::new(unsafe { std::alloc::alloc(layout) }) else { handle_alloc_error(layout) };
    let chunk = chunk.cast::<Slot>();
    for at in 0..slots {
        // SAFETY: `at` is below `slots`, so this is inside the allocation, and `layout` aligned it
        // for a `Slot`.
        unsafe { chunk.add(at).write(Slot::new()) };
    }
    chunk
}

/// Puts an emptied slot back into the list of vacant ones.
///
/// If the slot has no generations any more, it is retired instead, so no number comes twice.
fn vacate(index: usize, slot: &'static Slot) {
    if slot.is_used_up() {
        return;
    }
    let is_taken =
        ONE_VACANT.load(Relaxed) != 0 || ONE_VACANT.compare_exchange(0, index + 1, Release, Relaxed).is_err();
    if is_taken {
        let mut vacant = VACANT.lock();
        slot.next.store(vacant.first, Relaxed);
        vacant.first = index + 1;
    }
}

/// An owner of a value, as one pointer in a slot.
///
/// # Safety
/// The pointer of `into_raw` points to the value, and `from_raw` gives back its owner. No two kinds
/// of owner have the same `Named`.
pub(crate) unsafe trait Owner {
    type Value;
    /// The type in a slot's tag, and in messages.
    type Named;
    fn into_raw(self) -> NonNull<Self::Value>;
    /// # Safety
    /// `raw` must come from `into_raw`, and be converted back once.
    unsafe fn from_raw(raw: NonNull<Self::Value>) -> Self;
}

// SAFETY: a box leads to its value. A box of a `T` is the only owner named `T`: the other owners
// are named after types without values.
unsafe impl<T> Owner for Box<T> {
    type Value = T;
    type Named = T;

    fn into_raw(self) -> NonNull<T> {
        NonNull::from(Box::leak(self))
    }

    unsafe fn from_raw(raw: NonNull<T>) -> Self {
        // SAFETY: the caller guarantees that the pointer comes from a box, and is converted once.
        unsafe { Box::from_raw(raw.as_ptr()) }
    }
}

/// Keeps a value for C and returns its number.
pub(crate) fn insert<T>(value: T) -> usize {
    insert_owner(|_| Box::new(value))
}

/// Keeps an owner for C, made with its number. Returns the number.
pub(crate) fn insert_owner<O: Owner>(make: impl FnOnce(usize) -> O) -> usize {
    let (index, slot) = vacant();
    let number = Number::new(index, slot.next_generation()).value;
    slot.publish(TypeTag::of::<O::Named>(), make(number).into_raw().as_ptr().cast());
    number
}

/// The slot behind a number.
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

/// The pointer in a slot.
///
/// # Safety
/// The slot has an owner of this kind, and the caller is inside or owns it.
unsafe fn pointer<O: Owner>(slot: &Slot) -> NonNull<O::Value> {
    // SAFETY: the pointer came from `into_raw` in `insert_owner`, so it is not null.
    unsafe { NonNull::new_unchecked(slot.value().cast()) }
}

/// Takes the owner out of its slot and vacates the slot.
///
/// # Safety
/// The slot's owner belongs to the caller alone, and is of this kind.
unsafe fn owner<O: Owner>(index: usize, slot: &'static Slot) -> O {
    // SAFETY: the caller guarantees the kind, and that nobody else converts the pointer.
    let owner = unsafe { O::from_raw(pointer::<O>(slot)) };
    vacate(index, slot);
    owner
}

/// A user inside a slot with an owner of this kind. Leaves the slot when dropped.
struct Inside<O: Owner> {
    found: Found,
    share: Share,
    value: NonNull<O::Value>,
}

impl<O: Owner> Inside<O> {
    #[inline(always)]
    fn enter(number: usize, share: Share) -> Result<Self, HandleError> {
        let found = Found::by(number)?;
        found.slot.enter(found.number, TypeTag::of::<O::Named>(), share)?;
        // SAFETY: `enter` has compared the kind, and this user is inside.
        let value = unsafe { pointer::<O>(found.slot) };
        Ok(Self { found, share, value })
    }
}

impl<O: Owner> Drop for Inside<O> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.found.slot.leave(self.share) {
            drop_removed::<O>(self.found.number.index, self.found.slot);
        }
    }
}

/// Drops a removed value, as its last user.
#[cold]
#[inline(never)]
fn drop_removed<O: Owner>(index: usize, slot: &'static Slot) {
    // SAFETY: `leave` returned true, so the owner belongs to this thread alone. It is of this kind:
    // `enter` compared it.
    drop_ignoring_panics(|| drop(unsafe { owner::<O>(index, slot) }));
}

/// Calls `f` with the value, shared with other users.
///
/// # Safety
/// `f`'s use of the value must be sound on this thread, at the same time as other shared uses.
#[inline(always)]
pub(crate) unsafe fn with<T, R>(number: usize, f: impl FnOnce(&T) -> R) -> Result<R, HandleError> {
    // SAFETY: the value stays during the call, and all other users have shared references too.
    with_owner::<Box<T>, R>(number, |value| f(unsafe { value.as_ref() }))
}

/// Calls `f` with a pointer to the value. The value stays during the call, shared with other users.
#[inline(always)]
pub(crate) fn with_owner<O: Owner, R>(
    number: usize,
    f: impl FnOnce(NonNull<O::Value>) -> R,
) -> Result<R, HandleError> {
    let inside = Inside::<O>::enter(number, Share::ONE)?;
    Ok(f(inside.value))
}

/// Calls `f` with the value exclusively.
///
/// # Safety
/// `f`'s use of the value must be sound on this thread.
#[inline(always)]
pub(crate) unsafe fn with_mut<T, R>(number: usize, f: impl FnOnce(&mut T) -> R) -> Result<R, HandleError> {
    let mut inside = Inside::<Box<T>>::enter(number, Share::ALL)?;
    // SAFETY: the value stays until `inside` leaves, and nobody else is inside.
    Ok(f(unsafe { inside.value.as_mut() }))
}

/// Takes the value out, unless somebody is inside.
///
/// # Safety
/// The value must be allowed to move to this thread.
pub(crate) unsafe fn take<T>(number: usize) -> Result<T, HandleError> {
    // SAFETY: the caller allows the move.
    Ok(*unsafe { take_owner::<Box<T>>(number) }?)
}

/// Takes the owner out, unless somebody is inside.
///
/// # Safety
/// The owner must be allowed to move to this thread.
pub(crate) unsafe fn take_owner<O: Owner>(number: usize) -> Result<O, HandleError> {
    let found = Found::by(number)?;
    found.slot.take(found.number, TypeTag::of::<O::Named>())?;
    // SAFETY: `take` succeeded, so the owner belongs to this call alone. `take` also compared its
    // kind.
    Ok(unsafe { owner(found.number.index, found.slot) })
}

/// Drops the value, here or in its last user. The number is stale at once.
///
/// # Safety
/// The value must be allowed to be dropped on this thread, and on the threads of all its users.
pub(crate) unsafe fn remove<T>(number: usize) -> Result<(), HandleError> {
    // SAFETY: the caller allows the drop.
    unsafe { remove_owner::<Box<T>>(number) }
}

/// Drops the owner, here or in the last user. The number is stale at once.
///
/// # Safety
/// The owner must be allowed to be dropped on this thread, and on the threads of all users.
pub(crate) unsafe fn remove_owner<O: Owner>(number: usize) -> Result<(), HandleError> {
    let found = Found::by(number)?;
    if found.slot.remove(found.number, TypeTag::of::<O::Named>())? {
        // SAFETY: `remove` returned true, so the owner belongs to this call alone. `remove` also
        // compared its kind.
        drop(unsafe { owner::<O>(found.number.index, found.slot) });
    }
    Ok(())
}
