//! Runs parts of the suite next to each other: each in a separate process and lab, because a part mostly
//! waits.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use crate::report::Sum;

/// First argument of a process that runs one part; the part's number and a filter follow.
pub const PART: &str = "--part";

/// Runs these parts of the suite at the same time, prints their chapters, each as a whole once it is over,
/// and returns the sum.
pub fn run(parts: &[usize], filter: &str) -> Sum {
    // The lock also keeps the chapters apart.
    let sum = Mutex::new(Sum::default());
    thread::scope(|scope| {
        for part in parts {
            let sum = &sum;
            scope.spawn(move || {
                if let Err(error) = follow(*part, filter, sum) {
                    let mut sum = sum.lock().unwrap();
                    println!("\nFAILED part {part}: {error}");
                    sum.failed.push(format!("part {part} did not finish"));
                }
            });
        }
    });
    sum.into_inner().unwrap()
}

/// Name of the lab of a part.
fn lab_name(part: usize) -> String {
    std::env::var("LAB_NAME").unwrap_or_else(|_| "suite".to_owned()) + &part.to_string()
}

fn follow(part: usize, filter: &str, sum: &Mutex<Sum>) -> Result<(), String> {
    let (output, input) = std::io::pipe().map_err(|e| format!("pipe: {e}"))?;
    let errors = input.try_clone().map_err(|e| format!("pipe: {e}"))?;
    let this = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let mut child = {
        // Dropped at the end of this block, so that the pipe ends with the child.
        let mut command = Command::new(this);
        command.args([PART, &part.to_string(), filter]).env("LAB_NAME", lab_name(part));
        command.stdin(Stdio::null()).stdout(input).stderr(errors);
        command.spawn().map_err(|e| format!("this program: {e}"))?
    };
    let mut chapter = String::new();
    let mut ended = None;
    for line in BufReader::new(output).lines() {
        let line = line.map_err(|e| format!("its output: {e}"))?;
        if line.starts_with("# ") {
            show(&mut chapter, sum);
        }
        match Sum::parse(&line) {
            Some(last) => ended = Some(last),
            None => chapter = chapter + &line + "\n",
        }
    }
    show(&mut chapter, sum);
    let status = child.wait().map_err(|e| format!("wait: {e}"))?;
    match ended {
        Some(ended) => sum.lock().unwrap().add(ended),
        None => return Err(format!("{status}")),
    }
    Ok(())
}

/// Prints a chapter and empties it.
fn show(chapter: &mut String, printing: &Mutex<Sum>) {
    let _one_at_a_time = printing.lock().unwrap();
    print!("{chapter}");
    chapter.clear();
}
