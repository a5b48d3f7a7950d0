//! `#[upcall::export]`: what C gets after an error, a panic and a refusal, and which functions it
//! takes.

mod common;

use std::error::Error;
use std::ffi::c_int;
use std::fmt;
use std::num::ParseIntError;
use std::ptr;

use common::last_panic;
use upcall::{Status, UpcallError, export};

/// An error with a source.
#[derive(Debug)]
struct Unreadable(ParseIntError);

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the row is unreadable")
    }
}

impl Error for Unreadable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

const NONE: c_int = -9;

fn of_error(error: &(dyn Error + 'static)) -> c_int {
    if error.is::<Unreadable>() { -2 } else { -1 }
}

fn of_panic(error: UpcallError) -> c_int {
    if error.refusal().is_some() { -4 } else { -3 }
}

fn of_panic_by_reference(error: &UpcallError) -> c_int {
    if error.refusal().is_some() { -6 } else { -5 }
}

/// Fails as `text` says.
fn parse(text: &str) -> Result<c_int, Box<dyn Error + Send + Sync>> {
    match text {
        "panic" => panic!("a panic"),
        "unreadable" => Err(Unreadable("x".parse::<c_int>().unwrap_err()).into()),
        text => Ok(text.parse()?),
    }
}

#[export(on_error = -1)]
extern "C" fn value(text: &'static &'static str) -> c_int {
    let number = parse(text)?;
    if number < 0 {
        return Err("negative".into());
    }
    Ok(number)
}

#[test]
fn a_value_is_for_errors_and_panics() {
    assert_eq!(value(&"7"), 7);
    assert_eq!((value(&"x"), last_panic().as_str()), (-1, "invalid digit found in string"));
    assert_eq!((value(&"-7"), last_panic().as_str()), (-1, "negative"));
    let message = "the row is unreadable: invalid digit found in string";
    assert_eq!((value(&"unreadable"), last_panic().as_str()), (-1, message));
    assert_eq!((value(&"panic"), last_panic().as_str()), (-1, "a panic"));
}

#[export(on_error = NONE)]
extern "C" fn constant(text: &'static &'static str) -> c_int {
    parse(text)
}

#[export(on_error = of_error, on_panic = of_panic)]
extern "C" fn functions(text: &'static &'static str) -> c_int {
    parse(text)
}

#[export(on_error = self::of_error, on_panic = of_panic_by_reference, stack = "pooled")]
extern "C" fn by_reference(text: &'static &'static str) -> c_int {
    parse(text)
}

#[export(on_error = |error| if error.source().is_some() { -2 } else { -1 }, on_panic = c_int::MIN)]
extern "C" fn closure(text: &'static &'static str) -> c_int {
    parse(text)
}

#[export(on_panic = of_panic, stack = "caller", min_stack = usize::MAX)]
extern "C" fn refused() -> c_int {
    0
}

#[test]
fn paths_name_values_or_functions() {
    assert_eq!([constant(&"7"), constant(&"x"), constant(&"panic")], [7, NONE, NONE]);
    assert_eq!(
        [functions(&"7"), functions(&"x"), functions(&"unreadable"), functions(&"panic")],
        [7, -1, -2, -3]
    );
    assert_eq!([by_reference(&"x"), by_reference(&"unreadable"), by_reference(&"panic")], [-1, -2, -5]);
    assert_eq!([closure(&"x"), closure(&"unreadable"), closure(&"panic")], [-1, -2, c_int::MIN]);
    assert_eq!(refused(), -4);
}

#[export(on_error = ptr::null_mut())]
extern "C" fn pointer(number: c_int) -> *mut c_int {
    if number == 0 {
        Err("zero")?;
    }
    Ok(ptr::dangling_mut())
}

#[export(on_error = None)]
extern "C" fn option(number: c_int) -> Option<extern "C" fn(c_int) -> *mut c_int> {
    if number == 0 {
        Err("zero")?;
    }
    Ok(Some(pointer))
}

#[export(on_error = ())]
extern "C" fn nothing(number: c_int) {
    assert_ne!(u32::try_from(number)?, 1);
    Ok(())
}

#[export(on_error = fallback, on_panic = fallback - 1)]
extern "C" fn of_parameter(number: c_int, fallback: c_int) -> c_int {
    assert!(number != 0);
    Ok(u8::try_from(number)?.into())
}

#[export(on_error = panic!("no value"), on_panic = 0)]
extern "C" fn never_fails() -> u8 {
    Ok(1)
}

#[test]
fn values_have_the_type_of_the_function() {
    assert!(pointer(0).is_null() && !pointer(1).is_null());
    assert!(option(0).is_none() && option(1).is_some());
    nothing(-1);
    assert_eq!(last_panic(), "out of range integral type conversion attempted");
    nothing(1);
    assert!(last_panic().contains("assertion"));
    assert_eq!([of_parameter(7, -1), of_parameter(300, -1), of_parameter(0, -1)], [7, -1, -2]);
    assert_eq!(never_fails(), 1);
}

/// A status tells an error, a panic and a refusal apart.
#[export(on_error = Status::Error, stack = "caller", min_stack = NEEDED)]
extern "C" fn status<const NEEDED: usize>(text: &'static &'static str) -> Status {
    parse(text).map(|_| Status::Ok)
}

#[export(on_error = |_| Status::Error, on_panic = Status::of)]
extern "C" fn explicit_status(text: &'static &'static str) -> Status {
    parse(text).map(|_| Status::Ok)
}

#[test]
fn a_status_tells_failures_apart() {
    assert_eq!([status::<1024>(&"7"), status::<1024>(&"x")], [Status::Ok, Status::Error]);
    assert_eq!([status::<1024>(&"panic"), status::<{ usize::MAX }>(&"7")], [Status::Panic, Status::Refused]);
    assert_eq!([explicit_status(&"x"), explicit_status(&"panic")], [Status::Error, Status::Panic]);
    assert_eq!([0, -1], [Status::Ok, Status::Error].map(c_int::from));
    assert_eq!([-2, -3], [Status::Panic, Status::Refused].map(c_int::from));
}

/// A generic function has an instance for each type, and C gets a pointer to one.
#[export(on_error = -1)]
extern "C" fn generic<'a, T: TryInto<u8> + Copy, const LIMIT: u8>(value: &'a T) -> c_int
where
    T::Error: Error + Send + Sync + 'static,
{
    let value: u8 = (*value).try_into()?;
    if value > LIMIT {
        return Err(format!("more than {LIMIT}").into());
    }
    Ok(value.into())
}

