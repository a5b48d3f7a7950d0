use std::fmt::Display;

use upcall::export;

#[export]
#[unsafe(no_mangle)]
extern "C" fn not_public() {}

#[unsafe(export_name = "public_in_the_crate")]
#[export]
pub(crate) extern "C" fn public_in_the_crate() {}

#[export]
fn not_for_c() {}

#[export]
extern "system" fn of_the_system() {}

#[export]
const extern "C" fn constant() {}

#[export]
async extern "C" fn asynchronous() {}

#[export]
#[unsafe(no_mangle)]
pub extern "C" fn generic<'a, T, const N: usize>(_: &'a [T; N]) {}

#[export]
extern "C" fn takes_any(_: Option<impl Display>) {}

#[export]
extern "C" fn returns_any() -> impl Display {
    0
}

#[export]
extern "C" fn never_returns() -> ! {
    loop {}
}

struct Type;

impl Type {
    #[export]
    extern "C" fn method(&self) {}

    #[export]
    extern "C" fn in_a_box(self: Box<Self>) {}
}

#[export]
struct NotAFunction;

trait Declares {
    #[export]
    extern "C" fn declared();
}

// The compiler would report an error too, but it removes `#[test]` functions.
#[export]
#[test]
unsafe extern "C" fn variadic(count: i32, others: ...) {}

fn main() {
    not_for_c();
    constant();
    Type.method();
}
