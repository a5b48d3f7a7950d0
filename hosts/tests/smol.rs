//! The parts of smol as the host: executors without knowledge of upcall, and timers and sockets of
//! async-io.

#[path = "../../crates/upcall/tests/common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use async_executor::{Executor, LocalExecutor};
use async_io::{Async, Timer, block_on};
use common::{Comparator, Log, time_limit};
use upcall::{JoinHandle, downcall, downcall_on_fiber, wait};

// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

const TICK: Duration = Duration::from_millis(1);

fn compare_after_a_tick(a: i32, b: i32) -> std::cmp::Ordering {
    wait(Timer::after(TICK));
    a.cmp(&b)
}

fn sort_on_fiber(length: i32) {
    let mut numbers: Vec<_> = (0..length).map(|n| n * 7 % length).collect();
    downcall_on_fiber(|| Comparator::new(&compare_after_a_tick).sort(&mut numbers));
    assert!(numbers.is_sorted());
}

#[test]
fn tasks_that_call_c_block_and_fibers_do_not() {
    let _limit = time_limit("tasks_that_call_c_block_and_fibers_do_not");
    let executor = LocalExecutor::new();
    let sort_at_once = |sorts: usize| {
        let start = Instant::now();
        let sorts: Vec<_> = (0..sorts).map(|_| executor.spawn(FIBERS.fiber(|| sort_on_fiber(16)))).collect();
        block_on(executor.run(async {
            for sort in sorts {
                sort.await;
            }
        }));
        start.elapsed()
    };
    let one = sort_at_once(1);
    let fifty = sort_at_once(50);
    assert!(fifty < 10 * one, "fifty took {fifty:?}, one {one:?}");
    let mut numbers = [3, 1, 2];
    block_on(executor.run(async { downcall(|| Comparator::new(&compare_after_a_tick).sort(&mut numbers)) }));
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn a_cancelled_task_ends_its_fiber() {
    let log = Log::default();
    let inner = log.clone();
    let executor = LocalExecutor::new();
    let task = executor.spawn(FIBERS.fiber(move || {
        let _said = inner.at_drop("ended");
        sort_on_fiber(16);
        wait(Timer::never());
    }));
    while executor.try_tick() {}
    block_on(executor.run(task.cancel()));
    assert_eq!(log.take(), ["ended"]);
}

#[test]
fn handles_are_awaited_by_an_executor_of_several_threads() {
    let _limit = time_limit("handles_are_awaited_by_an_executor_of_several_threads");
    let executor = Executor::new();
    let (stop, stopped) = async_channel::bounded::<()>(1);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| block_on(executor.run(stopped.recv())));
        }
        let tasks: Vec<_> = (0..100)
            .map(|n| {
                executor.spawn(async move {
                    let fiber: JoinHandle<_> = FIBERS.spawn(move || {
                        wait(Timer::after(TICK));
                        n
                    });
                    fiber.await.unwrap()
                })
            })
            .collect();
        let sum: i32 = tasks.into_iter().map(|task| wait(task)).sum();
        assert_eq!(sum, 4950);
        drop(stop);
    });
}

#[test]
fn sockets_between_fibers_and_threads() {
    let _limit = time_limit("sockets_between_fibers_and_threads");
    let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
    let address = listener.get_ref().local_addr().unwrap();
    let echoes = FIBERS.spawn(move || {
        for _ in 0..8 {
            let (stream, _) = wait(listener.accept()).unwrap();
            drop(FIBERS.spawn(move || {
                let mut byte = [0];
                for _ in 0..100 {
                    wait(stream.read_with(|mut stream| stream.read_exact(&mut byte))).unwrap();
                    wait(stream.write_with(|mut stream| stream.write_all(&byte))).unwrap();
                }
            }));
        }
    });
    let calls = move || {
        let stream = wait(Async::<TcpStream>::connect(address)).unwrap();
        for sent in 0..100 {
            let mut got = [0];
            wait(stream.write_with(|mut stream| stream.write_all(&[sent]))).unwrap();
            wait(stream.read_with(|mut stream| stream.read_exact(&mut got))).unwrap();
            assert_eq!(got, [sent]);
        }
    };
    let fibers: Vec<_> = (0..4).map(|_| FIBERS.spawn(calls)).collect();
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(calls)).collect();
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    echoes.join().unwrap();
}
