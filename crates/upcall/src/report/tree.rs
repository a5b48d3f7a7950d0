//! A snapshot as text: a tree of threads, their stacks, and the calls on each stack.

use std::fmt;

use super::snapshot::{Call, Direction, Snapshot, Stack, StackKind, SuspendedCoroutine, Thread, Wait};

impl fmt::Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fibers =
            self.threads.iter().flat_map(|thread| &thread.stacks).filter(|stack| stack.fiber.is_some());
        let pool = &self.pool;
        #[cfg(feature = "runtime")]
        let tasks = Tasks(self.running_tasks);
        #[cfg(not(feature = "runtime"))]
        let tasks = "";
        writeln!(
            out,
            "upcall {}, process {}: {}, {}{}; pool: {} handed out, {} idle, {} MiB of addresses",
            env!("CARGO_PKG_VERSION"),
            self.process,
            Counted(self.threads.len(), "attached thread"),
            Counted(fibers.count(), "fiber"),
            tasks,
            Counted(pool.in_use, "stack"),
            pool.idle,
            pool.reserved_bytes >> 20
        )?;
        for (i, thread) in self.threads.iter().enumerate() {
            let last = i + 1 == self.threads.len();
            write!(out, "{} ", if last { "└─" } else { "├─" })?;
            thread.fmt(out, if last { "   " } else { "│  " })?;
        }
        Ok(())
    }
}

/// The number of running tasks, if there are any.
#[cfg(feature = "runtime")]
struct Tasks(usize);

#[cfg(feature = "runtime")]
impl fmt::Display for Tasks {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(out, ", {}", Counted(self.0, "running task")) }
    }
}

/// A number and a noun, in the singular or plural.
struct Counted(usize, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}

impl Thread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>, before: &str) -> fmt::Result {
        write!(out, "thread {:#x} ({})", self.id, self.name.as_deref().unwrap_or("unnamed"))?;
        if self.current {
            write!(out, ", took this snapshot")?;
        }
        if let Some(wait) = &self.waits {
            write!(out, ", {wait}")?;
        }
        if self.idle_stacks != 0 {
            write!(out, ", keeps {}", Counted(self.idle_stacks, "idle stack"))?;
        }
        if self.abandoned_calls != 0 {
            write!(out, ", {} left by longjmp", Counted(self.abandoned_calls, "downcall"))?;
        }
        writeln!(out)?;
        for coroutine in &self.coroutines {
            writeln!(out, "{before}├─ {coroutine}")?;
        }
        for (i, stack) in self.stacks.iter().enumerate() {
            let last = i + 1 == self.stacks.len();
            writeln!(out, "{before}{} {stack}", if last { "└─" } else { "├─" })?;
            let before = format!("{before}{}", if last { "   " } else { "│  " });
            let calls = self.calls_on(stack);
            for (i, (number, call)) in calls.iter().enumerate() {
                let branch = if i + 1 == calls.len() { "└─" } else { "├─" };
                if stack.contains(call.sp) {
                    writeln!(out, "{before}{branch} {number}. {call}")?;
                } else {
                    writeln!(out, "{before}{branch} {number}. leaves for C")?;
                }
            }
        }
        Ok(())
    }

    /// The calls that began on `stack` or were made from it, each with its number.
    ///
    /// The number is the call's place in [`calls`](Self::calls), from 1.
    pub fn calls_on<'a>(&'a self, stack: &Stack) -> Vec<(usize, &'a Call)> {
        let numbered = self.calls.iter().enumerate().map(|(i, call)| (i + 1, call));
        numbered.filter(|(_, call)| stack.contains(call.sp) || stack.contains(call.caller_sp)).collect()
    }
}

impl Stack {
    /// The kind of the stack in words, with its name.
    pub fn title(&self) -> String {
        let named = |what: &str| match &self.name {
            Some(name) => format!("{what} \"{name}\""),
            None => what.to_owned(),
        };
        match (self.kind, &self.fiber) {
            (StackKind::Own, _) => "own stack".to_owned(),
            (StackKind::Pooled, Some(_)) => named("fiber"),
            (StackKind::Pooled, None) => "pooled stack".to_owned(),
            (StackKind::Registered, _) => named("registered stack"),
            (StackKind::Undescribed, _) => "undescribed stack".to_owned(),
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high, kib) = (self.low, self.high, (self.high - self.low) >> 10);
        write!(out, "{} {low:#x}..{high:#x}", self.title())?;
        if self.kind == StackKind::Undescribed {
            return write!(out, ", estimated");
        }
        write!(out, ", {kib} KiB")?;
        if let Some(remaining) = self.remaining {
            write!(out, ", {} KiB left", remaining >> 10)?;
        }
        if let Some(deepest) = self.deepest {
            write!(out, ", {} KiB used at most", deepest.div_ceil(1024))?;
        }
        match self.fiber.as_ref().map(|fiber| &fiber.waits) {
            Some(Some(wait)) => write!(out, ", {wait}"),
            Some(None) => write!(out, ", runs"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "waits for {} at {}:{}", self.future, self.file, self.line)
    }
}

impl fmt::Display for SuspendedCoroutine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { coroutine, waits, since, is_ready } = self;
        write!(out, "coroutine {coroutine:#x} of the host, suspended for {since:?}, {waits}")?;
        if *is_ready { write!(out, ", can go on: the host has not resumed it") } else { Ok(()) }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.direction, self.function) {
            (Direction::Upcall, Some(function)) => write!(out, "C → Rust, {function}")?,
            (Direction::Upcall, None) => write!(out, "C → Rust")?,
            (Direction::Downcall, Some(function)) => write!(out, "Rust → C, from {function}")?,
            (Direction::Downcall, None) => write!(out, "Rust → C")?,
        }
        write!(out, ", SP {:#x}", self.sp)
    }
}
