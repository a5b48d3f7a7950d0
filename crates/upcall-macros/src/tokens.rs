//! Reading and writing tokens.

use proc_macro::{Delimiter, Group, Span, TokenStream, TokenTree};

/// The tokens without invisible groups. `macro_rules` puts such groups around fragments.
pub fn flat(tokens: TokenStream) -> Vec<TokenTree> {
    let open = |token| match inside(Some(&token), Delimiter::None) {
        Some(tokens) => flat(tokens),
        None => vec![token],
    };
    tokens.into_iter().flat_map(open).collect()
}

/// Whether the token is this word or sign.
pub fn is(token: &TokenTree, what: &str) -> bool {
    match token {
        TokenTree::Ident(ident) => ident.to_string() == what,
        TokenTree::Punct(punct) => what.chars().eq([punct.as_char()]),
        _ => false,
    }
}

/// Whether the tokens begin with this word or sign.
pub fn begins_with(tokens: &[TokenTree], what: &str) -> bool {
    tokens.first().is_some_and(|token| is(token, what))
}

/// The contents of a group with these brackets; `None` for any other token.
pub fn inside(token: Option<&TokenTree>, brackets: Delimiter) -> Option<TokenStream> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == brackets => Some(group.stream()),
        _ => None,
    }
}

/// The place of the first occurrence of a word, also inside brackets.
pub fn find(tokens: &[TokenTree], word: &str) -> Option<Span> {
    tokens.iter().find_map(|token| match token {
        TokenTree::Group(group) => find(&flat(group.stream()), word),
        token => is(token, word).then(|| token.span()),
    })
}

/// The number of tokens before a word or sign; all of them if it is missing.
pub fn until(tokens: &[TokenTree], what: &str) -> usize {
    tokens.iter().position(|token| is(token, what)).unwrap_or(tokens.len())
}

/// The number of tokens before the next comma or unmatched `>`.
///
/// With `in_types`, each `<` is a bracket, and an unmatched `>` ends the part. Otherwise only the
/// `<` of a `::<` is a bracket.
pub fn until_comma(tokens: &[TokenTree], in_types: bool) -> usize {
    let (mut depth, mut previous) = (0, ' ');
    let ends = |token: &TokenTree| {
        let TokenTree::Punct(punct) = token else {
            previous = ' ';
            return false;
        };
        let (sign, before) = (punct.as_char(), std::mem::replace(&mut previous, punct.as_char()));
        match sign {
            '<' if in_types || depth > 0 || before == ':' => depth += 1,
            '>' if depth > 0 && before != '-' => depth -= 1,
            '>' => return in_types && before != '-',
            ',' => return depth == 0,
            _ => {}
        }
        false
    };
    tokens.iter().position(ends).unwrap_or(tokens.len())
}

/// The number of tokens before the `>` that closes a `<` before them; all of them if it is missing.
pub fn until_closed(tokens: &[TokenTree]) -> usize {
    let mut at = 0;
    loop {
        at += until_comma(&tokens[at..], true);
        match tokens.get(at) {
            Some(comma) if is(comma, ",") => at += 1,
            _ => return at,
        }
    }
}

/// Takes the next part of a list with commas. The part may be empty.
pub fn next_part<'a>(list: &mut &'a [TokenTree], in_types: bool) -> &'a [TokenTree] {
    let (part, rest) = list.split_at(until_comma(list, in_types));
    *list = rest.get(1..).unwrap_or_default();
    part
}

/// The code `text` at `span`, with each `$` replaced by the next of `holes`.
pub fn code<const N: usize>(text: &str, holes: [TokenStream; N], span: Span) -> TokenStream {
    fn fill(tokens: TokenStream, holes: &mut impl Iterator<Item = TokenStream>, span: Span) -> TokenStream {
        let mut filled = TokenStream::new();
        for mut token in tokens {
            match &mut token {
                TokenTree::Punct(punct) if punct.as_char() == '$' => {
                    filled.extend(holes.next());
                    continue;
                }
                TokenTree::Group(group) => {
                    *group = Group::new(group.delimiter(), fill(group.stream(), holes, span));
                }
                _ => {}
            }
            token.set_span(span);
            filled.extend([token]);
        }
        filled
    }
    fill(text.parse().expect("tokens of ours"), &mut holes.into_iter(), span)
}

/// A compile error at `span`.
pub fn error(span: Span, message: &str) -> TokenStream {
    code(&format!("::core::compile_error! {{ {message:?} }}"), [], span)
}
