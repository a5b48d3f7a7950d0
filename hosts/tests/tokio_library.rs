//! A library written with tokio, `libraries/fetcher`, and its hosts: C, Python, and tokio's own
//! runtimes.
//!
//! No host sets anything up for it.

#[path = "../../crates/upcall/tests/common/mod.rs"]
mod common;
#[path = "../libraries/fetcher/fetcher.rs"]
#[allow(dead_code, reason = "the part for Python")]
mod fetcher;

use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use common::{FIBERS, time_limit};
use fetcher::*;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{LocalSet, spawn_blocking, spawn_local};
use upcall::downcall;

/// The path of the library.
///
/// Cargo has built it before the tests, except if only this test was asked for. Then this builds
/// it, with the features of this package alone.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let tests = std::env::current_exe().unwrap();
        let profile = tests.ancestors().nth(2).unwrap();
        let library = profile.join(format!("examples/libfetcher{}", std::env::consts::DLL_SUFFIX));
        if is_newer_than_its_sources(&library) {
            return library;
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "hosts", "--example", "fetcher", "--target-dir"]);
        cargo.arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.output().is_ok_and(|output| output.status.success());
        assert!(built || library.exists(), "{cargo:?} has failed");
        library
    })
}

/// Whether a library is newer than the sources listed beside it by Cargo.
fn is_newer_than_its_sources(library: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let (Some(built), Ok(list)) = (changed(library), std::fs::read_to_string(library.with_extension("d")))
    else {
        return false;
    };
    let mut sources = list.split_whitespace().skip(1).map(Path::new);
    sources.all(|source| changed(source).is_some_and(|changed| changed < built))
}

/// Runs a program. It must end well within a minute.
fn run(what: &str, command: &mut Command) {
    let _limit = time_limit("a host of the library");
    let output = command.env_remove("RUST_BACKTRACE").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{printed}\n{said}", output.status);
}

/// The C program, built.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let (library, hosts) = (library(), Path::new(env!("CARGO_MANIFEST_DIR")));
        let program = library.with_file_name("fetcher-host");
        let mut cc = Command::new(std::env::var_os("CC").unwrap_or("cc".into()));
        cc.args(["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"]);
        cc.arg(hosts.join("../crates/upcall/include")).arg("-o").arg(&program);
        cc.arg(hosts.join("libraries/fetcher/fetcher.c"));
        cc.arg(library).arg(format!("-Wl,-rpath,{}", library.parent().unwrap().display()));
        let compiled = cc.output().expect("a compiler: install one, or name it in CC");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        program
    })
}

macro_rules! from_c {
    ($($case:ident)*) => { mod from_c { $(
        #[test]
        fn $case() {
            super::run(stringify!($case), std::process::Command::new(super::program()).arg(stringify!($case)));
        }
    )* } };
}

from_c! { on_main on_one_thread on_threads told_late eager forked_first forked forked_told exits exits_first shut_down }

macro_rules! from_python {
    ($($case:ident)*) => { mod from_python { $(
        #[test]
        fn $case() {
            super::python(stringify!($case));
        }
    )* } };
}

from_python! { on_main beside_others on_threads interrupted at_exit forked }

