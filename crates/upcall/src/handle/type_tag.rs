//! Type tags: the type of the value behind a number, compared before each use.

use std::any::{TypeId, type_name};
use std::marker::PhantomData;
use std::mem::transmute;
use std::ptr;

/// A type, without its lifetimes. The fields are functions because a `TypeId` is not yet available
/// as a constant.
pub(super) struct TypeTag {
    id: fn() -> TypeId,
    name: fn() -> &'static str,
}

struct Of<T>(PhantomData<T>);

impl<T> Of<T> {
    const TAG: &'static TypeTag = &TypeTag { id: id_of::<T>, name: type_name::<T> };
}

impl TypeTag {
    #[inline(always)]
    pub fn of<T>() -> &'static Self {
        Of::<T>::TAG
    }

    /// Whether both tags name the same type. One type may have several constants, one for each
    /// separately compiled part of the program.
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        ptr::eq(self, other) || (self.id)() == (other.id)()
    }

    pub fn name(&self) -> &'static str {
        (self.name)()
    }
}

/// The `TypeId` of `T` with all its lifetimes replaced by `'static`, so borrowing closures have one
/// too.
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
    // SAFETY: the transmute changes only a lifetime, of a reference to a value without fields.
    // Neither its vtable nor a `TypeId` depends on lifetimes.
    unsafe { transmute::<&dyn Id, &'static (dyn Id + 'static)>(phantom) }.id()
}
