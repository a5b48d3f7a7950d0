//! `cargo xtask tidy`: the rules for prose and rooms in CONTRIBUTING.md, as far as a machine can
//! check them.
//!
//! In git's files it checks the columns of prose, the density of relative clauses, the first lines
//! of doc comments, and the places of platform cfgs. It also checks the subjects of all commits
//! after the one adding this file, and the imports of `upcall` against the table of rooms in
//! ARCHITECTURE.md. Takes a second.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::root;

/// Columns of a line of prose.
const COLUMNS: usize = 100;
/// Columns of a commit's subject.
const SUBJECT: usize = 72;
/// Words counted as the beginnings of relative clauses.
const CLAUSE_WORDS: [&str; 7] = ["that", "which", "who", "whom", "whose", "what", "where"];
/// The most of these words per 100 words of a file's prose. Pages for new users have a lower limit.
const CLAUSES: f64 = 3.0;
const CLAUSES_FOR_USERS: f64 = 2.5;
/// A file with fewer words is not counted: one clause would be too many.
const FEW_WORDS: usize = 100;
/// A file written by `cargo run -p bench`.
const GENERATED: &str = "bench/results.md";
/// Conditions on the platform. In the crates, they belong into `sys/`.
const PLATFORM: [&str; 7] =
    ["target_os", "target_env", "target_arch", "target_vendor", "target_family", "cfg(unix", "cfg(windows"];
/// Openings of doc comments with no meaning of their own.
const OPENINGS: [&str; 4] = ["That", "The same", "See ", "As above"];

