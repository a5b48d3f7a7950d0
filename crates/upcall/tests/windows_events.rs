//! The event objects of Windows, in the loop of a host.
#![cfg(windows)]

mod common;

use std::cell::Cell;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use common::{FIBERS, time_limit};
use upcall::wait;
use windows_sys::Win32::Foundation::{WAIT_OBJECT_0, WAIT_TIMEOUT};
use windows_sys::Win32::System::Threading::{CreateEventW, SetEvent, WaitForMultipleObjects};

/// An event that one wait resets.
fn event() -> OwnedHandle {
    // SAFETY: null pointers stand for the default security and no name. The handle is new, so
    // nobody else owns it.
    unsafe {
        let event = CreateEventW(ptr::null(), 0, 0, ptr::null());
        assert!(!event.is_null());
        OwnedHandle::from_raw_handle(event)
    }
}

#[test]
fn a_loop_waits_for_several_objects() {
    const MESSAGES: usize = 1000;
    let _limit = time_limit("a_loop_waits_for_several_objects");
    let runtime = FIBERS.local_runtime().unwrap();
    let of_host = event();
    // The earlier object counts if both are signalled.
    let both = [of_host.as_raw_handle(), runtime.event_handle().as_raw_handle()];
    let signalled = |milliseconds| {
        // SAFETY: the pointer and the count describe two events.
        let result = unsafe { WaitForMultipleObjects(2, both.as_ptr(), 0, milliseconds) };
        if result == WAIT_TIMEOUT { None } else { Some((result - WAIT_OBJECT_0) as usize) }
    };
    assert_eq!(signalled(0), None);
    let (sender, receiver) = async_channel::bounded(1);
    let received = Rc::new(Cell::new(0));
    let count = received.clone();
    let fiber = runtime.spawn_local(move || {
        while wait(receiver.recv()).is_ok() {
            count.set(count.get() + 1);
        }
    });
    assert_eq!(signalled(0), Some(1), "a fiber can begin");
    assert_eq!(runtime.run_ready(usize::MAX), 1);
    assert_eq!(signalled(20), None, "it waits");
    let of_thread = of_host.try_clone().unwrap();
    let other = thread::spawn(move || {
        for _ in 0..MESSAGES {
            sender.send_blocking(()).unwrap();
        }
        thread::sleep(Duration::from_millis(20));
        // SAFETY: the handle is an event's.
        assert_ne!(unsafe { SetEvent(of_thread.as_raw_handle()) }, 0);
    });
    let mut of_host = 0;
    while !fiber.is_finished() || of_host == 0 {
        match signalled(30_000).expect("one of them") {
            0 => of_host += 1,
            _ => _ = runtime.run_ready(usize::MAX),
        }
    }
    assert_eq!((received.get(), of_host), (MESSAGES, 1));
    assert_eq!(signalled(0), None);
    other.join().unwrap();
}
