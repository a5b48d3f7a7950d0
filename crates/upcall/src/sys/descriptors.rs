//! Events for the host's loop are file descriptors.

use std::os::fd::BorrowedFd;
#[cfg(feature = "runtime")]
use std::os::fd::{AsRawFd, RawFd};

pub type EventRef<'a> = BorrowedFd<'a>;
#[cfg(feature = "runtime")]
pub type RawEvent = RawFd;

#[cfg(feature = "runtime")]
pub fn raw(event: EventRef<'_>) -> RawEvent {
    event.as_raw_fd()
}

/// Keeps items of systems with file descriptors.
macro_rules! with_descriptors {
    ($($items:tt)*) => { $($items)* };
}

/// Keeps items of systems with event objects: nothing here.
macro_rules! with_event_objects {
    ($($items:tt)*) => {};
}

/// Adds the functions with descriptors to `c_api!`: first those of every library, then those of
/// libraries with fibers.
#[doc(hidden)]
#[macro_export]
macro_rules! __c_api_of_system {
    ($upcall:tt { $($functions:tt)* } { $($with_fibers:tt)* } $($arguments:tt)*) => {
        $crate::__private::c_api! {
            $upcall
            {
                $($functions)*
                fn task_fd(task: *mut $crate::Task) -> ::core::ffi::c_int;
            }
            {
                $($with_fibers)*
                fn local_fd() -> ::core::ffi::c_int;
                fn coroutines_fd() -> ::core::ffi::c_int;
            }
            $($arguments)*
        }
    };
}

pub(crate) use {with_descriptors, with_event_objects};
