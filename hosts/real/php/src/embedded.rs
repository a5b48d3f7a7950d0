//! A Rust program that embeds PHP, as FrankenPHP does. PHP calls the program's functions;
//! `embedded.c` is PHP's side of them.
//!
//! Usage: `php-embedded thread|fiber REQUESTS SCRIPT CASE`. It serves requests one after the other.
//! Each request runs the case, on the thread's own stack or in a fiber.

use std::ffi::{CString, c_char, c_int};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use async_channel::{Receiver, Sender};
use php_host::host_open_calls;
use upcall::{JoinHandle, LocalRuntime, downcall, downcall_on_fiber, enter, wait};

// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

/// The stack of a request's fiber, in bytes. PHP's own Fibers have separate stacks.
const STACK: usize = 8 << 20;
/// The status of a request with a panic in Rust.
const PANICKED: c_int = 101;
/// The number of open calls at which a thread looks for calls abandoned by `longjmp`.
const LOOKS: c_int = 1024;

unsafe extern "C" {
    fn embedded_begin() -> c_int;
    fn embedded_request(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn embedded_end();
}

type Asked = (c_int, Sender<c_int>);

thread_local! {
    /// The requests' questions to the loop that drives the thread's fibers.
    static LOOP: (Sender<Asked>, Receiver<Asked>) = async_channel::unbounded();
}

/// Waits for an answer of the loop, which runs outside all fibers.
///
/// The loop can answer only if the wait suspends the request.
#[unsafe(no_mangle)]
pub extern "C" fn host_wait_for_loop(number: c_int) -> c_int {
    enter(|| {
        let (answer, answered) = async_channel::bounded(1);
        LOOP.with(|(asked, _)| asked.try_send((number, answer))).expect("it has room");
        wait(answered.recv()).expect("the loop answers")
    })
    .unwrap_or(-1)
}

/// Drives the thread's fibers until the end of the request.
fn drive(runtime: &LocalRuntime, request: &JoinHandle<c_int>) {
    while !request.is_finished() {
        let mut poll = libc::pollfd { fd: runtime.fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `poll` is one open descriptor, valid for the call.
        unsafe { libc::poll(&mut poll, 1, -1) };
        runtime.run_ready(usize::MAX);
        while let Ok((number, answer)) = LOOP.with(|(_, asked)| asked.try_recv()) {
            answer.try_send(number).expect("it is asked for once");
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let on_fiber = arguments.next().as_deref() == Some("fiber");
    let requests: usize = arguments.next().and_then(|it| it.parse().ok()).expect("a number of requests");
    let arguments: Vec<CString> = arguments.map(|it| CString::new(it).expect("no 0 in it")).collect();
    let runtime = FIBERS.local_runtime().expect("the thread has none");
    // SAFETY: the only call, before all requests.
    assert_eq!(downcall(|| unsafe { embedded_begin() }), 0, "PHP did not start");
    let serve = move || {
        let mut argv: Vec<*mut c_char> = arguments.iter().map(|it| it.as_ptr().cast_mut()).collect();
        // SAFETY: PHP has begun. The arguments outlive the request.
        let request = || unsafe { embedded_request(argv.len() as c_int, argv.as_mut_ptr()) };
        // A panic below PHP was an exception in PHP. The panic continues here.
        catch_unwind(AssertUnwindSafe(|| downcall_on_fiber(request))).unwrap_or(PANICKED)
    };
    let served = |_| {
        if !on_fiber {
            return serve();
        }
        let request = runtime.spawn_local_with(FIBERS.builder().stack_size(STACK), serve.clone());
        drive(&runtime, &request);
        request.join().expect("panics are caught")
    };
    let statuses: Vec<c_int> = (0..requests).map(served).collect();
    // PHP abandons calls by `longjmp`, and frees stacks with suspended calls.
    let open = host_open_calls();
    assert!(open <= LOOKS, "{open} calls are open");
    if open > 0 {
        println!("calls are open");
    }
    // SAFETY: the only call, after all requests.
    downcall(|| unsafe { embedded_end() });
    assert!(statuses.iter().all(|status| *status == statuses[0]), "requests ended with {statuses:?}");
    ExitCode::from(statuses[0] as u8)
}
