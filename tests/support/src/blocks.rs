//! The blocks of code in README.md and docs/*.md, and the annotations that control how they are tested.
//!
//! The annotations follow the language in a block's first line. Readers do not see them:
//!
//! | Word | Meaning |
//! |---|---|
//! | `host` | commands for root on the XCALLY server, which is the lab's host |
//! | `as=USER` | run as this user of the host |
//! | `exit=CODE,…` | the last command ends with one of these, the others with these or 0; default: 0 |
//! | `type=WORD,…` | typed lines; a key of `tests/lab/cast` stands for that user's password |
//! | `tty` | on a terminal, where each line is typed at its prompt |
//! | `state=WORD` | the state to prepare: see `documents.rs` |
//! | `file=PATH` | no command: the new content of this file on the host |
//! | `says="TEXT"` | comes last: text that the output must contain |
//! | `unrun="REASON"` | comes last: commands that cannot run in the lab, and the reason |

use std::fs;
use std::path::{Path, PathBuf};

/// A block of code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// File and line, for messages.
    pub place: String,
    pub language: String,
    pub host: bool,
    pub user: Option<String>,
    /// Accepted codes of the last command; empty means 0.
    pub exit: Vec<i32>,
    pub typed: Vec<String>,
    pub tty: bool,
    pub state: Option<String>,
    pub file: Option<String>,
    pub says: Option<String>,
    pub unrun: Option<String>,
    pub text: String,
}

/// Returns the documents, by their paths in the repository.
pub fn documents(root: &Path) -> Result<Vec<String>, String> {
    let found = fs::read_dir(root.join("docs")).map_err(|e| format!("docs: {e}"))?;
    let paths = found.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let name = |path: PathBuf| path.file_name().map(|name| format!("docs/{}", name.to_string_lossy()));
    let mut names: Vec<_> = paths.filter_map(name).filter(|name| name.ends_with(".md")).collect();
    names.sort_unstable();
    names.insert(0, "README.md".to_owned());
    Ok(names)
}

/// Returns the blocks of the document `name`, in order.
pub fn blocks(root: &Path, name: &str) -> Result<Vec<Block>, String> {
    let text = fs::read_to_string(root.join(name)).map_err(|e| format!("{name}: {e}"))?;
    let (mut blocks, mut open) = (Vec::new(), None::<(Block, usize)>);
    for (number, line) in text.lines().enumerate() {
        let place = format!("{name}, line {}", number + 1);
        let bare = line.trim_start();
        match (bare.strip_prefix("```"), open.take()) {
            (Some(info), None) => {
                open = Some((
                    parse(&place, info).map_err(|e| format!("{place}: {e}"))?,
                    line.len() - bare.len(),
                ));
            }
            (Some(_), Some((block, _))) => blocks.push(block),
            (None, Some((mut block, indent))) => {
                block.text += line.get(indent..).unwrap_or_default();
                block.text += "\n";
                open = Some((block, indent));
            }
            (None, None) => {}
        }
    }
    match open {
        Some((block, _)) => Err(format!("{}: the block does not end", block.place)),
        None => Ok(blocks),
    }
}

fn parse(place: &str, info: &str) -> Result<Block, String> {
    let (info, unrun) = quoted(info, "unrun");
    let (info, says) = quoted(info, "says");
    let mut words = info.split_whitespace();
    let language = words.next().ok_or("the block does not say what it is")?.to_owned();
    let mut block = Block { place: place.to_owned(), language, says, unrun, ..Block::default() };
    let list = |values: &str| values.split(',').map(str::to_owned).collect::<Vec<_>>();
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("host", "") => block.host = true,
            ("tty", "") => block.tty = true,
            ("as", user) => block.user = Some(user.to_owned()),
            ("type", lines) => block.typed = list(lines),
            ("state", state) => block.state = Some(state.to_owned()),
            ("file", file) => block.file = Some(file.to_owned()),
            ("exit", codes) => {
                let codes: Result<_, _> = codes.split(',').map(str::parse).collect();
                block.exit = codes.map_err(|e| format!("{word}: {e}"))?;
            }
            _ => return Err(format!("nobody knows the word {word}")),
        }
    }
    Ok(block)
}

/// Splits `word="TEXT"` off the end of `info`, and returns the rest and the text.
fn quoted<'a>(info: &'a str, word: &str) -> (&'a str, Option<String>) {
    let found = info.split_once(&format!(" {word}=\""));
    let text = found.and_then(|(words, text)| Some((words, text.trim_end().strip_suffix('"')?)));
    text.map_or((info, None), |(words, text)| (words, Some(text.to_owned())))
}
