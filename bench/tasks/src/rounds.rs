//! Programs that measure in turn, a round each.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::Failure;

/// The figures of one round.
#[derive(Clone, Copy)]
pub struct Round {
    pub figure: f64,
    /// The scene's second figure.
    pub second: f64,
    /// How long the probe took: it shows the load of the machine.
    pub probe: f64,
}

/// A running program, between two rounds.
struct Measuring {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Measuring {
    fn begin(program: &Path, arguments: &str) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
        Ok(Self { child, lines })
    }

    fn line(&mut self) -> Result<String, Failure> {
        Ok(self.lines.next().ok_or("a program has ended early")??)
    }

    fn round(&mut self) -> Result<Round, Failure> {
        let mut asks = self.child.stdin.as_ref().ok_or("no pipe")?;
        asks.write_all(b"\n")?;
        parse(&self.line()?)
    }

    fn end(mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a program ended: {status}").into()) }
    }
}

fn parse(line: &str) -> Result<Round, Failure> {
    let numbers: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [figure, second, probe] = numbers[..] else { return Err(format!("a round printed `{line}`").into()) };
    Ok(Round { figure, second, probe })
}

/// Runs programs with their arguments, and has each measure `rounds` rounds, in turn.
pub fn alternating(programs: &[(&Path, String)], rounds: usize) -> Result<Vec<Vec<Round>>, Failure> {
    let mut all = Vec::new();
    for (program, arguments) in programs {
        let mut program = Measuring::begin(program, arguments)?;
        program.line()?;
        all.push((program, Vec::new()));
    }
    let count = all.len();
    for number in 0..rounds {
        for step in 0..count {
            // Each begins some rounds, and follows one neighbour in half of them.
            let place = (number + step) % count;
            let (program, rounds) = &mut all[if number % 2 == 0 { place } else { count - 1 - place }];
            rounds.push(program.round()?);
        }
    }
    let end = |(program, rounds): (Measuring, _)| program.end().map(|()| rounds);
    all.into_iter().map(end).collect()
}

/// Runs a program with one round, at once.
pub fn once(program: &Path, arguments: &str) -> Result<Round, Failure> {
    let mut program = Measuring::begin(program, arguments)?;
    let round = parse(&program.line()?)?;
    program.end()?;
    Ok(round)
}

pub fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
