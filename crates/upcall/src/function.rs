//! Functions by name, for messages and reports.

use std::any::type_name;
use std::fmt;

/// The Rust function of an open call, identified by a closure's type.
///
/// For an upcall, this is the function called by C. It is stored as a pointer to a function that
/// returns the name, so that a call stores one word.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Function(pub fn() -> &'static str);

impl Function {
    /// The function around closures of the type `F`.
    #[inline(always)]
    pub const fn of<F>() -> Self {
        Self(|| type_name::<F>())
    }

    /// The function around the closure.
    #[inline(always)]
    pub const fn with<F>(_: &F) -> Self {
        Self::of::<F>()
    }

    /// The function's path, such as `geo::geo_render`.
    pub fn name(self) -> &'static str {
        (self.0)().trim_end_matches("::{{closure}}")
    }
}

impl fmt::Display for Function {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}
