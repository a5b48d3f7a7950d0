//! Events for the host's loop are event objects.

use std::os::windows::io::BorrowedHandle;
#[cfg(feature = "runtime")]
use std::os::windows::io::{AsRawHandle, RawHandle};

pub type EventRef<'a> = BorrowedHandle<'a>;
#[cfg(feature = "runtime")]
pub type RawEvent = RawHandle;

#[cfg(feature = "runtime")]
pub fn raw(event: EventRef<'_>) -> RawEvent {
    event.as_raw_handle()
}

/// Keeps items of systems with file descriptors: nothing here.
macro_rules! with_descriptors {
    ($($items:tt)*) => {};
}

/// Keeps items of systems with event objects.
macro_rules! with_event_objects {
    ($($items:tt)*) => { $($items)* };
}

/// Adds the functions with event objects to `c_api!`: first those of every library, then those of
/// libraries with fibers.
#[doc(hidden)]
#[macro_export]
macro_rules! __c_api_of_system {
    ($upcall:tt { $($functions:tt)* } { $($with_fibers:tt)* } $($arguments:tt)*) => {
        $crate::__private::c_api! {
            $upcall
            {
                $($functions)*
                fn task_event(task: *mut $crate::Task) -> *mut ::core::ffi::c_void;
            }
            {
                $($with_fibers)*
                fn local_event() -> *mut ::core::ffi::c_void;
                fn coroutines_event() -> *mut ::core::ffi::c_void;
            }
            $($arguments)*
        }
    };
}

pub(crate) use {with_descriptors, with_event_objects};
