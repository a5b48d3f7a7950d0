//! `cargo xtask guide`: the guide as pages, for readers of the repository.
//!
//! The chapters in `crates/upcall/guide` are written for rustdoc: examples have hidden lines, and
//! links name items. The pages in `docs/guide` have neither.

use std::fs;

use crate::root;

/// The documentation of an item is found by the search of docs.rs.
const SEARCH: &str = "https://docs.rs/upcall/latest/upcall/?search=";

pub fn write() -> Result<(), String> {
    let folder = root().join("docs/guide");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (name, page) in pages()? {
        fs::write(folder.join(&name), page).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// The pages, by file name.
pub fn pages() -> Result<Vec<(String, String)>, String> {
    let folder = root().join("crates/upcall/guide");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().into_string()).collect();
    names.sort();
    let mut chapters = Vec::new();
    for name in names {
        let name = name.map_err(|name| format!("{name:?}: not in UTF-8"))?;
        let text = fs::read_to_string(folder.join(&name)).map_err(|error| format!("{name}: {error}"))?;
        chapters.push((name, text));
    }
    let files: Vec<String> = chapters.iter().map(|(name, _)| name.clone()).collect();
    Ok(chapters.into_iter().map(|(name, text)| (name, page(&text, &files))).collect())
}

/// A chapter without hidden lines, and with links for the web.
fn page(chapter: &str, files: &[String]) -> String {
    let mut page = String::new();
    // Whether the code is Rust, inside a block of code.
    let mut code: Option<bool> = None;
    for line in chapter.lines() {
        if let Some(language) = line.strip_prefix("```") {
            let is_rust = language.is_empty() || language.starts_with("rust");
            code = if code.is_none() { Some(is_rust) } else { None };
            page += if language.starts_with("rust") { "```rust" } else { line };
        } else if code == Some(true) && (line == "#" || line.starts_with("# ")) {
            continue;
        } else if code.is_some() {
            page += line;
        } else {
            page += &linked(line, files);
        }
        page.push('\n');
    }
    page
}

/// A line with its links to items replaced.
fn linked(line: &str, files: &[String]) -> String {
    if let Some((label, item)) = line.strip_prefix('[').and_then(|line| line.split_once("]: ")) {
        return format!("[{label}]: {}", address(item, files));
    }
    let mut parts = line.split("](");
    let mut linked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (target, rest) = part.split_once(')').unwrap_or((part, ""));
        linked += &format!("]({}){rest}", address(target, files));
    }
    linked
}

/// The address of an item or chapter; of anything else, the target itself.
fn address(target: &str, files: &[String]) -> String {
    let item = target.split_once('@').map_or(target, |(_, item)| item).trim_end_matches("()");
    if let Some(chapter) = item.strip_prefix("crate::guide::") {
        let (name, anchor) = chapter.split_once('#').unwrap_or((chapter, ""));
        let wanted = format!("{}.md", name.replace('_', "-"));
        let file = files.iter().find(|file| file.split_once('-').is_some_and(|(_, rest)| rest == wanted));
        let anchor = if anchor.is_empty() { String::new() } else { format!("#{anchor}") };
        return file.map_or_else(|| target.to_owned(), |file| format!("{file}{anchor}"));
    }
    match item.strip_prefix("crate::") {
        Some(path) => {
            // `with` alone finds too much; of a longer path, the search needs two names.
            let parent = path.rmatch_indices("::").nth(1);
            format!("{SEARCH}{}", parent.map_or(path, |(colons, _)| &path[colons + 2..]))
        }
        None if item.starts_with("stackbounds::") => {
            let name = item.trim_start_matches("stackbounds::");
            format!("https://docs.rs/stackbounds/latest/stackbounds/?search={name}")
        }
        None => target.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_current() {
        for (name, page) in pages().unwrap() {
            let committed = fs::read_to_string(root().join("docs/guide").join(&name)).unwrap_or_default();
            assert!(committed == page, "docs/guide/{name} is old: cargo xtask guide");
        }
    }

    #[test]
    fn hidden_lines_go_and_links_lead_somewhere() {
        let files = ["04-waiting.md", "07-checking-hosts.md", "10-hosts.md"].map(str::to_owned);
        let chapter = "[`wait`] by [waiting](crate::guide::waiting#locks)\n```toml\n# shown\n```\n```rust,no_run\n# hidden\nshown();\n#[test]\n```\n[`wait`]: crate::wait()\n";
        let expected = "[`wait`] by [waiting](04-waiting.md#locks)\n```toml\n# shown\n```\n```rust\nshown();\n#[test]\n```\n[`wait`]: https://docs.rs/upcall/latest/upcall/?search=wait\n";
        assert_eq!(page(chapter, &files), expected);
        let links = "[a](crate::guide::hosts), [b](crate::guide::checking_hosts), [c](crate::callback::Callback::new), [d](stackbounds::register)";
        let expected = "[a](10-hosts.md), [b](07-checking-hosts.md), [c](https://docs.rs/upcall/latest/upcall/?search=Callback::new), [d](https://docs.rs/stackbounds/latest/stackbounds/?search=register)";
        assert_eq!(linked(links, &files), expected);
    }
}
