//! `motion-ad map`: names to principals and back, from the configuration alone.

use std::borrow::Cow;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};

use serde::Serialize;

use super::{Cli, Exit, Failure, Map, Page, complain, is_denied, print, show};
use crate::config::{Config, ConfigError};
use crate::kerberos::krb5;
use crate::name::{Principal, Rules};

/// One line of the answer in JSON.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Entry {
    Name { name: String, principal: String },
    Principal { principal: String, names: Vec<String> },
    NoName { name: String, error: String },
    NoPrincipal { principal: String, error: String },
}

impl Entry {
    fn new(rules: &Rules, reverse: bool, asked: Vec<u8>) -> Self {
        match String::from_utf8(asked) {
            Ok(principal) if reverse => Entry::principal(rules, principal),
            Ok(name) => Entry::name(rules, name),
            Err(e) => Entry::NoName {
                name: String::from_utf8_lossy(e.as_bytes()).into_owned(),
                error: "the name is not UTF-8".into(),
            },
        }
    }

    fn name(rules: &Rules, name: String) -> Self {
        match rules.principal(&name) {
            Ok(principal) => Entry::Name { name, principal: principal.to_string() },
            Err(e) => Entry::NoName { name, error: e.to_string() },
        }
    }

    fn principal(rules: &Rules, principal: String) -> Self {
        match Principal::parse(&principal).map(|principal| rules.names(&principal)) {
            Ok(names) if names.is_empty() => {
                Entry::NoPrincipal { principal, error: "no name leads to this account".into() }
            }
            Ok(names) => Entry::Principal { principal, names },
            Err(e) => Entry::NoPrincipal { principal, error: e.to_string() },
        }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Entry::Name { principal, .. } => vec![principal.clone()],
            Entry::Principal { principal, names } => {
                names.iter().map(|name| format!("{principal}\t{name}")).collect()
            }
            Entry::NoName { .. } | Entry::NoPrincipal { .. } => Vec::new(),
        }
    }

    fn failure(&self) -> Option<String> {
        match self {
            Entry::NoName { name: asked, error } | Entry::NoPrincipal { principal: asked, error } => {
                Some(format!("{}: {error}", if asked.is_empty() { "\"\"" } else { asked }))
            }
            _ => None,
        }
    }
}

pub(super) fn run(cli: &Cli, args: &Map) -> Result<Exit, Failure> {
    let rules = rules(cli)?;
    let mut exit = Exit::Yes;
    let entries = names(&args.names).map(|name| {
        let entry = Entry::new(&rules, args.reverse, name.map_err(Failure::Input)?);
        if let Some(failure) = entry.failure() {
            complain(&failure);
            exit = Exit::No;
        }
        Ok(entry)
    });
    if args.json {
        let entries = entries.collect::<Result<Vec<_>, Failure>>()?;
        return print(Page { text: show::json(&entries)?, exit });
    }
    write_lines(entries)?;
    Ok(exit)
}

/// Writes each entry at once, because a program may write names and wait for each answer.
fn write_lines(entries: impl Iterator<Item = Result<Entry, Failure>>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let terminal = out.is_terminal();
    for entry in entries {
        for line in entry?.lines() {
            // Scripts get the bytes unchanged. The tab of a reverse line is ours.
            let line = match terminal {
                true => line.split('\t').map(show::escape).collect::<Vec<_>>().join("\t").into(),
                false => Cow::Borrowed(line.as_str()),
            };
            match writeln!(out, "{line}") {
                Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
                written => written?,
            }
        }
    }
    Ok(())
}

/// Returns the rules by which names are mapped.
pub(super) fn rules(cli: &Cli) -> Result<Rules, Failure> {
    match Config::load_readable(&cli.config, &cli.sssd, || krb5::default_realm().ok()) {
        Ok(config) => Ok(config.names),
        Err(ConfigError::Broken(problem)) if is_denied(&problem.file) => Err(Failure::Denied(problem.into())),
        Err(error) => Err(Failure::Config(error)),
    }
}

/// The names of the arguments, with those of standard input in place of `-`.
fn names(arguments: &[String]) -> Box<dyn Iterator<Item = io::Result<Vec<u8>>> + '_> {
    if arguments.is_empty() {
        return Box::new(lines());
    }
    Box::new(arguments.iter().flat_map(|name| -> Box<dyn Iterator<Item = _>> {
        if name == "-" { Box::new(lines()) } else { Box::new(std::iter::once(Ok(name.clone().into_bytes()))) }
    }))
}

/// The lines of standard input.
fn lines() -> impl Iterator<Item = io::Result<Vec<u8>>> {
    io::stdin().lock().split(b'\n').map(|line| {
        let mut line = line?;
        // Lists may come from Windows.
        line.pop_if(|last| *last == b'\r');
        Ok(line)
    })
}