/// Runs a case twice: with the GIL released in calls, and with the GIL held.
fn python(case: &str) {
    let python = || Command::new("python3");
    if !python().args(["-c", "import ctypes"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED {case}: there is no python3 with ctypes");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("libraries/fetcher/fetcher.py");
    for gil in ["released", "held"] {
        run(&format!("{case}, GIL {gil}"), python().arg(&script).arg(case).arg(library()).arg(gil));
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
}

extern "C" fn add(sum: *mut c_void, number: c_int) {
    // SAFETY: `use_all` passes a pointer to its `AtomicI32`, and waits for all calls of this
    // function.
    let sum = unsafe { &*sum.cast::<AtomicI32>() };
    sum.fetch_add(number, SeqCst);
}

/// A completion that itself waits.
extern "C" fn ask_and_add(sum: *mut c_void, number: c_int) {
    assert_eq!(fetcher_nap(1), 0);
    add(sum, fetcher_ask(number));
}

/// Calls every function of the library, as C code of the host would.
fn use_all() {
    downcall(|| {
        assert_eq!(fetcher_nap(1), 0);
        assert_eq!(fetcher_ask(1), 2);
        assert_eq!(fetcher_sum(10), 55);
        assert_eq!(fetcher_echo(7), 7);
        assert_eq!(fetcher_limited(2), 1);
        let sum = AtomicI32::new(0);
        let user = (&raw const sum).cast_mut().cast();
        assert_eq!(fetcher_start(1, 5, add, user), 0);
        while sum.load(SeqCst) != 5 {
            assert_eq!(fetcher_nap(1), 0);
        }
        assert_eq!(fetcher_each(8, ask_and_add, user), 0);
        assert_eq!(sum.load(SeqCst), 5 + 36);
    });
}

#[test]
fn from_rust_without_a_runtime() {
    let _limit = time_limit("from_rust_without_a_runtime");
    use_all();
    thread::spawn(use_all).join().unwrap();
    FIBERS.spawn(use_all).join().unwrap();
    FIBERS.spawn(|| upcall::downcall_on_fiber(use_all)).join().unwrap();
}

#[test]
fn from_a_current_thread_runtime() {
    let _limit = time_limit("from_a_current_thread_runtime");
    let runtime = current_thread();
    runtime.block_on(async { use_all() });
    runtime.block_on(async { tokio::spawn(async { use_all() }).await.unwrap() });
    runtime.block_on(async { spawn_blocking(use_all).await.unwrap() });
    runtime.block_on(FIBERS.fiber(use_all));
    LocalSet::new().block_on(&runtime, async { spawn_local(async { use_all() }).await.unwrap() });
    // The runtime is entered, but nobody drives it.
    let _entered = runtime.enter();
    use_all();
}

#[test]
fn from_a_multi_thread_runtime() {
    let _limit = time_limit("from_a_multi_thread_runtime");
    for workers in [1, 3] {
        let runtime = multi_thread(workers);
        runtime.block_on(async { use_all() });
        let tasks: Vec<_> = (0..3).map(|_| runtime.spawn(async { use_all() })).collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
        runtime.block_on(runtime.spawn_blocking(use_all)).unwrap();
        LocalSet::new().block_on(&runtime, async { spawn_local(async { use_all() }).await.unwrap() });
        let _entered = runtime.enter();
        use_all();
    }
}

#[test]
fn from_runtimes_inside_each_other() {
    let _limit = time_limit("from_runtimes_inside_each_other");
    let multi = multi_thread(1);
    // On the only thread of one runtime, inside the context of another.
    current_thread().block_on(async {
        let _entered = multi.enter();
        use_all();
        use_all();
    });
    multi
        .block_on(multi.spawn(async {
            tokio::task::block_in_place(|| current_thread().block_on(async { use_all() }));
            use_all();
        }))
        .unwrap();
    // The poll of a wait calls C, and C waits.
    for runtime in [current_thread(), multi_thread(1)] {
        runtime.block_on(async { upcall::wait(async { use_all() }) });
    }
    upcall::wait(async { use_all() });
    FIBERS.spawn(|| upcall::wait(async { use_all() })).join().unwrap();
}

#[test]
fn other_tasks_of_the_only_worker_go_on() {
    let _limit = time_limit("other_tasks_of_the_only_worker_go_on");
    let runtime = multi_thread(1);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let waits = runtime.spawn(async move { downcall(|| upcall::wait(receiver)).unwrap() });
    let start = Instant::now();
    let sends = runtime.spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        sender.send(7).unwrap();
    });
    assert_eq!(runtime.block_on(waits).unwrap(), 7);
    runtime.block_on(sends).unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
}
