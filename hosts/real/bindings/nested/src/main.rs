//! Two bindings, each called from the other's callbacks. `nested CASE` runs one case.
//!
//! Each documents the effect of a panic in its own callback. rusqlite returns an error. In git2,
//! the panic continues in the function that called C. Neither must notice the other's panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use git2::{ErrorCode, FileMode, Oid, Repository};
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Error};
use upcall::{Fibers, StackChoice, entry, wait};

// SAFETY: no code on fibers borrows a thread-local across a wait, and no initialiser of a
// thread-local waits.
const FIBERS: Fibers = unsafe { Fibers::promise() };

/// A repository with a tree of three files, in a temporary folder of its own.
struct Git {
    repository: Repository,
    tree: Oid,
    folder: PathBuf,
}

impl Git {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("upcall-bindings-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let folder = std::env::temp_dir().join(name);
        let repository = Repository::init_bare(&folder).expect("a repository in the temporary folder");
        let mut builder = repository.treebuilder(None).expect("a new tree");
        for name in ["one", "two", "three"] {
            let blob = repository.blob(name.as_bytes()).expect("a repository takes a blob");
            builder.insert(name, blob, FileMode::Blob.into()).expect("a tree takes a file");
        }
        let tree = builder.write().expect("a repository takes a tree");
        drop(builder);
        Self { repository, tree, folder }
    }

    /// Calls `each` for every file, until it returns false. That is an error.
    fn each(&self, mut each: impl FnMut() -> bool) -> Result<(), git2::Error> {
        let tree = self.repository.find_tree(self.tree)?;
        let diff = self.repository.diff_tree_to_tree(None, Some(&tree), None)?;
        diff.foreach(&mut |_, _| each(), None, None, None)
    }
}

impl Drop for Git {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The result of SQLite for a call of `function`.
fn query(function: impl Fn() -> i64 + Send + 'static) -> Result<i64, Error> {
    let connection = Connection::open_in_memory()?;
    connection.create_scalar_function("f", 0, FunctionFlags::default(), move |_| Ok(function()))?;
    connection.query_row("SELECT f()", [], |row| row.get(0))
}

/// Checks for rusqlite's error after a panic in a function.
fn is_sqlites(result: Result<i64, Error>) -> bool {
    let error = result.expect_err("the function panics").to_string();
    error == Error::UnwindingPanic.to_string()
}

fn panics<R>(f: impl FnOnce() -> R) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(f)).err()?;
    Some((*payload.downcast::<&str>().expect("a message")).to_owned())
}

/// Each binding alone, with the documented effects.
fn alone() {
    assert_eq!(query(|| 7).unwrap(), 7);
    assert!(is_sqlites(query(|| panic!("in a function"))));
    let (git, mut calls) = (Git::new(), 0);
    let foreach = || {
        git.each(|| {
            calls += 1;
            panic!("in a callback")
        })
    };
    assert_eq!(panics(foreach).unwrap(), "in a callback");
    assert_eq!(calls, 1);
    git.each(|| true).unwrap();
    git.each(|| false).unwrap_err();
}

/// SQLite's function panics below libgit2. libgit2's callback gets SQLite's error, and returns what
/// it likes.
fn sqlite_in_git() {
    let (git, mut calls) = (Git::new(), 0);
    let all = git.each(|| {
        calls += 1;
        is_sqlites(query(|| panic!("in a function")))
    });
    all.expect("the callback says yes");
    assert_eq!(calls, 3);
    let stopped = git.each(|| query(|| panic!("in a function")).is_ok()).unwrap_err();
    assert_eq!(stopped.code(), ErrorCode::User);
}

/// libgit2's callback panics below SQLite. The panic continues in the function, as git2 documents.
///
/// The function catches it, or it becomes SQLite's error.
fn git_in_sqlite() {
    let caught = query(|| {
        let git = Git::new();
        let why = panics(|| git.each(|| panic!("in a callback"))).unwrap();
        i64::from(why == "in a callback")
    });
    assert_eq!(caught.unwrap(), 1);
    let passed_on = query(|| {
        Git::new().each(|| panic!("in a callback")).unwrap();
        0
    });
    assert!(is_sqlites(passed_on));
}

/// Three levels, in both orders. A panic at the bottom reaches the first handler.
fn three_deep() {
    let git = Git::new();
    let outer = git.each(|| {
        is_sqlites(query(|| {
            let inner = Git::new();
            inner.each(|| panic!("at the bottom")).unwrap();
            0
        }))
    });
    outer.unwrap();
    let outer = query(|| {
        let git = Git::new();
        git.each(|| is_sqlites(query(|| panic!("at the bottom")))).unwrap();
        7
    });
    assert_eq!(outer.unwrap(), 7);
}

/// Runs the other cases on a pooled stack, on another thread, and in fibers.
///
/// One fiber keeps C on its stack. There, a wait suspends it in the middle of both libraries.
fn elsewhere() {
    let all = || {
        alone();
        sqlite_in_git();
        git_in_sqlite();
        three_deep();
    };
    entry().stack(StackChoice::Pooled).enter(all).unwrap();
    std::thread::spawn(all).join().unwrap();
    wait(FIBERS.fiber(all));
    let on_it = FIBERS.builder().c_on_fiber().stack_size(1 << 20).build(move || {
        all();
        let waits = || {
            upcall::yield_now();
            7
        };
        Git::new().each(|| query(waits).unwrap() == 7).unwrap();
    });
    let (mut fiber, mut polls) = (Box::pin(on_it.unwrap()), 0);
    wait(std::future::poll_fn(|context| {
        polls += 1;
        fiber.as_mut().poll(context)
    }));
    assert_eq!(polls, 4, "it is suspended for each file");
}

fn main() {
    // Silences expected panics, with constant messages. Messages of assertions are formatted.
    std::panic::set_hook(Box::new(|info| {
        if info.payload().is::<String>() {
            eprintln!("{info}");
        }
    }));
    let case = std::env::args().nth(1).unwrap_or_default();
    match case.as_str() {
        "alone" => alone(),
        "sqlite_in_git" => sqlite_in_git(),
        "git_in_sqlite" => git_in_sqlite(),
        "three_deep" => three_deep(),
        "elsewhere" => elsewhere(),
        _ => panic!("there is no case {case:?}"),
    }
}
