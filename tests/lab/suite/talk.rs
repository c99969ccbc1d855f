//! A program on the host that answers each line of JSON on its standard input with one on its standard
//! output.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::lab::Lab;

/// Maximum time until all concurrent questions are answered.
const LONGEST: Duration = Duration::from_secs(120);

/// Such a running program. It ends with its standard input.
pub struct Talk {
    child: Child,
    answers: Receiver<Value>,
    asked: u64,
}

impl Talk {
    /// Starts the program as `user`.
    pub fn start(lab: &Lab, user: &str, command: &[&str]) -> Result<Self, String> {
        let mut child = lab.host_child(user, command)?;
        let answers = answers(lines(&mut child)?);
        Ok(Talk { child, answers, asked: 0 })
    }

    /// Sends all questions at once. Returns the answers in the order of the questions, which are objects.
    pub fn ask(&mut self, questions: Vec<Value>) -> Result<Vec<Value>, String> {
        let first = self.begin(questions)?;
        self.finish(first)
    }

    /// Sends the questions without waiting. Returns the number of the first one.
    pub fn begin(&mut self, questions: Vec<Value>) -> Result<u64, String> {
        let first = self.asked;
        let mut text = String::new();
        for mut question in questions {
            question["id"] = json!(self.asked);
            self.asked += 1;
            text += &format!("{question}\n");
        }
        let stdin = self.child.stdin.as_mut().ok_or("no standard input")?;
        stdin.write_all(text.as_bytes()).map_err(|e| format!("a program on the host: {e}"))?;
        Ok(first)
    }

    /// Returns the answers to all questions from number `first` on.
    pub fn finish(&mut self, first: u64) -> Result<Vec<Value>, String> {
        let begun = Instant::now();
        let mut all = BTreeMap::new();
        let count = usize::try_from(self.asked - first).map_err(|e| e.to_string())?;
        while all.len() < count {
            let answer = self.answers.recv_timeout(LONGEST.saturating_sub(begun.elapsed()));
            let answer = answer.map_err(|e| format!("{} of {count} answers came: {e}", all.len()))?;
            let id = answer["id"].as_u64().ok_or_else(|| format!("an answer without an id: {answer}"))?;
            all.insert(id, answer);
        }
        Ok(all.into_values().collect())
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Returns the lines that a child prints.
pub fn lines(child: &mut Child) -> Result<Lines<BufReader<ChildStdout>>, String> {
    Ok(BufReader::new(child.stdout.take().ok_or("no standard output")?).lines())
}

/// Returns a channel of the parsed lines.
pub fn answers<T: DeserializeOwned + Send + 'static>(lines: Lines<BufReader<ChildStdout>>) -> Receiver<T> {
    let (results, answers) = mpsc::channel();
    std::thread::spawn(move || {
        let parsed = lines.map_while(Result::ok).map_while(|line| serde_json::from_str(&line).ok());
        // An error means that the receiver was dropped.
        parsed.for_each(|answer: T| drop(results.send(answer)));
    });
    answers
}
