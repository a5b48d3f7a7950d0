use upcall::export;

#[export(onpanic = -1)]
extern "C" fn misspelt() -> i32 {
    0
}

#[export(on_panic = 1, stack = "auto", on_panic = 2)]
extern "C" fn twice() -> i32 {
    0
}

#[export(on_panic, stack: "caller", min_stack =)]
extern "C" fn without_values() -> i32 {
    0
}

#[export(stack = "heap")]
extern "C" fn no_such_stack() -> i32 {
    0
}

#[export(stack = caller)]
extern "C" fn not_quoted() -> i32 {
    0
}

#[export(on_panic = -1,, stack = "caller")]
extern "C" fn two_commas() -> i32 {
    0
}

#[export(keep_panic = true, on_panic = -1)]
extern "C" fn with_a_value() -> i32 {
    0
}

#[export(refuse_after_panic, refuse_after_panic)]
extern "C" fn flag_twice() -> i32 {
    0
}

#[export(keep_panic)]
extern "C" fn keeps_without_a_value_for_c() -> i32 {
    0
}

#[export(on_error)]
extern "C" fn error_without_value() -> i32 {
    0
}

#[export(on_error = |_| -1)]
extern "C" fn nothing_after_a_panic() -> i32 {
    0
}

// A refused function stays in the output, so these calls are no errors.
fn main() {
    misspelt();
    twice();
    without_values();
    no_such_stack();
    not_quoted();
    two_commas();
    with_a_value();
    flag_twice();
    keeps_without_a_value_for_c();
    error_without_value();
    nothing_after_a_panic();
}