#[export(on_panic = Default::default())]
extern "C" fn of_default<T: Default>() -> T {
    panic!("no value")
}

#[test]
fn functions_may_be_generic() {
    let functions: [extern "C" fn(&i64) -> c_int; 2] = [generic::<i64, 5>, generic::<i64, 9>];
    assert_eq!(functions.map(|function| function(&7)), [-1, 7]);
    assert_eq!((functions[1](&10), last_panic().as_str()), (-1, "more than 9"));
    assert_eq!(functions[1](&300), -1);
    assert_eq!(of_default::<u8>(), 0);
}

/// It has no symbol: C gets a pointer to it.
#[export(on_error = -1)]
pub extern "C-unwind" fn public_for_pointers(fails: bool) -> c_int {
    if fails {
        Err("failed")?
    }
    Ok(0)
}

#[test]
fn functions_may_be_public_and_unwind() {
    let function: extern "C-unwind" fn(bool) -> c_int = public_for_pointers;
    assert_eq!([function(false), function(true)], [0, -1]);
}

#[export(on_error = |_| -1, on_panic = -2)]
unsafe extern "C" fn owns(argument: Box<c_int>) -> c_int {
    Ok(if *argument == 0 { Err("zero")? } else { *argument })
}

#[test]
fn arguments_move_into_the_body() {
    // SAFETY: the function has no requirements.
    assert_eq!(unsafe { [owns(Box::new(5)), owns(Box::new(0))] }, [5, -1]);
}

#[test]
fn snapshots_name_the_function() {
    #[export(on_error = -1)]
    extern "C" fn named() -> c_int {
        let text = upcall::snapshot().to_string();
        Ok(text.contains("snapshots_name_the_function::named, SP").into())
    }
    assert_eq!(named(), 1, "{}", upcall::snapshot());
}
