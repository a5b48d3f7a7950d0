//! `upcall::c_api!`: exports each of upcall's C functions under the library's own prefix.
//!
//! `upcall` passes the signatures, so only one crate knows them. The input is `[path of upcall] {
//! functions } { functions for libraries with fibers } arguments`.

use proc_macro::{Delimiter, Ident, Span, TokenStream, TokenTree};

use crate::tokens::{begins_with, code, error, flat, inside, is, next_part, until};

/// The name of the option, and of the parameter that takes its value.
const FIBERS: &str = "fibers";

/// The prefix of names if the library's author gives none.
const DEFAULT: &str = "upcall";

/// Rust's keywords. None makes a good prefix, and most are slips.
const KEYWORDS: [&str; 42] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "else",
    "enum", "extern", "false", "final", "fn", "for", "if", "impl", "in", "let", "loop", "macro", "match",
    "mod", "move", "mut", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "type", "unsafe", "use", "where", "while",
];

/// The arguments written by the library's author.
struct Arguments {
    prefix: Option<Ident>,
    fibers: Option<Fibers>,
}

struct Fibers {
    name: Span,
    value: TokenStream,
}

pub fn expand(input: TokenStream) -> TokenStream {
    let input: Vec<_> = input.into_iter().collect();
    let [upcall, always, with_fibers, arguments @ ..] = &input[..] else {
        return error(Span::call_site(), "write `upcall::c_api!`");
    };
    let arguments = match Arguments::parse(&flat(arguments.iter().cloned().collect())) {
        Ok(arguments) => arguments,
        Err(wrong) => return wrong,
    };
    let list = |group, delimiter| inside(Some(group), delimiter).unwrap_or_default();
    let mut functions = list(always, Delimiter::Brace);
    if let Some(Fibers { name, .. }) = &arguments.fibers {
        let with_fibers = list(with_fibers, Delimiter::Brace);
        if with_fibers.is_empty() {
            return error(*name, "C runs fibers with the feature `runtime` of upcall only");
        }
        functions.extend(with_fibers);
    }
    forwards(&list(upcall, Delimiter::Bracket), &flat(functions), &arguments)
}

impl Arguments {
    fn parse(tokens: &[TokenTree]) -> Result<Self, TokenStream> {
        let mut arguments = Self { prefix: None, fibers: None };
        let mut remaining = tokens;
        while let [first, ..] = remaining {
            arguments.add(next_part(&mut remaining, false), first)?;
        }
        Ok(arguments)
    }

    /// Adds an argument. `first` is its first token, or the comma if the argument is empty.
    fn add(&mut self, argument: &[TokenTree], first: &TokenTree) -> Result<(), TokenStream> {
        let span = first.span();
        match argument {
            [name, equals, value @ ..] if is(equals, "=") => {
                if !is(name, FIBERS) {
                    return Err(error(span, "no such option: there is `fibers`"));
                }
                if value.is_empty() {
                    return Err(without_value(span));
                }
                if self.fibers.is_some() {
                    return Err(error(span, "`fibers` is given twice"));
                }
                self.fibers = Some(Fibers { name: span, value: value.iter().cloned().collect() });
            }
            [name] if is(name, FIBERS) => return Err(without_value(span)),
            [TokenTree::Ident(prefix)] => {
                if self.prefix.is_some() {
                    return Err(error(span, "the prefix is given twice: write `c_api!` once for each"));
                }
                if self.fibers.is_some() {
                    return Err(error(span, "the prefix comes first, as in `c_api!(geo, fibers = FIBERS)`"));
                }
                check_prefix(prefix)?;
                self.prefix = Some(prefix.clone());
            }
            [TokenTree::Literal(_)] => {
                return Err(error(span, "the prefix is an identifier, without quotes: `c_api!(geo)`"));
            }
            [] => return Err(error(span, "something is missing before this comma: a prefix, or an option")),
            _ => {
                return Err(error(
                    span,
                    "write a prefix, and perhaps `fibers`: `c_api!(geo, fibers = FIBERS)`",
                ));
            }
        }
        Ok(())
    }
}

fn without_value(span: Span) -> TokenStream {
    error(span, "`fibers` takes a value, as in `fibers = FIBERS`")
}

fn check_prefix(prefix: &Ident) -> Result<(), TokenStream> {
    let text = prefix.to_string();
    let refuse = |message: &str| Err(error(prefix.span(), message));
    if KEYWORDS.contains(&&*text) || text.starts_with("r#") || text == "Self" || text.starts_with('$') {
        return refuse(&format!(
            "`{text}` is a keyword: a prefix is the library's name, as in `c_api!(geo)`"
        ));
    }
    if !text.is_ascii() {
        return refuse("names of C have letters, digits and `_`");
    }
    if text.starts_with('_') {
        return refuse("C keeps names that begin with `_` for itself");
    }
    if let Some(name) = text.strip_suffix('_') {
        return refuse(&format!("an underscore is put behind the prefix: write `{name}`"));
    }
    Ok(())
}

/// The exported functions, unnamed for Rust: they are inside `const _`.
fn forwards(upcall: &TokenStream, mut functions: &[TokenTree], arguments: &Arguments) -> TokenStream {
    let span = arguments.prefix.as_ref().map_or(Span::call_site(), Ident::span);
    let prefix = arguments.prefix.as_ref().map_or(DEFAULT.to_owned(), Ident::to_string);
    let mut all = TokenStream::new();
    while !functions.is_empty() {
        let (function, rest) = functions.split_at(until(functions, ";"));
        functions = &rest[1..];
        all.extend(forward(upcall, function, &prefix, arguments, span));
    }
    code("const _: () = { $ };", [all], Span::mixed_site().located_at(span))
}

/// The function `prefix_name` for a signature `unsafe fn name(parameter: Type, …) -> Type`.
fn forward(
    upcall: &TokenStream,
    signature: &[TokenTree],
    prefix: &str,
    arguments: &Arguments,
    span: Span,
) -> TokenStream {
    let (keyword, signature) = signature.split_at(until(signature, "fn"));
    let [_, TokenTree::Ident(name), list, returned @ ..] = signature else {
        unreachable!("the signatures are upcall's")
    };
    let list = flat(inside(Some(list), Delimiter::Parenthesis).unwrap_or_default());
    let (mut list, mut parameters, mut passed) = (&list[..], TokenStream::new(), TokenStream::new());
    while !list.is_empty() {
        let parameter = next_part(&mut list, true);
        match &arguments.fibers {
            Some(fibers) if begins_with(parameter, FIBERS) => {
                passed.extend(code("const { $ },", [fibers.value.clone()], span));
            }
            _ => {
                passed.extend(code("$,", [parameter[..1].iter().cloned().collect()], span));
                parameters.extend(code("$,", [parameter.iter().cloned().collect()], span));
            }
        }
    }
    let symbol = TokenTree::from(Ident::new(&format!("{prefix}_{name}"), span));
    let name = TokenTree::from(name.clone());
    let mut call = code("$::c::$($)", [upcall.clone(), name.into(), passed], span);
    if !keyword.is_empty() {
        call = code("unsafe { $ }", [call], span);
    }
    code(
        "#[unsafe(no_mangle)] $ extern \"C\" fn $($) $ { $ }",
        [
            keyword.iter().cloned().collect(),
            symbol.into(),
            parameters,
            returned.iter().cloned().collect(),
            call,
        ],
        span,
    )
}
