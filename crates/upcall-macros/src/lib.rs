//! The macros of `upcall`: the attribute `upcall::export`, and the macro `upcall::c_api!`.
//!
//! `export` turns a function into the same function with its body in a closure. `upcall` has the
//! documentation and everything that happens at run time. A parser of Rust would be more code than
//! its use here: this crate examines only options, qualifiers and parameters, and passes everything
//! else on unchanged.
//!
//! `c_api!` needs a procedural macro to make names of two words.

mod c_api;
mod function;
mod options;
mod tokens;

use proc_macro::TokenStream;

use function::Function;
use options::Options;

/// Turns a function that C calls into an upcall: its body runs as in `upcall::enter`.
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
///     // SAFETY: the caller guarantees that `text` is a C string.
///     let text = unsafe { CStr::from_ptr(text) };
///     text.to_str().unwrap().parse().unwrap()
/// }
///
/// // SAFETY: both arguments are C strings.
/// unsafe {
///     assert_eq!(parse_number(c"42".as_ptr()), 42);
///     assert_eq!(parse_number(c"many".as_ptr()), -1);
/// }
/// ```
///
/// Only the body changes. Everything above it stays as written, for cbindgen to read.
///
/// # Errors
/// With `on_error`, the body may use `?` on any error, and ends in `Ok(value)`. The text of the
/// error becomes the last message, with those of its sources: `a: b: c`. C gets the value of
/// `on_error`:
///
/// ```
/// use std::error::Error;
/// use std::ffi::c_int;
///
/// fn code(error: &(dyn Error + 'static)) -> c_int {
///     if error.is::<std::io::Error>() { -2 } else { -1 }
/// }
///
/// /// The length of a file; -2 if it cannot be read, -1 if it is too long, -3 after a panic.
/// #[upcall::export(on_error = code, on_panic = -3)]
/// extern "C" fn length(number: c_int) -> c_int {
///     let text = std::fs::read(format!("/proc/{number}/no-such-file"))?;
///     Ok(text.len().try_into()?)
/// }
///
/// assert_eq!(length(1), -2);
/// ```
///
/// # Options
/// - `on_error = EXPR`: the value for C if the body returns `Err`. It is evaluated in the upcall,
///   so it has as much stack as the body. If it is a closure or a path to a function, it is called
///   with the error as `&(dyn Error + 'static)`. Otherwise it is a value, and serves after panics
///   and refusals too, unless `on_panic` is given.
/// - `on_panic = EXPR`: the value for C if the body panics or the upcall is refused. It is
///   evaluated on the caller's stack, of which little may remain. If it is a closure, it is called
///   with the `upcall::UpcallError`:
///   `on_panic = |error| if error.refusal().is_some() { -2 } else { -1 }`. A path to a function
///   will do as well, with the error or a reference to it.
///
///   Both are evaluated only when needed, and can use the parameters with `Copy` types. If one of
///   them panics, upcall aborts the process.
/// - `stack = "auto"`, `"caller"` or `"pooled"`: the `upcall::StackChoice`.
/// - `min_stack = EXPR`: the stack needed by the body, in bytes; a constant. See
///   `upcall::Entry::min_stack`.
/// - `keep_panic`: a panic is reported to C only, and is not raised at an enclosing `downcall`.
///   Needs `on_panic` or `on_error`. See `upcall::Entry::keep_panic`.
/// - `refuse_after_panic`: the upcall is refused while the panic of an earlier upcall is pending,
///   until C returns. See `upcall::Entry::refuse_after_panic`.
///
/// # The result for C
/// | | with `on_panic`, or a value as `on_error` | without |
/// |---|---|---|
/// | the body returned | its value | its value |
/// | it returned `Err` | that of `on_error` | – |
/// | it panicked inside a `downcall` | that of `on_panic`; panic pending | zero; panic pending |
/// | it panicked elsewhere | that of `on_panic` | none: upcall aborts |
/// | its fiber was dropped while it waited | that of `on_panic` | zero |
/// | the upcall was refused: fiber dropped | that of `on_panic` | zero |
/// | … refused: `refuse_after_panic` | that of `on_panic` | zero |
/// | … refused for another reason | that of `on_panic` | none: upcall aborts |
///
/// A pending panic is raised at the downcall when C has returned. It is not, if `on_panic` takes it
/// or `keep_panic` is given.
///
/// Zero is `0`, `0.0`, `false`, a null pointer, `None` or `()`. A function with another return type
/// needs `on_panic`.
///
/// If upcall aborts the process, the message has the function's name, and the panic's message or
/// the reason of the refusal. The abort proceeds as `upcall::Config::fatal_handler` describes.
///
/// # Rules
/// - If C finds the function by its name, it is `pub` with `#[unsafe(no_mangle)]` or `export_name`,
///   above the attribute or below it. A function that C only gets a pointer to has neither.
/// - The function is `extern "C"` or `extern "C-unwind"`, `unsafe` or not. It has no `self` and is
///   not variadic.
/// - It may be generic. C then gets a pointer to an instance, such as `visit::<Row>`.
/// - All parameters move into the body and are dropped there: on its stack, and their panics are
///   caught like its own.
#[proc_macro_attribute]
pub fn export(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = TokenStream::new();
    let options = Options::parse(options, &mut errors);
    let function = Function::parse(item.clone(), &mut errors);
    match function {
        Some(function) if errors.is_empty() => function.exported(&options),
        // The function stays in the output, so its users cause no errors of their own.
        _ => {
            errors.extend(item);
            errors
        }
    }
}

/// The expansion of `upcall::c_api!`.
#[doc(hidden)]
#[proc_macro]
pub fn c_api(input: TokenStream) -> TokenStream {
    c_api::expand(input)
}
