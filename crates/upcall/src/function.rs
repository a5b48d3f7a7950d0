//! Functions by name, for messages and reports.

use std::any::type_name;
use std::fmt;

/// Rust code that is in the middle of a call: the function that a closure is in, which of an upcall is what C called.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Function(pub fn() -> &'static str);

impl Function {
    /// The function that closures of the type `F` are in.
    #[inline(always)]
    pub const fn of<F>() -> Self {
        Self(|| type_name::<F>())
    }

    /// The function that this closure is in.
    #[inline(always)]
    pub const fn with<F>(_: &F) -> Self {
        Self::of::<F>()
    }

    /// Its path.
    pub fn name(self) -> &'static str {
        (self.0)().trim_end_matches("::{{closure}}")
    }
}

impl fmt::Display for Function {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}
