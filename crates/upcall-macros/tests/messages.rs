//! The messages of the macros for bad input.

#[test]
#[cfg_attr(not(debug_assertions), ignore = "as in an unoptimised build")]
fn each_message_is_at_what_it_is_about() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
