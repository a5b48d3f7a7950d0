//! The options `on_panic = …, stack = …, min_stack = …, keep_panic, refuse_after_panic`.

use proc_macro::{Span, TokenStream, TokenTree};

use crate::tokens::{begins_with, code, error, flat, is, next_part};

const NAMES: [&str; 3] = ["on_panic", "stack", "min_stack"];
/// The options without a value.
const FLAGS: [&str; 2] = ["keep_panic", "refuse_after_panic"];
const STACKS: [(&str, &str); 3] = [("\"auto\"", "Auto"), ("\"caller\"", "Caller"), ("\"pooled\"", "Pooled")];

#[derive(Default)]
pub struct Options {
    /// The values given, in the order of [`NAMES`].
    values: [Option<TokenStream>; NAMES.len()],
    /// The places of the flags given, in the order of [`FLAGS`].
    flags: [Option<Span>; FLAGS.len()],
}

impl Options {
    pub fn parse(tokens: TokenStream, errors: &mut TokenStream) -> Self {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut remaining = &tokens[..];
        let mut options = Self::default();
        while let [first, ..] = remaining {
            if let Err(wrong) = options.add(next_part(&mut remaining, false), first.span()) {
                errors.extend(wrong);
            }
        }
        if let ([None, ..], [Some(span), _]) = (&options.values, options.flags) {
            let why =
                "`keep_panic` needs `on_panic`: nobody but C hears of the panic, by the value that it gets";
            errors.extend(error(span, why));
        }
        options
    }

    fn add(&mut self, option: &[TokenTree], span: Span) -> Result<(), TokenStream> {
        let twice = |name| Err(error(span, &format!("`{name}` is given twice")));
        if let Some(at) = FLAGS.iter().position(|name| begins_with(option, name)) {
            return match option.get(1) {
                Some(more) => Err(error(more.span(), &format!("`{}` takes no value", FLAGS[at]))),
                None if self.flags[at].replace(span).is_some() => twice(FLAGS[at]),
                None => Ok(()),
            };
        }
        let Some(at) = NAMES.iter().position(|name| begins_with(option, name)) else {
            return Err(error(
                span,
                "no such option: there are `on_panic`, `stack`, `min_stack`, `keep_panic` and `refuse_after_panic`",
            ));
        };
        if self.values[at].is_some() {
            return twice(NAMES[at]);
        }
        let value = match option.get(1..) {
            Some([equals, value @ ..]) if is(equals, "=") => value,
            _ => &[],
        };
        if value.is_empty() {
            let example = ["on_panic = -1", "stack = \"caller\"", "min_stack = 1 << 20"][at];
            return Err(error(span, &format!("`{}` takes a value, as in `{example}`", NAMES[at])));
        }
        self.values[at] =
            Some(if NAMES[at] == "stack" { choice(value)? } else { value.iter().cloned().collect() });
        Ok(())
    }

    /// The `Entry` for the body.
    pub fn entry(&self, span: Span) -> TokenStream {
        let [_, stack, min_stack] = self.values.clone();
        let mut entry = code("::upcall::entry()", [], span);
        if let Some(choice) = stack {
            entry.extend(code(".stack($)", [choice], span));
        }
        if let Some(bytes) = min_stack {
            entry.extend(code(".min_stack(const { $ })", [bytes], span));
        }
        for (name, _) in FLAGS.iter().zip(self.flags).filter(|(_, given)| given.is_some()) {
            entry.extend(code(&format!(".{name}()"), [], span));
        }
        entry
    }

    /// The function from the error to the value for C, if `on_panic` is given.
    pub fn on_panic(&self, returned: &TokenStream, span: Span) -> Option<TokenStream> {
        let value = self.values[0].clone()?;
        let first = value.clone().into_iter().next()?;
        let is_closure = is(&first, "|") || is(&first, "move");
        Some(if is_closure { value } else { code("move |_| -> $ { $ }", [returned.clone(), value], span) })
    }
}

/// The `StackChoice` named by `value`.
fn choice(value: &[TokenTree]) -> Result<TokenStream, TokenStream> {
    let value = flat(value.iter().cloned().collect());
    let (span, word) = (value[0].span(), value[0].to_string());
    match STACKS.iter().find(|(name, _)| value.len() == 1 && *name == word) {
        Some((_, choice)) => Ok(code(&format!("::upcall::StackChoice::{choice}"), [], span)),
        None => Err(error(span, "no such choice of stack: there are \"auto\", \"caller\" and \"pooled\"")),
    }
}
