//! A snapshot as a picture: a band for each thread, with a card for each of its stacks.
//!
//! A card shows the use of the stack and the calls that began there. The calls of a thread are
//! numbered in their order. A line leads from the card of a call's caller to the card of the called
//! code.

use std::fmt::Write as _;

use upcall::report::{Call, Direction, Snapshot, Stack, StackKind, Thread};

const CARD: usize = 300;
const GAP: usize = 28;
const ACROSS: usize = 4;
const HEAD: usize = 116;
const LINE: usize = 24;

const STYLE: &str = "text{font:12px sans-serif;fill:#222}.t{font-weight:bold;font-size:14px}.b{font-weight:bold}.s{fill:#666;font-size:11px}\
    .card{fill:#fff;stroke:#bbb}.all{fill:#e4e4e4}.ever{fill:#f3c98b}.now{fill:#d9822b}.up{fill:#dcebfa}.down{fill:#e3f3dc}\
    .way{fill:none;stroke:#555;stroke-width:1.5}";

/// Draws a snapshot as an SVG image for a browser.
///
/// Each thread has a band, with a card for each of its stacks. On the card, a bar shows the stack,
/// with the highest address on the left:
///
/// ```text
///   highest address              lowest address
///   ┌──────────────┬──────────────┬────────────┐
///   │ dark: in use │ light: used  │ never used │
///   │ by open calls│ at some time │            │
///   └──────────────┴──────────────┴────────────┘
/// ```
///
/// The calls of a thread are numbered in their order. A line leads from the card of a call's caller
/// to the card of the called code.
pub fn map(snapshot: &Snapshot) -> String {
    let mut body = String::new();
    let pool = &snapshot.pool;
    let most = snapshot.threads.iter().map(|thread| thread.stacks.len()).max().unwrap_or(0);
    let width = GAP + most.clamp(2, ACROSS) * (CARD + GAP);
    let mut y = 34;
    text(
        &mut body,
        (GAP, y),
        "t",
        &format!(
            "process {}: attached threads {}, stacks handed out {}, idle {}",
            snapshot.process,
            snapshot.threads.len(),
            pool.in_use,
            pool.idle
        ),
    );
    y += 20;
    for thread in &snapshot.threads {
        y = draw_thread(thread, &mut body, y);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{y}\" viewBox=\"0 0 {width} {y}\">\n\
         <style>{STYLE}</style>\n<defs><marker id=\"tip\" markerWidth=\"8\" markerHeight=\"8\" refX=\"7\" refY=\"4\" orient=\"auto\">\
         <path d=\"M0,0 L8,4 L0,8 z\" fill=\"#555\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{y}\" fill=\"#fafafa\"/>\n{body}</svg>\n"
    )
}

/// Draws the thread with its upper edge at `top`. Returns the lower edge.
fn draw_thread(thread: &Thread, out: &mut String, top: usize) -> usize {
    let name = thread.name.as_deref().unwrap_or("unnamed");
    let mut title = format!("thread {name} ({:#x})", thread.id);
    if thread.current {
        title += ", took this snapshot";
    }
    text(out, (GAP, top + 18), "b", &title);
    if let Some(wait) = &thread.waits {
        text(out, (GAP + 8 * title.len(), top + 18), "s", &wait.to_string());
    }
    let mut y = top + 30;
    // For each call, its place on the card of the called code, and on the card of the caller.
    let mut begins: Vec<Option<(usize, usize)>> = vec![None; thread.calls.len()];
    let mut leaves = begins.clone();
    for row in thread.stacks.chunks(ACROSS) {
        let most = row.iter().map(|stack| thread.calls_on(stack).len()).max().unwrap_or(0);
        let height = HEAD + LINE * most + 8;
        for (i, stack) in row.iter().enumerate() {
            let x = GAP + i * (CARD + GAP);
            draw_stack(stack, out, (x, y), height);
            for (line, (number, call)) in thread.calls_on(stack).into_iter().enumerate() {
                let at = (x + 10, y + HEAD + LINE * line);
                if stack.contains(call.sp) {
                    draw_call(call, out, at, number);
                    begins[number - 1] = Some(at);
                } else {
                    text(out, (at.0 + 6, at.1 + 14), "s", &format!("{number}. leaves for C"));
                }
                if stack.contains(call.caller_sp) {
                    leaves[number - 1] = Some(at);
                }
            }
        }
        y += height + GAP;
    }
    for (&from, &to) in leaves.iter().zip(&begins) {
        if let (Some(from), Some(to)) = (from, to) {
            lead(out, from, to);
        }
    }
    y
}

