//! Programs: the choices of their threads, one after the other, and the expected results.

use std::collections::VecDeque;
use std::fmt;
use std::fmt::Write;

use super::machine::{Machine, RunsOn};
use super::steps::{Choice, Step};

/// A program: threads, and their choices in one possible order.
///
/// A run keeps each thread's own order, and receives nothing before it is sent. Otherwise the order
/// is free.
#[derive(Clone)]
pub struct Program {
    pub seed: u64,
    pub threads: Vec<RunsOn>,
    pub choices: Vec<(usize, Choice)>,
}

/// The models of a program's threads, and their messages under way.
pub struct World {
    machines: Vec<Machine>,
    steps: Vec<Vec<Step>>,
    /// Whether each thread runs already. A thread that is a fiber must be spawned first.
    spawned: Vec<bool>,
    finishing: bool,
    /// Numbers under way, by receiver and sender.
    channels: Vec<Vec<VecDeque<i64>>>,
}

impl World {
    pub fn new(program: &Program) -> Self {
        let threads = &program.threads;
        Self {
            machines: threads.iter().map(|&runs_on| Machine::new(runs_on)).collect(),
            steps: vec![Vec::new(); threads.len()],
            spawned: threads.iter().map(|&runs_on| runs_on == RunsOn::Thread).collect(),
            finishing: false,
            channels: vec![vec![VecDeque::new(); threads.len()]; threads.len()],
        }
    }

    /// Lets a thread take a step. Returns false if the step is not possible.
    pub fn take(&mut self, thread: usize, choice: Choice) -> bool {
        let mut number = 0;
        match choice {
            _ if !self.spawned[thread] => return false,
            Choice::Send(to) => {
                if self.channels[to][thread].len() == 50 {
                    return false;
                }
                number = self.machines[thread].number();
            }
            Choice::Receive(from) => match self.channels[thread][from].front() {
                Some(&received) => number = received,
                None => return false,
            },
            Choice::Spawn(other) if self.spawned[other] => return false,
            Choice::Exit | Choice::ResumeElsewhere(_) if !self.spawned.iter().all(|&spawned| spawned) => {
                return false;
            }
            Choice::Return if self.machines[thread].is_outermost() && !self.finishing => return false,
            _ => {}
        }
        let Some(step) = self.machines[thread].step(choice, number) else { return false };
        self.steps[thread].push(step);
        match choice {
            Choice::Send(to) => self.channels[to][thread].push_back(number),
            Choice::Receive(from) => _ = self.channels[thread][from].pop_front(),
            Choice::Spawn(other) => self.spawned[other] = true,
            _ => {}
        }
        true
    }

    /// Brings every thread to its end.
    fn finish(&mut self) {
        (0..self.machines.len()).for_each(|thread| _ = self.take(0, Choice::Spawn(thread)));
        self.finishing = true;
        for thread in (0..self.machines.len()).rev() {
            while !self.machines[thread].ended {
                let ending = self.machines[thread].ending();
                assert!(
                    ending.iter().any(|&choice| self.take(thread, choice)),
                    "a thread can end: {thread}, which can {ending:?}"
                );
            }
        }
    }
}

impl Program {
    /// Runs the models to the end. Impossible choices are left out.
    fn steps(&self) -> World {
        let mut world = self.world();
        world.finish();
        world
    }

    /// The models after all choices. Impossible choices are left out.
    pub fn world(&self) -> World {
        let mut world = World::new(self);
        for &(thread, choice) in &self.choices {
            world.take(thread, choice);
        }
        world
    }

    /// Returns whether every thread named by a choice has a number below `count`.
    pub fn names_no_thread_from(&self, count: usize) -> bool {
        self.choices.iter().all(|(_, choice)| match choice {
            Choice::Send(other) | Choice::Receive(other) | Choice::Spawn(other) => *other < count,
            _ => true,
        })
    }

    pub fn step_count(&self) -> usize {
        self.steps().steps.iter().map(Vec::len).sum()
    }

    /// The program in the format of `c/model.c`.
    pub fn text(&self, number: usize) -> String {
        let World { machines, steps, .. } = self.steps();
        let leaves = machines.iter().any(|machine| machine.leaves);
        let is_wait = |step: &Step| matches!(step.choice, Choice::Await | Choice::AwaitFiber(_));
        let hooks = steps.iter().flatten().any(is_wait);
        let mut text = format!("{number} {} {} {}\n", steps.len(), i32::from(leaves), i32::from(hooks));
        for (runs_on, steps) in self.threads.iter().zip(&steps) {
            let letter = match runs_on {
                RunsOn::Thread => 't',
                RunsOn::Fiber => 'f',
                RunsOn::Worker => 's',
            };
            writeln!(text, "{letter} {}", steps.len()).unwrap();
            steps.iter().for_each(|step| text.push_str(&step.line()));
        }
        text
    }
}

/// The program in a format for people.
impl fmt::Display for Program {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (steps, runs_on)) in self.steps().steps.iter().zip(&self.threads).enumerate() {
            writeln!(out, "thread {number}, on a {runs_on:?}:")?;
            for (i, step) in steps.iter().enumerate() {
                write!(out, "  {i:3}  frame {:<3} {:?}", step.frame, step.choice)?;
                if step.enters != 0 {
                    write!(out, ", begins frame {}", step.enters)?;
                }
                if step.answer != 0 {
                    write!(out, ", answer {}", step.answer)?;
                }
                if step.caught != 0 {
                    write!(out, ", catches panic {}", step.caught)?;
                }
                match step.choice {
                    Choice::Panic => writeln!(out, " (panic {})", step.a)?,
                    _ => writeln!(out)?,
                }
            }
        }
        Ok(())
    }
}
