//! `on_panic = …, stack = …, min_stack = …`.

use proc_macro::{Span, TokenStream, TokenTree};

use crate::tokens::{begins_with, code, error, flat, is, next_part};

const NAMES: [&str; 3] = ["on_panic", "stack", "min_stack"];
const STACKS: [(&str, &str); 3] = [("\"auto\"", "Auto"), ("\"caller\"", "Caller"), ("\"pooled\"", "Pooled")];

/// The values, in the order of [`NAMES`].
#[derive(Default)]
pub struct Options([Option<TokenStream>; 3]);

impl Options {
    pub fn parse(tokens: TokenStream, errors: &mut TokenStream) -> Self {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut left = &tokens[..];
        let mut options = Self::default();
        while let [first, ..] = left {
            if let Err(wrong) = options.add(next_part(&mut left, false), first.span()) {
                errors.extend(wrong);
            }
        }
        options
    }

    fn add(&mut self, option: &[TokenTree], span: Span) -> Result<(), TokenStream> {
        let Some(at) = NAMES.iter().position(|name| begins_with(option, name)) else {
            return Err(error(span, "no such option: there are `on_panic`, `stack` and `min_stack`"));
        };
        if self.0[at].is_some() {
            return Err(error(span, &format!("`{}` is given twice", NAMES[at])));
        }
        let value = match option.get(1..) {
            Some([equals, value @ ..]) if is(equals, "=") => value,
            _ => &[],
        };
        if value.is_empty() {
            let example = ["on_panic = -1", "stack = \"caller\"", "min_stack = 1 << 20"][at];
            return Err(error(span, &format!("`{}` takes a value, as in `{example}`", NAMES[at])));
        }
        self.0[at] =
            Some(if NAMES[at] == "stack" { choice(value)? } else { value.iter().cloned().collect() });
        Ok(())
    }

    /// The `Entry` that the body enters.
    pub fn entry(&self, span: Span) -> TokenStream {
        let [_, stack, min_stack] = self.0.clone();
        let mut entry = code("::upcall::entry()", [], span);
        if let Some(choice) = stack {
            entry.extend(code(".stack($)", [choice], span));
        }
        if let Some(bytes) = min_stack {
            entry.extend(code(".min_stack(const { $ })", [bytes], span));
        }
        entry
    }

    /// The function from the error to the value that C gets, if one is given.
    pub fn on_panic(&self, returned: &TokenStream, span: Span) -> Option<TokenStream> {
        let value = self.0[0].clone()?;
        let first = value.clone().into_iter().next()?;
        let is_closure = is(&first, "|") || is(&first, "move");
        Some(if is_closure { value } else { code("move |_| -> $ { $ }", [returned.clone(), value], span) })
    }
}

/// The `StackChoice` that this names.
fn choice(value: &[TokenTree]) -> Result<TokenStream, TokenStream> {
    let value = flat(value.iter().cloned().collect());
    let (span, word) = (value[0].span(), value[0].to_string());
    match STACKS.iter().find(|(name, _)| value.len() == 1 && *name == word) {
        Some((_, choice)) => Ok(code(&format!("::upcall::StackChoice::{choice}"), [], span)),
        None => Err(error(span, "no such choice of stack: there are \"auto\", \"caller\" and \"pooled\"")),
    }
}
