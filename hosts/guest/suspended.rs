//! Waits on coroutines of a host with hooks: in places where waits block, and with data that other
//! threads find on the stack.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::ptr;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use upcall::{enter, wait, wait_interruptible};

use crate::waiting::{GuestChannel, receive};
use crate::{FIBERS, or_failed};

/// Receives a number inside an initialiser, in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive_in_initialiser(channel: &GuestChannel) -> c_int {
    let cell = OnceLock::new();
    or_failed(enter(|| *cell.get_or_init(|| receive(channel))))
}

/// Receives a number in an upcall. Returns -2 if the host ends the wait.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive_interruptible(channel: &GuestChannel) -> c_int {
    or_failed(enter(|| wait_interruptible(channel.receiver.recv()).map_or(-2, Result::unwrap)))
}

/// Receives a number in an upcall, and panics.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive_and_panic(channel: &GuestChannel) -> c_int {
    or_failed(enter(|| panic!("received {}", receive(channel))))
}

/// Receives a number in a destructor while a panic unwinds, in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_receive_while_panicking(channel: &GuestChannel) -> c_int {
    struct Receives<'a>(&'a GuestChannel);
    impl Drop for Receives<'_> {
        fn drop(&mut self) {
            assert_eq!(receive(self.0), 5);
        }
    }
    or_failed(enter(|| {
        let _receives = Receives(channel);
        panic!("on its way")
    }))
}

static SCOPES_ENDED: AtomicI32 = AtomicI32::new(0);

/// Receives from `own` in a scope, whose one fiber receives from `fibers`; in an upcall.
#[unsafe(no_mangle)]
pub extern "C" fn guest_scope_receives(own: &GuestChannel, fibers: &GuestChannel) -> c_int {
    or_failed(enter(|| {
        FIBERS.scope(|scope| {
            scope.spawn(|| {
                receive(fibers);
                SCOPES_ENDED.fetch_add(1, SeqCst);
            });
            receive(own)
        })
    }))
}

/// Returns the number of ended fibers of `guest_scope_receives`.
#[unsafe(no_mangle)]
pub extern "C" fn guest_scopes_ended() -> c_int {
    SCOPES_ENDED.load(SeqCst)
}

/// Returns the number of the calling thread's suspended coroutines, from the snapshot.
#[unsafe(no_mangle)]
pub extern "C" fn guest_suspended_coroutines() -> c_int {
    let threads = upcall::snapshot().threads;
    threads.iter().find(|thread| thread.current).map_or(0, |thread| thread.coroutines.len() as c_int)
}

/// A waiting call's place in the list of a bell. It is on the stack of the call.
pub(crate) struct Place {
    next: *mut Place,
    waker: Option<Waker>,
    is_listed: bool,
    is_rung: bool,
}

/// Waiting calls, in a list of places on their stacks.
pub struct GuestBell(pub(crate) Mutex<*mut Place>);

// SAFETY: the lock guards the list and its places.
unsafe impl Sync for GuestBell {}

/// Makes a bell without waiting calls.
#[unsafe(no_mangle)]
pub extern "C" fn guest_bell_new() -> Box<GuestBell> {
    Box::new(GuestBell(Mutex::new(ptr::null_mut())))
}

/// Rings: every waiting call goes on. Returns their number. Writes to their stacks.
#[unsafe(no_mangle)]
pub extern "C" fn guest_bell_ring(bell: &GuestBell) -> c_int {
    ring(bell, Duration::ZERO)
}

/// Rings like `guest_bell_ring`, with a pause before the calls of wakers. A fork during the pause
/// loses these calls in the child.
#[unsafe(no_mangle)]
pub extern "C" fn guest_bell_ring_slowly(bell: &GuestBell) -> c_int {
    ring(bell, Duration::from_millis(1))
}

fn ring(bell: &GuestBell, pause: Duration) -> c_int {
    let mut wakers = Vec::new();
    let mut first = bell.0.lock().unwrap();
    // SAFETY: the places in the list are valid, since each leaves the list at its drop.
    while let Some(place) = unsafe { first.as_mut() } {
        *first = place.next;
        (place.is_listed, place.is_rung) = (false, true);
        wakers.extend(place.waker.take());
    }
    drop(first);
    let rung = wakers.len();
    if !pause.is_zero() {
        std::thread::sleep(pause);
    }
    wakers.into_iter().for_each(Waker::wake);
    rung as c_int
}

/// The wait of one call.
struct Listening<'a> {
    bell: &'a GuestBell,
    place: UnsafeCell<Place>,
    _pinned: PhantomPinned,
}

impl Future for Listening<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut first = self.bell.0.lock().unwrap();
        // SAFETY: the lock guards all places.
        let place = unsafe { &mut *self.place.get() };
        if place.is_rung {
            return Poll::Ready(());
        }
        place.waker = Some(context.waker().clone());
        if !place.is_listed {
            (place.next, place.is_listed) = (*first, true);
            *first = place;
        }
        Poll::Pending
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let mut first = self.bell.0.lock().unwrap();
        let mut at = &raw mut *first;
        // SAFETY: the lock guards the list, and its places are valid.
        unsafe {
            while !(*at).is_null() {
                if *at == self.place.get() {
                    *at = (**at).next;
                    return;
                }
                at = &raw mut (**at).next;
            }
        }
    }
}

/// Waits until the bell rings, in an upcall. Returns 0.
#[unsafe(no_mangle)]
pub extern "C" fn guest_bell_wait(bell: &GuestBell) -> c_int {
    let place = Place { next: ptr::null_mut(), waker: None, is_listed: false, is_rung: false };
    let listening = Listening { bell, place: UnsafeCell::new(place), _pinned: PhantomPinned };
    or_failed(enter(|| {
        wait(listening);
        0
    }))
}
