//! Fibers held up by a blocked worker: they began on it, so no other can run them.
//!
//! The watcher looks for them now and then, as long as workers are busy or have waiting fibers.

use std::fmt::Write;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::queue::Queue;
use super::workers;
use crate::config::settings;
use crate::fiber::blocked::is_first;
use crate::messages::warn;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sys::is_blocked;

/// The default time until a report.
const LONG: Duration = Duration::from_secs(5);
/// The number of fibers named in a message.
const NAMED: usize = 4;

/// What the watcher remembers of busy workers.
pub(super) struct Behind {
    after: Duration,
    next: Option<Instant>,
    /// The busy workers at the last look: each with its step, and the time when it was first
    /// seen in that step.
    at_work: Vec<(&'static Queue, usize, Instant)>,
}

/// A worker long in one step.
struct Stuck {
    worker: String,
    thread: i32,
    /// Where the running fiber was spawned.
    fiber: &'static Location<'static>,
    behind: Vec<Waits>,
}

/// Two places of a waiting fiber: of its spawning, and of its wait.
type Waits = (Option<&'static Location<'static>>, &'static Location<'static>);

impl Behind {
    pub fn new() -> Self {
        let after = settings().wait_warning.unwrap_or(LONG);
        let mut new = Self { after, next: None, at_work: Vec::new() };
        new.postpone();
        new
    }

    fn postpone(&mut self) {
        let now = Instant::now();
        self.next = now.checked_add(self.after / 2).filter(|_| !self.after.is_zero());
    }

    /// When the watcher is to look next; `None` while there is nothing to see.
    pub fn next(&self) -> Option<Instant> {
        let workers = workers::lock();
        let mut all = workers.all.iter();
        let any = all.any(|worker| !workers.is_idle(worker.queue) || worker.queue.has_fibers());
        self.next.filter(|_| any)
    }

    /// Looks, if it is time, and reports stuck workers.
    pub fn look(&mut self) {
        if self.next.is_none_or(|next| Instant::now() < next) {
            return;
        }
        self.postpone();
        for stuck in self.stuck() {
            if is_blocked(stuck.thread) && is_first(stuck.fiber) {
                warn(self.said(&stuck));
            }
        }
    }

    /// The workers with waiting fibers, long in one step.
    fn stuck(&mut self) -> Vec<Stuck> {
        let (now, mut at_work, mut stuck) = (Instant::now(), Vec::new(), Vec::new());
        let workers = workers::lock();
        for worker in workers.all.iter().filter(|worker| !workers.is_idle(worker.queue)) {
            let (queue, step) = (worker.queue, worker.queue.steps.load(Relaxed));
            let known = self.at_work.iter().find(|(known, at, _)| std::ptr::eq(*known, queue) && *at == step);
            let since = known.map_or(now, |(_, _, since)| *since);
            at_work.push((queue, step, since));
            // A worker asleep in a wait runs its fibers there.
            if now - since < self.after || queue.sleeps() {
                continue;
            }
            let Some(fiber) = queue.runs() else { continue };
            let mut behind: Vec<Waits> = Vec::new();
            queue.for_each_fiber(|fiber| {
                behind.extend(fiber.waits_at().map(|at| (fiber.executor.spawned_at.get(), at)));
            });
            if !behind.is_empty() {
                let (worker, thread) = (worker.name.clone(), queue.thread.load(Relaxed));
                stuck.push(Stuck { worker, thread, fiber, behind });
            }
        }
        self.at_work = at_work;
        stuck
    }

    fn said(&self, stuck: &Stuck) -> String {
        let Stuck { worker, fiber, behind, .. } = stuck;
        let count = behind.len();
        let fibers = if count == 1 { "fiber" } else { "fibers" };
        let mut said = format!(
            "the fiber spawned at {fiber} has blocked its worker, {worker}, for {:?}: {count} {fibers} that began there cannot go on meanwhile (",
            self.after
        );
        for (n, (spawned_at, waits_at)) in behind.iter().take(NAMED).enumerate() {
            let comma = if n == 0 { "" } else { "; " };
            let _ = match spawned_at {
                Some(spawned_at) => write!(said, "{comma}spawned at {spawned_at}, at {waits_at}"),
                None => write!(said, "{comma}at {waits_at}"),
            };
        }
        let dots = if count > NAMED { "; …" } else { "" };
        said + dots
            + "). Run calls that block by upcall::blocking. Fibers spawned at this place are not reported again"
    }
}
