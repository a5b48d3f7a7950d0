//! A Rust program that runs PHP, which calls the program's functions: the shape of FrankenPHP. `embedded.c` is what PHP sees of it.
//!
//! `php-embedded thread|fiber REQUESTS SCRIPT CASE`: serves requests that run the case, one after the other, on the thread's own stack or in a fiber.

use std::ffi::{CString, c_char, c_int};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use async_channel::{Receiver, Sender};
use php_host::host_open_calls;
use upcall::{Fiber, JoinHandle, LocalRuntime, downcall, downcall_on_fiber, enter, wait};

/// For a request, whose Fibers have stacks of their own.
const STACK: usize = 8 << 20;
/// The status of a request in which Rust panicked.
const PANICKED: c_int = 101;
/// So many open calls have a thread look for those that `longjmp` left.
const LOOKS: c_int = 1024;

unsafe extern "C" {
    fn embedded_begin() -> c_int;
    fn embedded_request(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn embedded_end();
}

type Asked = (c_int, Sender<c_int>);

thread_local! {
    /// What requests ask of the loop that drives the thread's fibers.
    static LOOP: (Sender<Asked>, Receiver<Asked>) = async_channel::unbounded();
}

/// Waits for an answer of the loop outside all fibers, which can give it only if the wait suspends the request.
#[unsafe(no_mangle)]
pub extern "C" fn host_wait_for_loop(number: c_int) -> c_int {
    enter(|| {
        let (answer, answered) = async_channel::bounded(1);
        LOOP.with(|(asked, _)| asked.try_send((number, answer))).expect("it has room");
        wait(answered.recv()).expect("the loop answers")
    })
    .unwrap_or(-1)
}

/// Drives the thread's fibers until the request is over.
fn drive(runtime: &LocalRuntime, request: &JoinHandle<c_int>) {
    while !request.is_finished() {
        let mut poll = libc::pollfd { fd: runtime.fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, which is open.
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
    let runtime = LocalRuntime::new().expect("the thread has none");
    // SAFETY: once, before all requests.
    assert_eq!(downcall(|| unsafe { embedded_begin() }), 0, "PHP did not start");
    let serve = move || {
        let mut argv: Vec<*mut c_char> = arguments.iter().map(|it| it.as_ptr().cast_mut()).collect();
        // SAFETY: PHP has begun, and the arguments outlive the request.
        let request = || unsafe { embedded_request(argv.len() as c_int, argv.as_mut_ptr()) };
        // A panic below PHP was an exception there, and goes on here.
        catch_unwind(AssertUnwindSafe(|| downcall_on_fiber(request))).unwrap_or(PANICKED)
    };
    let served = |_| {
        if !on_fiber {
            return serve();
        }
        let request = runtime.spawn_local_with(Fiber::builder().stack_size(STACK), serve.clone());
        drive(&runtime, &request);
        request.join().expect("panics are caught")
    };
    let statuses: Vec<c_int> = (0..requests).map(served).collect();
    // PHP leaves calls by longjmp, and frees stacks that calls are suspended on.
    let open = host_open_calls();
    assert!(open <= LOOKS, "{open} calls are open");
    if open > 0 {
        println!("calls are open");
    }
    // SAFETY: once, after all requests.
    downcall(|| unsafe { embedded_end() });
    assert!(statuses.iter().all(|status| *status == statuses[0]), "requests ended with {statuses:?}");
    ExitCode::from(statuses[0] as u8)
}
