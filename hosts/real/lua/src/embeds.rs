//! A Rust program that embeds Lua through mlua.
//!
//! Upcalls call Lua functions by downcalls. Rust functions called by Lua are upcalls.
//!
//! Usage: `embeds-lua CASE`. mlua raises errors as Lua does, but never over our frames: it calls C
//! by `lua_pcall`, and raises an error only after a function has returned.

#[path = "../../expected.rs"]
mod expected;

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use async_channel::bounded;
use mlua::{Error, FromLuaMulti, Function, IntoLuaMulti, Lua, Result, Thread};
use upcall::{StackChoice, downcall, downcall_on_fiber, enter, entry, wait};

use expected::EXPECTED;

// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };

/// A Lua state with `f` as the function `name`. `f` runs in an upcall on a pooled stack.
///
/// A panic of `f` becomes a Lua error with its message. The upcall's error is dropped, so the panic
/// itself continues at an enclosing downcall.
fn lua_with<A: FromLuaMulti, R: IntoLuaMulti>(
    name: &str,
    f: impl Fn(&Lua, A) -> Result<R> + Send + 'static,
) -> Lua {
    let lua = Lua::new();
    let function = lua.create_function(move |lua, arguments| {
        entry()
            .stack(StackChoice::Pooled)
            .enter(|| f(lua, arguments))
            .unwrap_or_else(|error| Err(Error::runtime(error.message())))
    });
    lua.globals().set(name, function.unwrap()).unwrap();
    lua
}

