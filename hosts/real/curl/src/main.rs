//! libcurl through the crate curl: transfers to and from a server of this process. The callbacks
//! wait for workers' fibers.
//!
//! Usage: `curl-host CASE`, or `curl-host version`.

#[path = "../../expected.rs"]
mod expected;
mod server;
mod transfer;

use std::cell::Cell;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use async_channel::bounded;
use curl::easy::Easy2;
use upcall::{StackChoice, downcall, downcall_on_fiber, enter, entry};

use expected::EXPECTED;
use transfer::{Transfer, is_complete, rewind, transfer};

// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

const LENGTH: usize = 200_000;
const PLACES: [&str; 5] = ["write", "read", "header", "progress", "debug"];

/// Runs one transfer, and checks that it calls every callback.
fn run(server: SocketAddr, call: impl FnOnce(&Easy2<Transfer>)) {
    let easy = transfer(server, LENGTH);
    call(&easy);
    assert!(is_complete(&easy));
    assert!(PLACES.iter().all(|place| easy.get_ref().visits.contains_key(place)));
}

fn by_downcall(easy: &Easy2<Transfer>) {
    downcall(|| easy.perform()).unwrap();
}

fn by_downcall_on_fiber(easy: &Easy2<Transfer>) {
    downcall_on_fiber(|| easy.perform()).unwrap();
}

fn everywhere(server: SocketAddr) {
    run(server, by_downcall);
    enter(|| run(server, by_downcall)).unwrap();
    entry().stack(StackChoice::Pooled).enter(|| run(server, by_downcall)).unwrap();
    thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| enter(|| run(server, by_downcall)).unwrap())))
    });
    let fibers: Vec<_> = (0..10)
        .map(|n| {
            FIBERS.spawn(move || run(server, if n % 2 == 0 { by_downcall } else { by_downcall_on_fiber }))
        })
        .collect();
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
}

/// Runs two transfers in fibers of one thread. Each receives a piece when the other does.
fn turns(server: SocketAddr) {
    let runtime = FIBERS.local_runtime().unwrap();
    let ((to_a, of_a), (to_b, of_b)) = (bounded(1), bounded(1));
    let fibers = [(to_b, of_a), (to_a, of_b)].map(|partner| {
        runtime.spawn_local(move || {
            let mut easy = transfer(server, LENGTH);
            easy.get_mut().partner = Some(partner);
            by_downcall_on_fiber(&easy);
            assert!(is_complete(&easy));
        })
    });
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
}

/// Panics in each callback in turn.
///
/// libcurl gives up the transfer. The panic continues at the call of libcurl, and the handle is as
/// good as before.
fn panics(server: SocketAddr, call: fn(&mut dyn FnMut())) {
    let mut easy = transfer(server, LENGTH);
    for place in PLACES {
        easy.get_mut().panics_at = Some(place);
        let performed = Cell::new(None);
        let perform = || call(&mut || performed.set(Some(easy.perform())));
        let payload = catch_unwind(AssertUnwindSafe(perform)).unwrap_err();
        assert_eq!(*payload.downcast::<String>().unwrap(), format!("{EXPECTED}{place}"));
        let performed = performed.into_inner().expect("libcurl has returned");
        let is_right = match place {
            "write" | "header" => performed.is_err_and(|error| error.is_write_error()),
            "read" | "progress" => performed.is_err_and(|error| error.is_aborted_by_callback()),
            _ => performed.is_ok(),
        };
        assert!(is_right, "{place}");
        rewind(&mut easy);
        call(&mut || easy.perform().unwrap());
        assert!(is_complete(&easy));
        rewind(&mut easy);
    }
}

fn panics_everywhere(server: SocketAddr) {
    panics(server, |f| downcall(f));
    entry().stack(StackChoice::Pooled).enter(|| panics(server, |f| downcall(f))).unwrap();
    FIBERS.spawn(move || panics(server, |f| downcall(f))).join().unwrap();
    FIBERS.spawn(move || panics(server, |f| downcall_on_fiber(f))).join().unwrap();
}

fn main() {
    expected::hide();
    curl::init();
    let server = server::start();
    let case = std::env::args().nth(1).unwrap_or_default();
    match &*case {
        "version" => println!("{}", curl::Version::get().version()),
        "everywhere" => everywhere(server),
        "turns" => turns(server),
        "panics" => panics_everywhere(server),
        _ => panic!("there is no case {case}"),
    }
}
