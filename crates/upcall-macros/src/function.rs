//! The function under `#[upcall::export]`: its checks and its expansion.

use proc_macro::{Delimiter, Ident, Spacing, Span, TokenStream, TokenTree};

use crate::options::Options;
use crate::tokens::{begins_with, code, error, find, flat, inside, is, next_part, until_closed};

pub struct Function {
    /// Everything up to the parameters.
    head: TokenStream,
    parameters: Vec<Parameter>,
    /// The return type; `()` if there is none.
    returned: TokenStream,
    /// The `where` clause between the return type and the body.
    bounds: TokenStream,
    body: TokenTree,
}

struct Parameter {
    attributes: TokenStream,
    pattern: Vec<TokenTree>,
    /// The type, with the colon before it.
    of_type: TokenStream,
}

impl Function {
    /// Parses a function; `None` if the item is not a function with a body.
    pub fn parse(item: TokenStream, errors: &mut TokenStream) -> Option<Self> {
        let mut refuse = |span: Span, message: &str| errors.extend(error(span, message));
        let item = flat(item);
        let (attributes, remaining) = after_attributes(&item);
        let at = remaining.iter().position(|token| is(token, "fn")).unwrap_or(remaining.len());
        let (qualifiers, [keyword, TokenTree::Ident(name), signature @ ..]) = remaining.split_at(at) else {
            refuse(
                remaining.first()?.span(),
                "`export` is for functions: write it above a `pub extern \"C\" fn`",
            );
            return None;
        };
        let Some((body, signature)) =
            signature.split_last().filter(|(body, _)| inside(Some(*body), Delimiter::Brace).is_some())
        else {
            refuse(name.span(), "there is no body that could run: `export` is for functions written in Rust");
            return None;
        };
        let (length, generic) = generics_at(signature);
        let (generics, signature) = signature.split_at(length);
        check_symbol(attributes, qualifiers, name, generic, &mut refuse);
        check_qualifiers(qualifiers, keyword, &mut refuse);

        let (list, signature) = signature.split_first()?;
        let list = flat(inside(Some(list), Delimiter::Parenthesis)?);
        let end = signature.iter().position(|token| is(token, "where")).unwrap_or(signature.len());
        let (arrow, bounds) = signature.split_at(end);
        let returned = arrow.get(2..).unwrap_or_default();
        if let Some(span) = find(&list, "impl") {
            refuse(span, "a pointer to it names its types: write a type parameter in place of `impl`");
        }
        if let Some(span) = find(returned, "impl") {
            refuse(span, "C has to know the type: write it in place of `impl`");
        }
        if let [never] = returned {
            if is(never, "!") {
                refuse(never.span(), "C goes on after a panic: write which type it gets then");
            }
        }
        let (mut list, mut parameters) = (&list[..], Vec::new());
        while !list.is_empty() {
            parameters.extend(Parameter::parse(next_part(&mut list, true), &mut refuse));
        }
        Some(Self {
            head: [attributes, qualifiers, &[keyword.clone(), name.clone().into()], generics]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            parameters,
            returned: if arrow.is_empty() { code("()", [], name.span()) } else { stream(returned) },
            bounds: stream(bounds),
            body: body.clone(),
        })
    }

    /// The function with its body in a closure.
    ///
    /// All parameters move into the closure, so they are dropped there.
    pub fn exported(self, options: &Options) -> TokenStream {
        let Self { head, parameters, returned, bounds, body } = self;
        let span = Span::mixed_site().located_at(body.span());
        let (on_panic, on_error) = (options.on_panic(&returned, span), options.on_error(&returned, span));
        let answers: Vec<_> = [&on_panic, &on_error].into_iter().flatten().cloned().flat_map(flat).collect();
        let (mut list, mut moved) = (TokenStream::new(), TokenStream::new());
        for (index, Parameter { attributes, pattern, of_type }) in parameters.into_iter().enumerate() {
            let let_be = |pattern, value: &TokenStream| {
                code("$ let $ = $;", [attributes.clone(), pattern, value.clone()], span)
            };
            let name = match &pattern[..] {
                [TokenTree::Ident(name)] if name.to_string() != "_" => stream(&pattern),
                [mutable, name @ TokenTree::Ident(_)] if is(mutable, "mut") => name.clone().into(),
                _ => {
                    // Moves all of the argument: the pattern alone may leave parts behind.
                    let name = code(&format!("_argument{index}"), [], span);
                    moved.extend(let_be(name.clone(), &name));
                    name
                }
            };
            if find(&answers, &name.to_string()).is_some() {
                // `on_panic` or `on_error` uses this parameter, even if the body does not.
                moved.extend(code("#[allow(unused_variables)]", [], span));
            }
            moved.extend(let_be(stream(&pattern), &name));
            list.extend(code("$ $ $,", [attributes, name, of_type], span));
        }
        let entry = options.entry(span);
        // The label avoids the compiler's warning about a needless block.
        let body = match on_error {
            None => code("move || -> $ { $ '_body: $ }", [returned.clone(), moved, body.into()], span),
            Some(on_error) => code(
                "move || -> $ { ::upcall::__private::or_error(move || -> ::upcall::__private::Fallible<$> { $ '_body: $ }, $) }",
                [returned.clone(), returned.clone(), moved, body.into(), on_error],
                span,
            ),
        };
        let call = match on_panic {
            Some(on_panic) => code("::upcall::__private::export_or($, $, $)", [entry, body, on_panic], span),
            None => {
                // The type decides whether there is a zero, so errors point to it.
                let span =
                    returned.clone().into_iter().next().map_or(span, |first| span.located_at(first.span()));
                code("::upcall::__private::export::<$, _>($, $)", [returned.clone(), entry, body], span)
            }
        };
        code("$ ($) -> $ $ { $ }", [head, list, returned, bounds, call], span)
    }
}

