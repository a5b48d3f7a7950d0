use std::error::Error;

use upcall::export;

fn of_error(_: &(dyn Error + 'static)) -> i32 {
    -1
}

const TEXT: &str = "failed";

#[export(on_error = of_error)]
extern "C" fn nothing_after_a_panic() -> i32 {
    Ok(0)
}

#[export(on_error = of_error, on_panic = of_error)]
extern "C" fn takes_another_error() -> i32 {
    Ok(0)
}

#[export(on_error = TEXT, on_panic = -1)]
extern "C" fn of_another_type() -> i32 {
    Ok(0)
}

#[export(on_error = -1)]
extern "C" fn without_ok() -> i32 {
    0
}

fn main() {}
