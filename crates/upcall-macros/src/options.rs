//! The options `on_error = …, on_panic = …, stack = …, min_stack = …, keep_panic,
//! refuse_after_panic`.

use proc_macro::{Span, TokenStream, TokenTree};

use crate::tokens::{begins_with, code, error, flat, is, next_part, until_closed};

const NAMES: [&str; 4] = ["on_panic", "stack", "min_stack", "on_error"];
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
        if let ([None, .., None], [Some(span), _]) = (&options.values, options.flags) {
            let why =
                "`keep_panic` needs `on_panic`: nobody but C hears of the panic, by the value that it gets";
            errors.extend(error(span, why));
        }
        if let [None, .., Some(on_error)] = &options.values {
            if let Form::Closure(span) = Form::of(on_error) {
                let why = "this is a function of the error, so C needs a value after a panic, too: add `on_panic = …`";
                errors.extend(error(span, why));
            }
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
                "no such option: there are `on_error`, `on_panic`, `stack`, `min_stack`, `keep_panic` and `refuse_after_panic`",
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
            let example = ["on_panic = -1", "stack = \"caller\"", "min_stack = 1 << 20", "on_error = -1"][at];
            return Err(error(span, &format!("`{}` takes a value, as in `{example}`", NAMES[at])));
        }
        self.values[at] =
            Some(if NAMES[at] == "stack" { choice(value)? } else { value.iter().cloned().collect() });
        Ok(())
    }

    /// The `Entry` for the body.
    pub fn entry(&self, span: Span) -> TokenStream {
        let [_, stack, min_stack, _] = self.values.clone();
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

    /// The function from the error of the upcall to the value for C, if there is one.
    ///
    /// Without `on_panic`, the value of `on_error` serves.
    pub fn on_panic(&self, returned: &TokenStream, span: Span) -> Option<TokenStream> {
        let returned = || returned.clone();
        Some(match &self.values {
            [Some(value), ..] => answer(
                value,
                "move |error| -> $ { ::upcall::__private::OnPanic::<$, _>::on_panic($, error) }",
                returned(),
                span,
            ),
            [None, .., on_error] => {
                let value = on_error.as_ref()?;
                let value = match Form::of(value) {
                    // The type of what the path names decides, so errors point to it.
                    Form::Path(at) => code(
                        "::upcall::__private::AlsoOnPanic::<$>::value($)",
                        [returned(), value.clone()],
                        span.located_at(at),
                    ),
                    _ => value.clone(),
                };
                let same = "move |error| -> $ {
                    #[allow(unused_imports)]
                    use ::upcall::__private::{OfAny as _, OfStatus as _};
                    let value: $ = $;
                    (&::upcall::__private::Returned::<$>::TYPE).after_panic()(value, error)
                }";
                code(same, [returned(), returned(), value, returned()], span)
            }
        })
    }

    /// The function from the error of the body to the value for C, if `on_error` is given.
    pub fn on_error(&self, returned: &TokenStream, span: Span) -> Option<TokenStream> {
        let value = self.values[3].as_ref()?;
        let path = "move |error: &(dyn ::core::error::Error + 'static)| -> $ { ::upcall::__private::OnError::<$, _>::on_error($, error) }";
        Some(answer(value, path, returned.clone(), span))
    }
}

/// The form of an option's value.
enum Form {
    Closure(Span),
    /// A path to a value or to a function: the tokens do not tell which.
    Path(Span),
    /// Any other expression, a value.
    Value,
}

impl Form {
    fn of(value: &TokenStream) -> Self {
        let tokens = flat(value.clone());
        let Some(first) = tokens.first() else { return Self::Value };
        if is(first, "|") || is(first, "move") {
            return Self::Closure(first.span());
        }
        if is_path(&tokens) { Self::Path(first.span()) } else { Self::Value }
    }
}

/// Whether the tokens are a path: names and parts in `<>`, with `::` between them.
fn is_path(tokens: &[TokenTree]) -> bool {
    let mut remaining = tokens;
    if let [first, second, rest @ ..] = remaining {
        if is(first, ":") && is(second, ":") {
            remaining = rest;
        }
    }
    loop {
        remaining = match remaining {
            [TokenTree::Ident(_), rest @ ..] => rest,
            [open, rest @ ..] if is(open, "<") => match rest.get(until_closed(rest)..) {
                Some([_, rest @ ..]) => rest,
                _ => return false,
            },
            _ => return false,
        };
        remaining = match remaining {
            [] => return true,
            [first, second, rest @ ..] if is(first, ":") && is(second, ":") => rest,
            _ => return false,
        };
    }
}

/// The function from an error to the value for C: `value` if it is a closure, `path` around it if
/// it is a path, or else a function that returns it.
fn answer(value: &TokenStream, path: &str, returned: TokenStream, span: Span) -> TokenStream {
    match Form::of(value) {
        Form::Closure(_) => value.clone(),
        // The type of what the path names decides, so errors point to it.
        Form::Path(at) => code(path, [returned.clone(), returned, value.clone()], span.located_at(at)),
        Form::Value => code("move |_| -> $ { $ }", [returned, value.clone()], span),
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
