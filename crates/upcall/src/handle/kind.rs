//! What a value behind a number is: compared before anything is done with it.

use std::any::{TypeId, type_name};
use std::marker::PhantomData;
use std::mem::transmute;
use std::ptr;

/// A type, without its lifetimes. Functions, since a `TypeId` is no constant yet.
pub(super) struct Kind {
    id: fn() -> TypeId,
    name: fn() -> &'static str,
}

struct Of<T>(PhantomData<T>);

impl<T> Of<T> {
    const KIND: &'static Kind = &Kind { id: id_of::<T>, name: type_name::<T> };
}

impl Kind {
    #[inline(always)]
    pub fn of<T>() -> &'static Self {
        Of::<T>::KIND
    }

    /// One type may have several constants, one for each part of the program that was compiled by itself.
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        ptr::eq(self, other) || (self.id)() == (other.id)()
    }

    pub fn name(&self) -> &'static str {
        (self.name)()
    }
}

/// The id that `T` has with `'static` in the place of its lifetimes: closures that borrow have one too.
#[inline(always)]
fn id_of<T>() -> TypeId {
    trait Id {
        fn id(&self) -> TypeId
        where
            Self: 'static;
    }
    impl<T> Id for PhantomData<T> {
        fn id(&self) -> TypeId
        where
            Self: 'static,
        {
            TypeId::of::<T>()
        }
    }
    let phantom: &dyn Id = &PhantomData::<T>;
    // SAFETY: only a lifetime changes, of something without fields; neither its vtable nor an id knows of lifetimes.
    unsafe { transmute::<&dyn Id, &'static (dyn Id + 'static)>(phantom) }.id()
}