fn draw_stack(stack: &Stack, out: &mut String, (x, y): (usize, usize), height: usize) {
    let size = (stack.high - stack.low).max(1);
    rect(out, "card", (x, y), CARD, height);
    text(out, (x + 10, y + 20), "b", &shortened(&stack.title(), 38));
    let bar = CARD - 20;
    let part = |bytes: usize| (bytes as u128 * bar as u128 / size as u128) as usize;
    let least = |bytes: Option<usize>| bytes.map_or(0, |bytes| part(bytes).max(2));
    rect(out, "all", (x + 10, y + 28), bar, 12);
    rect(out, "ever", (x + 10, y + 28), least(stack.deepest), 12);
    rect(out, "now", (x + 10, y + 28), least(stack.remaining.map(|remaining| size - remaining)), 12);
    let room = match (stack.kind, stack.remaining) {
        (StackKind::Undescribed, _) => "bounds not known".to_owned(),
        (_, Some(remaining)) => format!("{} of {} KiB left", remaining >> 10, size >> 10),
        (_, None) => format!("{} KiB", size >> 10),
    };
    text(out, (x + 10, y + 56), "s", &room);
    text(out, (x + 10, y + 72), "s", &format!("{:#x}..{:#x}", stack.low, stack.high));
    let Some(fiber) = &stack.fiber else { return };
    let (state, place) = match &fiber.waits {
        Some(wait) => (format!("waits for {}", wait.future), format!("{}:{}", wait.file, wait.line)),
        None => ("runs".to_owned(), String::new()),
    };
    text(out, (x + 10, y + 88), "s", &shortened(&state, 44));
    text(out, (x + 10, y + 104), "s", &shortened(&place, 44));
}

fn draw_call(call: &Call, out: &mut String, (x, y): (usize, usize), number: usize) {
    let (class, way) = match call.direction {
        Direction::Upcall => ("up", "C → Rust"),
        Direction::Downcall => ("down", "Rust → C"),
    };
    rect(out, class, (x, y), CARD - 20, LINE - 4);
    // The picture omits generic arguments; the tree has them.
    let function = call.function.unwrap_or_default();
    let function = function.split_once('<').map_or(function, |(path, _)| path);
    text(out, (x + 6, y + 14), "", &shortened(&format!("{number}. {way}  {function}"), 44));
}

fn rect(out: &mut String, class: &str, (x, y): (usize, usize), width: usize, height: usize) {
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"3\"/>"
    );
}

fn text(out: &mut String, (x, y): (usize, usize), class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>");
}

/// Draws a line from a caller to the called code, if they are on different cards.
fn lead(out: &mut String, (x, y): (usize, usize), (to_x, to_y): (usize, usize)) {
    if x == to_x {
        return;
    }
    let middle = LINE / 2 - 2;
    let (y, to_y) = (y + middle, to_y + middle);
    let right = to_x > x;
    let (from, to) = if right { (x + CARD - 20, to_x) } else { (x, to_x + CARD - 20) };
    let (near, far) = if right { (from + GAP, to - GAP) } else { (from - GAP, to + GAP) };
    let _ = writeln!(
        out,
        "<path class=\"way\" marker-end=\"url(#tip)\" d=\"M{from},{y} C{near},{y} {far},{to_y} {to},{to_y}\"/>"
    );
}

/// Shortens a path to `most` characters; its end tells most, so the middle is cut out.
fn shortened(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let head: String = text.chars().take(14).collect();
    let tail: String = text.chars().skip(count - (most - 15)).collect();
    format!("{head}…{tail}")
}