pub fn run() -> Result<(), String> {
    let mut findings = Vec::new();
    for path in git(&["ls-files"])?.lines().filter(|path| *path != GENERATED) {
        // Deleted files are listed, too, until the deletion is committed.
        if let (Some(language), Ok(text)) = (Language::of(path), fs::read_to_string(root().join(path))) {
            let found = check(path, language, &text);
            findings.extend(found.into_iter().map(|(line, finding)| format!("{path}:{line}: {finding}")));
        }
    }
    let added = git(&["log", "--diff-filter=A", "--format=%H", "--", "xtask/src/tidy.rs"])?;
    match added.lines().last() {
        Some(first) => {
            let subjects = git(&["log", "--no-merges", "--format=%s", &format!("{first}..HEAD")])?;
            findings.extend(subjects.lines().filter_map(subject));
        }
        None => println!("commits: SKIPPED, this file is not committed"),
    }
    findings.extend(arrows()?);
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

fn git(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git").args(arguments).current_dir(root()).output();
    let output = output.map_err(|error| format!("git: {error}"))?;
    if !output.status.success() {
        return Err(format!("git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The language of a file, by its marks of prose.
#[derive(Clone, Copy, PartialEq)]
enum Language {
    Rust,
    C,
    Shell,
    Markdown,
}

impl Language {
    fn of(path: &str) -> Option<Self> {
        match path.rsplit('.').next()? {
            "rs" => Some(Self::Rust),
            "c" | "h" | "cpp" | "hpp" => Some(Self::C),
            "sh" => Some(Self::Shell),
            "md" => Some(Self::Markdown),
            _ => None,
        }
    }

    /// The prose of a line with nothing else but a mark.
    fn prose(self, line: &str) -> Option<&str> {
        let line = line.trim_start();
        let marks: &[&str] = match self {
            Self::Rust => &["///", "//!", "//"],
            Self::C => &["//", "/*", "* "],
            Self::Shell => &["# "],
            Self::Markdown => &[""],
        };
        marks.iter().find_map(|mark| line.strip_prefix(mark))
    }
}

/// The faults of a file's prose, with their lines.
fn check(path: &str, language: Language, text: &str) -> Vec<(usize, String)> {
    let mut findings = Vec::new();
    let (mut fenced, mut documents) = (false, false);
    let (mut words, mut clauses) = (0, 0);
    let portable = path.starts_with("crates/") && path.contains("/src/") && !path.contains("/sys/");
    for (number, line) in (1..).zip(text.lines()) {
        let Some(prose) = language.prose(line) else {
            (fenced, documents) = (false, false);
            if portable && PLATFORM.iter().any(|condition| line.contains(condition)) {
                findings.push((number, "a condition on the platform outside `sys/`".to_owned()));
            }
            continue;
        };
        let is_fence = prose.trim_start().starts_with("```");
        fenced ^= is_fence;
        // Tables and links cannot be wrapped.
        let wraps = !(prose.contains("](") || prose.contains("]: ") || prose.trim_start().starts_with('|'));
        if !fenced && wraps && line.chars().count() > COLUMNS {
            findings.push((number, format!("{} columns, {COLUMNS} are allowed", line.chars().count())));
        }
        if fenced || is_fence {
            continue;
        }
        let begins = language == Language::Rust && line.trim_start().starts_with("///") && !documents;
        documents = line.trim_start().starts_with("///");
        if begins && OPENINGS.iter().any(|opening| prose.trim_start().starts_with(opening)) {
            findings.push((number, "this first line of a doc comment says nothing alone".to_owned()));
        }
        let plain = without_code(prose);
        let all = plain.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
        for word in all {
            words += 1;
            clauses += usize::from(CLAUSE_WORDS.contains(&word.to_lowercase().as_str()));
        }
    }
    let for_users = path == "README.md" || path.contains("/guide/");
    let limit = if for_users { CLAUSES_FOR_USERS } else { CLAUSES };
    let density = 100.0 * clauses as f64 / words.max(1) as f64;
    if words >= FEW_WORDS && density > limit {
        let counted = CLAUSE_WORDS.join(", ");
        findings.push((1, format!("{density:.1} of 100 words are {counted}; {limit} are allowed")));
    }
    findings
}

/// A line without its parts in backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The fault of a commit's subject, if it has one.
fn subject(subject: &str) -> Option<String> {
    let area = subject.split_once(": ").filter(|(area, verb)| {
        !area.is_empty() && verb.starts_with(|first: char| first.is_lowercase() || !first.is_alphabetic())
    });
    let fits = subject.chars().count() <= SUBJECT;
    (area.is_none() || !fits)
        .then(|| format!("commit \"{subject}\": a subject is `area: verb …`, in {SUBJECT} columns"))
}

/// The imports of `upcall` running down the table of rooms.
fn arrows() -> Result<Vec<String>, String> {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).map_err(|error| error.to_string())?;
    let (rooms, exceptions) = (rooms(&page), exceptions(&page));
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for path in git(&["ls-files", "crates/upcall/src"])?.lines().filter(|path| path.ends_with(".rs")) {
        let room = room_of(path);
        seen.insert(room.to_owned());
        let Ok(text) = fs::read_to_string(root().join(path)) else { continue };
        let Some(place) = rooms.iter().position(|known| *known == room) else { continue };
        for other in imports(&text) {
            let is_below = rooms.iter().position(|known| *known == other).is_some_and(|other| other > place);
            if is_below && !exceptions.contains(&(room, other)) {
                findings
                    .push(format!("{path}: imports `{other}`, a room further down in ARCHITECTURE's table"));
            }
        }
    }
    let unknown = seen.iter().filter(|room| room.as_str() != "lib" && !rooms.contains(&room.as_str()));
    findings.extend(unknown.map(|room| format!("ARCHITECTURE.md: the table of rooms lacks `{room}`")));
    let gone = rooms.iter().filter(|room| !seen.contains(**room));
    findings.extend(gone.map(|room| format!("ARCHITECTURE.md: there is no room `{room}`")));
    Ok(findings)
}

/// The rooms in the order of the table. Its head begins with `| room |`.
fn rooms(page: &str) -> Vec<&str> {
    let rows = page.lines().skip_while(|line| !line.starts_with("| room |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
    names.map(|name| name.trim_end_matches('/').trim_end_matches(".rs")).collect()
}

/// The pairs in sentences of the form "Exception: `from` → `to`".
fn exceptions(page: &str) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    for sentence in page.split("Exception: ").skip(1) {
        let mut names = sentence.split('`').skip(1).step_by(2);
        pairs.extend(names.next().zip(names.next()));
    }
    pairs
}

/// The room of a file of `upcall`: its folder, or its name.
fn room_of(path: &str) -> &str {
    let inside = path.trim_start_matches("crates/upcall/src/");
    inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
}

/// The names after `crate::` in a file's code.
fn imports(text: &str) -> Vec<&str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let paths = code.flat_map(|line| line.split("crate::").skip(1));
    paths.filter_map(|path| path.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        check("src/lib.rs", Language::Rust, text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn long_lines_of_prose_are_found() {
        let long = format!("// {}\n", "word ".repeat(20));
        assert_eq!(found(&format!("let x = 1;\n{long}")), [2]);
        assert_eq!(found(&format!("/// Begins.\n/// ```\n{long}/// ```\n")), [] as [usize; 0]);
    }

    #[test]
    fn first_lines_are_found_that_say_nothing_alone() {
        assert_eq!(
            found("/// The same of a stack.\nfn f() {}\n/// Frees it.\n/// The same.\nfn g() {}\n"),
            [1]
        );
    }

    #[test]
    fn conditions_on_the_platform_are_found_outside_sys() {
        let found =
            |path: &str| check(path, Language::Rust, "#[cfg(target_os = \"linux\")]\nfn f() {}\n").len();
        let paths = ["stack/pool.rs", "sys/linux.rs", "sys/isa/mod.rs"];
        assert_eq!(paths.map(|path| found(&format!("crates/upcall/src/{path}"))), [1, 0, 0]);
        assert_eq!(found("crates/upcall/tests/one_core.rs"), 0);
    }

    #[test]
    fn relative_clauses_are_counted() {
        let prose = |clause: &str| format!("// The caller frees a stack {clause}.\n").repeat(20);
        assert_eq!(found(&prose("in use by nobody")), [] as [usize; 0]);
        assert_eq!(found(&prose("that nobody uses")), [1]);
        assert_eq!(found(&prose("`that` nobody uses")), [] as [usize; 0]);
    }

    #[test]
    fn subjects_have_an_area_and_a_verb() {
        assert_eq!(subject("pool: map a region ahead"), None);
        assert!(subject("Mapped a region ahead").is_some());
        assert!(subject(&format!("pool: {}", "map ".repeat(20))).is_some());
    }

    #[test]
    fn rooms_and_imports_are_read() {
        let page = "| room | concept |\n|---|---|\n| `sync` | locks |\n| `stack/` | memory |\n\nException: `sync` → `stack`.";
        assert_eq!(rooms(page), ["sync", "stack"]);
        assert_eq!(exceptions(page), [("sync", "stack")]);
        assert_eq!(imports("use crate::stack::pool;\n// crate::sync\n crate::thread"), ["stack", "thread"]);
        assert_eq!(room_of("crates/upcall/src/stack/mod.rs"), "stack");
        assert_eq!(room_of("crates/upcall/src/config.rs"), "config");
    }
}
