//! Closures called by C, and values kept by C: `c/callbacks.c` uses and misuses them.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;

use upcall::callback::{self, Callback};
use upcall::{Handle, downcall, enter, wait};

use crate::FIBERS;
use crate::or_failed;

/// A callback as C gets it: two functions and the `void *`.
#[repr(C)]
pub struct Closure {
    call: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    data: *mut c_void,
    destroy: unsafe extern "C" fn(*mut c_void),
}

impl Closure {
    /// Gives the callback to C, for good.
    fn given<C, E>(callback: Callback<C, E, (c_int,), c_int>) -> Self
    where
        C: callback::Repeatable + callback::Call<(c_int,), c_int>,
        E: Fn() -> c_int + Copy,
    {
        Self { call: callback.data_first(), destroy: callback.destroy(), data: callback.into_data() }
    }

    /// Lends the callback to C; `destroy` does nothing.
    fn lent<C, E>(callback: &Callback<C, E, (c_int,), c_int>) -> Self
    where
        C: callback::Call<(c_int,), c_int>,
        E: Fn() -> c_int + Copy,
    {
        unsafe extern "C" fn nothing(_: *mut c_void) {}
        Self { call: callback.data_first(), destroy: nothing, data: callback.data() }
    }
}

/// A C function that gets a lent closure.
type Borrower = extern "C" fn(*const Closure) -> c_int;

/// Closures not yet dropped.
static CLOSURES: AtomicI32 = AtomicI32::new(0);

struct Counted;

impl Counted {
    fn new() -> Self {
        CLOSURES.fetch_add(1, SeqCst);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        CLOSURES.fetch_sub(1, SeqCst);
    }
}

/// Returns the number of closures of this file not yet dropped.
#[unsafe(no_mangle)]
pub extern "C" fn guest_closures() -> c_int {
    CLOSURES.load(SeqCst)
}

/// Makes a closure adding its argument to a sum. A negative argument panics.
#[unsafe(no_mangle)]
pub extern "C" fn guest_adder() -> Closure {
    let (counted, mut sum) = (Counted::new(), 0);
    let add = move |number: c_int| -> c_int {
        let _ = &counted;
        assert!(number >= 0, "{number} is negative");
        sum += number;
        sum
    };
    Closure::given(callback::new(add, || -1))
}

/// Makes a closure calling back into C. If `shared` is not 0, several threads may call it at once.
#[unsafe(no_mangle)]
pub extern "C" fn guest_calls_back(
    shared: c_int,
    back: extern "C" fn(*mut c_void, c_int) -> c_int,
    argument: *mut c_void,
) -> Closure {
    let counted = Counted::new();
    let argument = argument.expose_provenance();
    let call = move |number: c_int| -> c_int {
        let _ = &counted;
        downcall(|| back(std::ptr::with_exposed_provenance_mut(argument), number))
    };
    if shared != 0 {
        Closure::given(callback::shared(call, || -1))
    } else {
        Closure::given(callback::new(call, || -1))
    }
}

/// Makes a closure for one call. It returns its argument.
#[unsafe(no_mangle)]
pub extern "C" fn guest_once() -> Closure {
    let counted = Counted::new();
    let once = move |number: c_int| -> c_int {
        drop(counted);
        number
    };
    Closure::given(callback::once(once, || -1))
}

/// Makes a closure with a wait for another thread in each call, on any stack.
#[unsafe(no_mangle)]
pub extern "C" fn guest_waiter() -> Closure {
    let counted = Counted::new();
    let waits = move |number: c_int| -> c_int {
        let _ = &counted;
        wait(FIBERS.spawn(move || number + 1)).unwrap()
    };
    Closure::given(callback::shared(waits, || -1))
}

/// Makes a closure with a destructor that panics.
#[unsafe(no_mangle)]
pub extern "C" fn guest_bomb() -> Closure {
    struct Panics(Counted);
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let panics = Panics(Counted::new());
    let call = move |number: c_int| -> c_int {
        let _ = &panics;
        number
    };
    Closure::given(callback::new(call, || -1))
}

/// Lends `user` a borrowing closure. Its calls return the sum of their arguments so far.
#[unsafe(no_mangle)]
pub extern "C" fn guest_lend(user: Borrower) -> c_int {
    let sum = Cell::new(0);
    let add = |number: c_int| -> c_int {
        sum.set(sum.get() + number);
        sum.get()
    };
    or_failed(enter(|| callback::scope(add, || -1, |callback| downcall(|| user(&Closure::lent(callback))))))
}

/// Lends `user` a closure that calls C.
#[unsafe(no_mangle)]
pub extern "C" fn guest_lend_calling(back: extern "C" fn(c_int) -> c_int, user: Borrower) -> c_int {
    let call = |number: c_int| -> c_int { downcall(|| back(number)) };
    or_failed(enter(|| callback::scope(call, || -1, |callback| downcall(|| user(&Closure::lent(callback))))))
}

/// Lends `user` a borrowing closure for calls from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn guest_lend_shared(user: Borrower) -> c_int {
    let sum = AtomicI32::new(0);
    let add = |number: c_int| -> c_int { sum.fetch_add(number, SeqCst) + number };
    or_failed(enter(|| {
        callback::scope_shared(add, || -1, |callback| downcall(|| user(&Closure::lent(callback))))
    }))
}

/// A Rust object, owned by C through a handle.
pub struct Account {
    balance: c_int,
    _counted: Counted,
}

/// Makes an account and returns its handle.
#[unsafe(no_mangle)]
pub extern "C" fn guest_account_new(balance: c_int) -> *mut Account {
    Handle::into_raw(Account { balance, _counted: Counted::new() })
}

/// Adds to an account and calls back while the account is in use. Returns the balance.
///
/// Returns -1 if `account` is not a valid handle.
#[unsafe(no_mangle)]
pub extern "C" fn guest_account_add(
    account: *mut Account,
    number: c_int,
    back: Option<extern "C" fn(*mut c_void) -> c_int>,
) -> c_int {
    let add = |account_inside: &mut Account| {
        account_inside.balance += number;
        if let Some(back) = back {
            downcall(|| back(account.cast()));
        }
        account_inside.balance
    };
    or_failed(enter(|| Handle::with_mut(account, add).unwrap_or_else(|error| panic!("{error}"))))
}

/// Frees an account. Returns 0, or -1 if `account` is not a valid handle.
#[unsafe(no_mangle)]
pub extern "C" fn guest_account_free(account: *mut Account) -> c_int {
    or_failed(enter(|| {
        Handle::remove(account).unwrap_or_else(|error| panic!("{error}"));
        0
    }))
}

/// Closes an account not in use. Returns its balance, or -1 if the handle is invalid or in use.
#[unsafe(no_mangle)]
pub extern "C" fn guest_account_close(account: *mut Account) -> c_int {
    or_failed(enter(|| {
        let account = Handle::from_raw(account).unwrap_or_else(|error| panic!("{error}"));
        account.balance
    }))
}