thread_local! {
    /// The function asked by `compare`, and the error raised by it.
    static ASKED: RefCell<Option<Function>> = const { RefCell::new(None) };
    static RAISED: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// Sorts by `qsort`: Lua → Rust → qsort → Rust → Lua → Rust.
fn sort(numbers: &mut [i64], by: Function) -> Result<()> {
    extern "C" fn compare(a: *const c_void, b: *const c_void) -> c_int {
        enter(|| {
            // SAFETY: qsort passes elements of `numbers`, an array of `i64`.
            let (a, b) = unsafe { (*a.cast::<i64>(), *b.cast::<i64>()) };
            let asked = ASKED.with_borrow(|asked| asked.clone()).expect("it is set below");
            downcall(|| asked.call::<c_int>((a, b))).unwrap_or_else(|error| {
                RAISED.set(Some(error));
                0
            })
        })
        .unwrap_or(0)
    }
    ASKED.set(Some(by));
    // SAFETY: the array has the given length, and `compare` reads elements of its type.
    downcall(|| unsafe {
        libc::qsort(numbers.as_mut_ptr().cast(), numbers.len(), size_of::<i64>(), Some(compare))
    });
    RAISED.take().map_or(Ok(()), Err)
}

fn nested() {
    let lua = lua_with("sort", |_, (mut numbers, by): (Vec<i64>, Function)| {
        sort(&mut numbers, by)?;
        Ok(numbers)
    });
    let key = lua.create_function(|_, n: i64| Ok(enter(|| wait(FIBERS.spawn(move || -n)).unwrap()).unwrap()));
    lua.globals().set("key", key.unwrap()).unwrap();
    let panics = lua.create_function(|_, ()| -> Result<()> { panic!("{EXPECTED}mlua's own") });
    lua.globals().set("panics", panics.unwrap()).unwrap();
    let works = r"
        local sorted = sort({ 3, 5, 1, 4, 2 }, function(a, b) return key(a) - key(b) end)
        assert(table.concat(sorted, ' ') == '5 4 3 2 1')
        local worked, message = pcall(sort, { 2, 1 }, function() error('not now') end)
        assert(not worked and string.find(tostring(message), 'not now', 1, true))
    ";
    for _ in 0..200 {
        lua.load(works).exec().unwrap();
    }
    // mlua catches the panic and passes it through Lua as its error. `compare` raises it again. It
    // continues in `sort`, where `sort` called qsort, and is an error here.
    let panics = lua.load("sort({ 2, 1 }, panics)");
    let error = panics.exec().unwrap_err();
    assert!(error.to_string().contains("mlua's own"), "{error}");
    lua.load(works).exec().unwrap();
}

fn panics() {
    let lua = lua_with("panics", |_, message: String| -> Result<()> { panic!("{EXPECTED}{message}") });
    for i in 0..10_000 {
        // Lua catches the error made from the panic. The panic itself continues here.
        let chunk =
            lua.load("local worked, message = pcall(panics, 'number ' .. ...); assert(not worked); return 7");
        let chunk = chunk.into_function().unwrap();
        let returned = Cell::new(0);
        let payload =
            catch_unwind(AssertUnwindSafe(|| downcall(|| returned.set(chunk.call(i).unwrap())))).unwrap_err();
        assert_eq!(
            (*payload.downcast::<String>().unwrap(), returned.get()),
            (format!("{EXPECTED}number {i}"), 7)
        );
        // Without an enclosing downcall, Lua's error is all there is.
        assert!(lua.load("panics('only this')").exec().unwrap_err().to_string().contains("only this"));
    }
}

/// Runs fifty fibers with a Lua state each.
///
/// mlua keeps one current Lua thread in each state, so fibers that take turns need a state each.
fn fibers() {
    const COUNT: usize = 50;
    let (sender, receiver) = bounded::<usize>(COUNT);
    let runtime = FIBERS.local_runtime().unwrap();
    let fibers: Vec<_> = (0..COUNT)
        .map(|i| {
            let sender = sender.clone();
            let (open, opened) = bounded::<()>(1);
            let fiber = runtime.spawn_local(move || {
                let lua = Lua::new();
                let meet = lua.create_function(move |_, ()| {
                    enter(|| {
                        wait(sender.send(i)).unwrap();
                        wait(opened.recv()).unwrap();
                    })
                    .map_err(Error::external)
                });
                lua.globals().set("meet", meet.unwrap()).unwrap();
                let chunk = lua
                    .load("for i = 1, 10 do coroutine.wrap(meet)() end return ...")
                    .into_function()
                    .unwrap();
                downcall_on_fiber(|| chunk.call::<usize>(i).unwrap())
            });
            (open, fiber)
        })
        .collect();
    // In each round all fibers arrive, and continue from the last to the first.
    for _ in 0..10 {
        let mut met: Vec<usize> = (0..COUNT).map(|_| wait(receiver.recv()).unwrap()).collect();
        met.sort_unstable();
        assert!(met.into_iter().eq(0..COUNT), "not all wait at the same time");
        fibers.iter().rev().for_each(|(open, _)| open.try_send(()).unwrap());
    }
    for (i, (_, fiber)) in fibers.into_iter().enumerate() {
        assert_eq!(fiber.join().unwrap(), i);
    }
}

/// Resumes coroutines from Rust, inside upcalls. They stay suspended while others run.
fn coroutines() {
    let lua = lua_with("resume", |_, (thread, n): (Thread, i64)| downcall(|| thread.resume::<i64>(n)));
    let program = r"
        local function new(depth)
            return coroutine.create(function(n)
                while true do
                    local inner = depth > 0 and resume(new(depth - 1), n) or n
                    assert(inner == n)
                    n = coroutine.yield(inner)
                end
            end)
        end
        local all = {}
        for i = 1, 40 do all[i] = new(i % 10) end
        for round = 1, 20 do
            for i = 40, 1, -1 do assert(resume(all[(i * 7 + round) % 40 + 1], i) == i) end
        end
    ";
    lua.load(program).exec().unwrap();
}

fn threads() {
    let run = |n: i64| {
        let lua = lua_with("doubled", |_, n: i64| Ok(wait(FIBERS.spawn(move || 2 * n)).unwrap()));
        let program = "local sum = 0 for i = 1, 1000 do sum = sum + doubled(i) end return sum * ...";
        let chunk = lua.load(program).into_function().unwrap();
        assert_eq!(enter(|| downcall(|| chunk.call::<i64>(n).unwrap())).unwrap(), n * 1_001_000);
    };
    thread::scope(|scope| (0..8).for_each(|n| drop(scope.spawn(move || run(n)))));
}

fn finalizers() {
    static FINALIZED: AtomicUsize = AtomicUsize::new(0);
    struct Value;
    impl mlua::UserData for Value {}
    impl Drop for Value {
        fn drop(&mut self) {
            enter(|| FINALIZED.fetch_add(wait(FIBERS.spawn(|| 1)).unwrap(), Relaxed)).unwrap();
        }
    }
    let lua = lua_with("value", |lua, ()| lua.create_userdata(Value));
    lua.load("for i = 1, 1000 do value() end kept = value()").exec().unwrap();
    enter(|| downcall(|| lua.gc_collect().unwrap())).unwrap();
    assert_eq!(FINALIZED.load(Relaxed), 1000);
    enter(|| downcall(|| drop(lua))).unwrap();
    assert_eq!(FINALIZED.load(Relaxed), 1001);
}

fn main() {
    expected::hide();
    let case = std::env::args().nth(1).unwrap_or_default();
    match &*case {
        "nested" => nested(),
        "panics" => panics(),
        "fibers" => fibers(),
        "coroutines" => coroutines(),
        "threads" => threads(),
        "finalizers" => finalizers(),
        _ => panic!("there is no case {case}"),
    }
}
