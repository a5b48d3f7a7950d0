//! Loom models of a slot's protocol.
//!
//! loom runs each model in every order of the threads' steps allowed by the memory model;
//! `ci/loom.sh` runs loom.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::HandleError;
use super::number::Number;
use super::slot::{Share, Slot};
use super::type_tag::TypeTag;

/// A value watched by loom: it reports an access by one thread during a change by another.
type Value = UnsafeCell<usize>;

/// A slot with a value, and a count of the values freed so far.
struct Table {
    slot: Slot,
    drops: AtomicUsize,
}

impl Table {
    fn new() -> (Arc<Self>, Number) {
        let table = Self { slot: Slot::new(), drops: AtomicUsize::new(0) };
        let number = table.publish(7);
        (Arc::new(table), number)
    }

    fn publish(&self, value: usize) -> Number {
        let value = Box::into_raw(Box::new(Value::new(value)));
        let generation = self.slot.publish(TypeTag::of::<Value>(), value.cast());
        Number::new(0, generation)
    }

    fn value(&self) -> *mut Value {
        self.slot.value().cast()
    }

    /// Reads the value as `table::with` does.
    fn read(&self, number: Number) -> Result<usize, HandleError> {
        self.slot.enter(number, TypeTag::of::<Value>(), Share::ONE)?;
        // SAFETY: `enter` succeeded, so the value stays until `leave`; loom checks this.
        let read = unsafe { (*self.value()).with(|value| *value) };
        self.leave(Share::ONE);
        Ok(read)
    }

    /// Changes the value as `table::with_mut` does.
    fn add(&self, number: Number) -> Result<(), HandleError> {
        self.slot.enter(number, TypeTag::of::<Value>(), Share::ALL)?;
        // SAFETY: `enter` succeeded with `Share::ALL`, so the value stays until `leave` and nobody
        // else is inside; loom checks this.
        unsafe { (*self.value()).with_mut(|value| *value += 1) };
        self.leave(Share::ALL);
        Ok(())
    }

    fn leave(&self, share: Share) {
        if self.slot.leave(share) {
            self.free();
        }
    }

    fn remove(&self, number: Number) -> Result<(), HandleError> {
        if self.slot.remove(number, TypeTag::of::<Value>())? {
            self.free();
        }
        Ok(())
    }

    fn free(&self) {
        // SAFETY: `leave` or `remove` returned true, or `take` succeeded, so the value belongs to
        // the caller alone; loom checks this.
        unsafe {
            let value = Box::from_raw(self.value());
            value.with_mut(|value| *value = 0);
        }
        self.drops.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_value_removed_while_others_use_it_is_freed_once_and_last() {
    loom::model(|| {
        let (table, number) = Table::new();
        let its = table.clone();
        let reader = thread::spawn(move || its.read(number));
        let its = table.clone();
        let remover = thread::spawn(move || its.remove(number));
        let removed = table.remove(number);
        let read = reader.join().unwrap();
        assert!(matches!(read, Ok(7) | Err(HandleError::Freed)), "{read:?}");
        assert_ne!(removed, remover.join().unwrap(), "one of two removed it");
        assert_eq!(table.drops.load(Relaxed), 1);
        assert_eq!(table.read(number), Err(HandleError::Freed));
    });
}

#[test]
fn a_value_used_alone_is_shared_with_nobody() {
    loom::model(|| {
        let (table, number) = Table::new();
        let its = table.clone();
        let other = thread::spawn(move || its.add(number).is_ok());
        let read = table.read(number);
        let added = table.add(number).is_ok();
        let sum = usize::from(other.join().unwrap()) + usize::from(added);
        assert!(matches!(read, Ok(7 | 8) | Err(HandleError::InUse)), "{read:?}");
        assert_eq!(table.read(number), Ok(7 + sum));
        table.remove(number).unwrap();
    });
}

#[test]
fn a_number_does_not_lead_to_the_next_value_of_its_slot() {
    loom::model(|| {
        let (table, number) = Table::new();
        let its = table.clone();
        let other = thread::spawn(move || its.read(number));
        // The thread that frees the value owns the slot until it publishes again.
        let next = match table.slot.take(number, TypeTag::of::<Value>()) {
            Ok(()) => {
                table.free();
                table.publish(8)
            }
            Err(error) => {
                assert_eq!(error, HandleError::InUse);
                number
            }
        };
        let read = other.join().unwrap();
        assert!(matches!(read, Ok(7) | Err(HandleError::Freed)), "{read:?}");
        assert_eq!(table.read(next), Ok(if next.value == number.value { 7 } else { 8 }));
        table.remove(next).unwrap();
    });
}

#[test]
fn a_number_is_not_taken_for_one_of_the_next_value_of_another_kind() {
    loom::model(|| {
        let (table, number) = Table::new();
        let its = table.clone();
        let other = thread::spawn(move || its.read(number));
        if table.remove(number).is_ok() && table.drops.load(Relaxed) == 1 {
            let generation = table.slot.publish(TypeTag::of::<u8>(), std::ptr::null_mut());
            assert_eq!(
                table
                    .read(Number::new(0, generation))
                    .map_err(|error| matches!(error, HandleError::WrongType { .. })),
                Err(true)
            );
        }
        let read = other.join().unwrap();
        assert!(matches!(read, Ok(7) | Err(HandleError::Freed)), "{read:?}");
    });
}