impl Parameter {
    fn parse(tokens: &[TokenTree], refuse: &mut impl FnMut(Span, &str)) -> Option<Self> {
        let (attributes, remaining) = after_attributes(tokens);
        let (pattern, of_type) = remaining.split_at(colon(remaining).unwrap_or(remaining.len()));
        if let Some(span) = find(pattern, "self") {
            refuse(span, "C knows no methods: write a function, with a pointer as its first parameter");
        }
        if remaining.windows(3).any(|dots| dots.iter().all(|dot| is(dot, "."))) {
            refuse(
                remaining.first()?.span(),
                "each argument is passed on: write a parameter for each, or take a pointer and a length",
            );
        }
        Some(Self { attributes: stream(attributes), pattern: pattern.to_vec(), of_type: stream(of_type) })
    }
}

fn check_symbol(
    attributes: &[TokenTree],
    qualifiers: &[TokenTree],
    name: &Ident,
    generic: Option<Span>,
    refuse: &mut impl FnMut(Span, &str),
) {
    let has_symbol = ["no_mangle", "export_name"].iter().any(|name| find(attributes, name).is_some());
    let is_public =
        begins_with(qualifiers, "pub") && inside(qualifiers.get(1), Delimiter::Parenthesis).is_none();
    if let (Some(generic), true) = (generic, has_symbol) {
        refuse(
            generic,
            "a generic function has no symbol: leave out `no_mangle`, and give C a pointer to an instance",
        );
    } else if has_symbol && !is_public {
        refuse(name.span(), "cbindgen leaves out what is not public: write `pub`");
    }
}

fn check_qualifiers(qualifiers: &[TokenTree], keyword: &TokenTree, refuse: &mut impl FnMut(Span, &str)) {
    if let Some(span) = find(qualifiers, "const") {
        refuse(span, "an upcall cannot be evaluated at compile time: leave out `const`");
    }
    if let Some(span) = find(qualifiers, "async") {
        refuse(
            span,
            "C cannot await: leave out `async`, and call `upcall::wait` where there is something to wait for",
        );
    }
    let mut from_extern = qualifiers.iter().skip_while(|token| !is(token, "extern"));
    match (from_extern.next(), from_extern.next()) {
        (None, _) => refuse(keyword.span(), "C could not call it: write `extern \"C\" fn`"),
        (_, Some(TokenTree::Literal(abi)))
            if !["\"C\"", "\"C-unwind\""].contains(&abi.to_string().as_str()) =>
        {
            refuse(abi.span(), "C calls by its own ABI: write `extern \"C\"`");
        }
        _ => {}
    }
}

/// Splits the attributes at the beginning from the rest.
fn after_attributes(tokens: &[TokenTree]) -> (&[TokenTree], &[TokenTree]) {
    let mut length = 0;
    while begins_with(&tokens[length..], "#") {
        length += 2;
    }
    tokens.split_at(length)
}

/// The number of tokens in `<>`, and the first parameter that is not a lifetime; 0 without `<>`.
fn generics_at(signature: &[TokenTree]) -> (usize, Option<Span>) {
    if !begins_with(signature, "<") {
        return (0, None);
    }
    let (inside, _) = signature[1..].split_at(until_closed(&signature[1..]));
    let (mut list, mut generic) = (inside, None);
    while !list.is_empty() {
        let parameter = next_part(&mut list, true);
        let first = parameter.first().filter(|first| !is(first, "'"));
        generic = generic.or(first.map(TokenTree::span));
    }
    (inside.len() + 2, generic)
}

/// The position of the first colon that does not belong to a `::`.
fn colon(tokens: &[TokenTree]) -> Option<usize> {
    let spacing = |at: usize| match tokens.get(at) {
        Some(TokenTree::Punct(punct)) if punct.as_char() == ':' => Some(punct.spacing()),
        _ => None,
    };
    let is_double = |at: usize| spacing(at) == Some(Spacing::Joint) && spacing(at + 1).is_some();
    (0..tokens.len()).find(|&at| spacing(at).is_some() && !is_double(at) && !(at > 0 && is_double(at - 1)))
}

fn stream(tokens: &[TokenTree]) -> TokenStream {
    tokens.iter().cloned().collect()
}
