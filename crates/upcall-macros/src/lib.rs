//! The attribute `upcall::export`; `upcall` has its documentation and all that happens at run time. Here, a function's tokens become the same
//! function with its body in a closure. A parser of Rust would be more code than what it is needed for: only options, qualifiers and parameters are
//! looked at, and everything else is passed on as it came.

mod function;
mod options;
mod tokens;

use proc_macro::TokenStream;

use function::Function;
use options::Options;

/// Makes a function that C calls an upcall: its body runs as in `upcall::enter`.
///
/// ```
/// use std::ffi::{CStr, c_char};
///
/// /// The number in `text`, or -1.
/// ///
/// /// # Safety
/// /// `text` is a C string.
/// #[upcall::export(on_panic = -1)]
/// #[unsafe(no_mangle)]
/// pub unsafe extern "C" fn parse_number(text: *const c_char) -> i64 {
///     // SAFETY: the caller's promise.
///     let text = unsafe { CStr::from_ptr(text) };
///     text.to_str().unwrap().parse().unwrap()
/// }
///
/// // SAFETY: C strings.
/// unsafe {
///     assert_eq!(parse_number(c"42".as_ptr()), 42);
///     assert_eq!(parse_number(c"many".as_ptr()), -1);
/// }
/// ```
///
/// Only the body changes. What is above it stays as it is written, which is what cbindgen reads.
///
/// # Options
/// - `on_panic = EXPR`: what C gets when the body panics or the upcall is refused. It is evaluated then, on the caller's stack, of which little may
///   be left, and can use those parameters that are `Copy`. A closure is called with the `upcall::Panicked`:
///   `on_panic = |error| if error.refusal().is_some() { -2 } else { -1 }`. If it panics in turn, the process is stopped.
/// - `stack = "auto"`, `"caller"` or `"pooled"`: the `upcall::StackChoice`.
/// - `min_stack = EXPR`: the bytes of stack that the body needs, a constant; see `upcall::Entry::min_stack`.
///
/// # What C gets
/// | | with `on_panic` | without |
/// |---|---|---|
/// | the body returned | its value | its value |
/// | it panicked, inside a `downcall` | that value; the panic goes on at the downcall, when C has returned | zero; the same |
/// | it panicked elsewhere | that value | nothing: the process is stopped, with the panic's message and the function's name |
/// | the upcall was refused | that value | nothing: the same |
/// | … because its fiber was dropped, or it waited when that happened | that value | zero |
///
/// Zero is `0`, `0.0`, `false`, a null pointer, `None` or `()`. What returns something else has to have `on_panic`. The process is stopped as
/// `upcall::Config::fatal_handler` tells.
///
/// # Rules
/// - A function that is `pub` needs `#[unsafe(no_mangle)]` or `export_name`, above the attribute or below it. One to which C only gets a pointer has
///   neither.
/// - It is `extern "C"`, `unsafe` or not. It has no `self`, no parameters of types, and as many arguments as are written.
/// - All parameters move into the body, and are dropped there: on its stack, their panics caught like its own.
#[proc_macro_attribute]
pub fn export(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = TokenStream::new();
    let options = Options::parse(options, &mut errors);
    let function = Function::parse(item.clone(), &mut errors);
    match function {
        Some(function) if errors.is_empty() => function.exported(&options),
        // The function stays, so that what uses it has no errors of its own.
        _ => {
            errors.extend(item);
            errors
        }
    }
}
