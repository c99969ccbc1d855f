//! `motion-ad audit`: checks XCALLY's list of names against AD.

mod names;
mod result;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use indicatif::{ProgressBar, ProgressStyle};

use self::names::{Layout, ListError, Row};
use self::result::Findings;
use super::{Audit, Cli, Failure, Page, ask, request};
use crate::client::AskError;
use crate::protocol::report::Audited;
use crate::protocol::{MAX_FRAME, Operation, Reply, Secret};
use crate::verdict::Verdict;

/// Maximum number of names in one request; about as many answers fit into a frame.
const TOGETHER: usize = 400;
/// Maximum size of these names in a frame, in bytes of JSON.
const LONGEST: usize = MAX_FRAME - 16 * 1024;

pub(super) fn audit(cli: &Cli, args: &Audit) -> Result<Page, Failure> {
    let rows = read(args)?;
    let answers = answers(cli, &rows)?;
    let findings = Findings::new(&rows, &answers, args.soon, SystemTime::now());
    let text = match (args.json, args.csv) {
        (true, _) => findings.json()?,
        (_, true) => findings.csv()?,
        _ => findings.text(args.all),
    };
    Ok(Page { text, exit: findings.exit() })
}

fn read(args: &Audit) -> Result<Vec<Row>, Failure> {
    let layout = args.column.as_deref().map(|column| Layout {
        column: column.into(),
        delimiter: args.delimiter,
        is_headed: args.header,
    });
    let file = args.file.as_deref().filter(|file| *file != Path::new("-"));
    let read = match file {
        Some(file) => {
            File::open(file).map_err(ListError::from).and_then(|file| names::read(file, layout.as_ref()))
        }
        None => names::read(io::stdin().lock(), layout.as_ref()),
    };
    let place = || file.map_or_else(|| "standard input".to_owned(), |file| file.display().to_string());
    read.map_err(|error| Failure::List(format!("{}: {error}", place())))
}

/// Returns AD's answer to each valid name, once for repeated names.
fn answers<'a>(cli: &Cli, rows: &'a [Row]) -> Result<HashMap<&'a str, Audited>, Failure> {
    let mut seen = HashSet::new();
    let asked = rows.iter().filter(|row| row.problem.is_none()).map(|row| row.name.as_str());
    let names: Vec<_> = asked.filter(|name| seen.insert(*name)).collect();
    let progress = progress(names.len());
    let mut answers = HashMap::with_capacity(names.len());
    let mut left = names.as_slice();
    while let Some((now, _)) = left.split_at_checked(together(left)).filter(|(now, _)| !now.is_empty()) {
        let list = ask_for(cli, now)?;
        left = left.get(list.len()..).unwrap_or_default();
        answers.extend(now.iter().copied().zip(list));
        progress.set_position(answers.len() as u64);
    }
    progress.finish_and_clear();
    Ok(answers)
}

/// Returns the answers to the first of `names`, at least one.
fn ask_for(cli: &Cli, names: &[&str]) -> Result<Vec<Audited>, Failure> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let expected = 1..=names.len();
    let request = request(cli, "audit", Operation::Audit { names }, "");
    let list = ask(cli, &request, &Secret::default(), |reply| match reply {
        Reply::Audit(audit) => Some(Ok(audit.list)),
        // A problem that stops every login also stops the audit.
        Reply::Verdict(Verdict { outcome, reason, .. }) => Some(Err(Failure::Answered { outcome, reason })),
        _ => None,
    })??;
    match expected.contains(&list.len()) {
        true => Ok(list),
        false => Err(Failure::Ask { socket: cli.socket.clone(), error: AskError::Unexpected }),
    }
}

/// Returns the number of `names` that fit into one request.
fn together(names: &[&str]) -> usize {
    let mut length = 0;
    let fits = |name: &&&str| {
        // In quotes and before a comma; in the worst case, each byte is escaped.
        length += serde_json::to_string(name).map_or(6 * name.len(), |json| json.len()) + 1;
        length <= LONGEST
    };
    names.iter().take(TOGETHER).take_while(fits).count()
}

/// Shows progress on standard error, if that is a terminal.
fn progress(names: usize) -> ProgressBar {
    let bar = ProgressBar::new(names as u64);
    match ProgressStyle::with_template("{bar:40} {pos} of {len} names, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{MAX_USER, encode};

    #[test]
    fn a_request_holds_as_many_names_as_fit_into_a_frame() {
        let long = "\u{1}".repeat(MAX_USER);
        for (name, count) in [("john.doe", TOGETHER), (long.as_str(), 31)] {
            let names = vec![name; 1000];
            assert_eq!(together(&names), count);
            let names = names.iter().take(count).map(|name| (*name).to_owned()).collect();
            let request = crate::client::request(Operation::Audit { names }, "", Default::default());
            encode(&request, &Secret::default()).unwrap();
        }
        assert_eq!(together(&[]), 0);
    }
}
