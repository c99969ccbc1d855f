//! Passed and failed checks, with a line for each during the run.

use std::process::ExitCode;
use std::time::Instant;

/// Result of one check: an error with the expected and the actual value if they differ.
pub type Check = Result<(), String>;

/// How many checks passed, and the names of those that failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub passed: usize,
    pub failed: Vec<String>,
}

impl Sum {
    /// First word of the line that [`Report::hand_over`] prints.
    const LINE: &str = "sum:";

    /// Returns the sum that a process for one part of the suite printed, if `line` is that.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(Self::LINE)?.split('\t');
        let passed = words.next()?.trim().parse().ok()?;
        Some(Sum { passed, failed: words.map(str::to_owned).collect() })
    }

    pub fn add(&mut self, other: Sum) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
    }
}

pub struct Report {
    begun: Instant,
    sum: Sum,
    chapter: String,
    /// Prints only failures.
    quiet: bool,
}

impl Report {
    pub fn new() -> Self {
        Report { begun: Instant::now(), sum: Sum::default(), chapter: String::new(), quiet: false }
    }

    /// Returns a report for preparations that should not be printed.
    pub fn quiet() -> Self {
        Report { quiet: true, ..Report::new() }
    }

    /// Returns the failures as an error, if there are any.
    pub fn all_passed(&self) -> Check {
        if self.sum.failed.is_empty() { Ok(()) } else { Err(self.sum.failed.join(", ")) }
    }

    pub fn chapter(&mut self, name: &str) {
        println!("\n# {name}");
        name.clone_into(&mut self.chapter);
    }

    /// Prints the subject of the next checks.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            println!("   -- {text}");
        }
    }

    /// Runs one check and prints its line.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Check) {
        self.check_exercised(name, || check().map(|()| true));
    }

    /// Same for a check that may find nothing to check: `Ok(false)` is no failure, and does not count as
    /// passed.
    pub fn check_exercised(&mut self, name: &str, check: impl FnOnce() -> Result<bool, String>) {
        let begun = Instant::now();
        let result = check();
        let seconds = begun.elapsed().as_secs_f64();
        match result {
            Ok(true) => {
                self.sum.passed += 1;
                if !self.quiet {
                    println!("ok     {seconds:6.2} s  {name}");
                }
            }
            Ok(false) => println!("none   {seconds:6.2} s  {name}: not exercised"),
            Err(error) => {
                println!("FAILED {seconds:6.2} s  {name}\n    {}", error.replace('\n', "\n    "));
                self.sum.failed.push(format!("{}: {name}", self.chapter));
            }
        }
    }

    /// A chapter that could not go on.
    pub fn broken(&mut self, name: &str, error: &str) {
        println!("FAILED           {name}\n    {}", error.replace('\n', "\n    "));
        self.sum.failed.push(format!("{name} did not finish"));
    }

    /// Prints the sum for the process that started this one.
    pub fn hand_over(self) -> ExitCode {
        let failed: String = self.sum.failed.iter().map(|name| format!("\t{name}")).collect();
        println!("{} {}{failed}", Sum::LINE, self.sum.passed);
        ExitCode::SUCCESS
    }

    /// Prints the sum.
    pub fn finish(self) -> ExitCode {
        self.finish_with(Sum::default())
    }

    /// Prints the sum with that of other reports.
    pub fn finish_with(mut self, others: Sum) -> ExitCode {
        self.sum.add(others);
        println!("\n{:.0} s", self.begun.elapsed().as_secs_f64());
        for name in &self.sum.failed {
            println!("failed: {name}");
        }
        // A run without a single check has shown nothing.
        println!("{} passed, {} failed", self.sum.passed, self.sum.failed.len());
        if self.sum.failed.is_empty() && self.sum.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Returns `Ok` if both are equal.
pub fn equal<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, expected: T) -> Check {
    if seen == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, saw {seen:?}")) }
}

/// Returns `Ok` if `text` contains `part`.
pub fn contains(what: &str, text: &str, part: &str) -> Check {
    if text.contains(part) { Ok(()) } else { Err(format!("{what}: expected {part:?} in:\n{text}")) }
}
