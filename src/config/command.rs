//! A command with placeholders, the value of `sessions.on_evict`: a program and its arguments, run without a
//! shell.

use std::path::{Path, PathBuf};

/// A command; its placeholders are filled in when it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Absolute path of the program.
    pub program: PathBuf,
    /// The arguments, each in pieces.
    pub arguments: Vec<Vec<Piece>>,
}

/// A piece of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text that is passed unchanged.
    Text(String),
    /// A placeholder for a field of the session.
    Field(Field),
}

/// Declares the placeholders as one table.
macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal;)+) => {
        /// A placeholder for a field of a session.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $($(#[doc = $doc])+ $variant,)+ }

        impl Field {
            /// Every placeholder.
            pub const ALL: &'static [Field] = &[$(Field::$variant,)+];

            /// Returns the name between the braces.
            pub fn name(self) -> &'static str {
                match self { $(Field::$variant => $name,)+ }
            }
        }
    };
}

fields! {
    /// The id of the session.
    Id = "id";
    /// The name as the user typed it.
    User = "user";
    /// `user@domain`.
    Principal = "principal";
    /// PAM_SERVICE.
    Service = "service";
    /// PAM_RHOST.
    Rhost = "rhost";
    /// PAM_TTY.
    Tty = "tty";
    /// The application's process id.
    Pid = "pid";
    /// The server that the user was logged in at.
    Host = "host";
    /// The reason for the end of the session.
    Reason = "reason";
    /// The time when the session ended, in seconds since 1970 UTC.
    At = "at";
    /// The session that replaced it, AD's reason, or the process that asked for the eviction.
    Detail = "detail";
}

impl Command {
    /// Parses the words of a command; returns `None` if there are none.
    ///
    /// # Errors
    /// Returns a description of the mistake.
    pub(crate) fn parse(words: &[String]) -> Result<Option<Self>, String> {
        let Some((program, arguments)) = words.split_first() else { return Ok(None) };
        if !Path::new(program).is_absolute() {
            return Err(format!("expected the absolute path of a program first, not {program:?}"));
        }
        let arguments = arguments.iter().map(|word| pieces(word)).collect::<Result<_, _>>()?;
        Ok(Some(Command { program: program.into(), arguments }))
    }

    /// Returns the words that the command was parsed from.
    pub fn words(&self) -> Vec<String> {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field(field) => format!("{{{}}}", field.name()),
        };
        let word = |pieces: &Vec<Piece>| pieces.iter().map(piece).collect::<String>();
        std::iter::once(self.program.display().to_string()).chain(self.arguments.iter().map(word)).collect()
    }
}

/// Splits a word. Lower-case letters in braces are a placeholder; other braces are text, so that JSON can be
/// written.
fn pieces(word: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let name = after.split_once('}').map(|(name, _)| name);
        match name.filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())) {
            Some(name) => {
                let field = Field::ALL.iter().find(|field| field.name() == name);
                let field = field.ok_or_else(|| format!("{{{name}}} is unknown, expected {}", known()))?;
                pieces
                    .extend(Some(std::mem::take(&mut text)).filter(|text| !text.is_empty()).map(Piece::Text));
                pieces.push(Piece::Field(*field));
                rest = after.get(name.len() + 1..).unwrap_or_default();
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    // An argument may be empty.
    if !text.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

fn known() -> String {
    Field::ALL.iter().map(|field| format!("{{{}}}", field.name())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    fn placeholders_are_small_letters_in_braces_and_other_braces_are_text() {
        let id = || Piece::Field(Field::Id);
        let cases = [
            ("", vec![text("")]),
            ("--quiet", vec![text("--quiet")]),
            ("{id}", vec![id()]),
            ("a{id}b{id}", vec![text("a"), id(), text("b"), id()]),
            (r#"{"id": "{id}"}"#, vec![text(r#"{"id": ""#), id(), text(r#""}"#)]),
            ("{}{ID}{id", vec![text("{}{ID}{id")]),
            ("{{id}}", vec![text("{"), id(), text("}")]),
        ];
        for (word, expected) in cases {
            assert_eq!(pieces(word).unwrap(), expected, "{word}");
        }
        assert!(pieces("{name}").unwrap_err().contains("{name} is unknown, expected {id} {user}"));
    }

    #[test]
    fn a_command_begins_with_a_path() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(Command::parse(&[]), Ok(None));
        assert!(Command::parse(&words(&["kick"])).unwrap_err().contains("absolute path"));
        let command = Command::parse(&words(&["/bin/kick", "{pid}"])).unwrap().unwrap();
        assert_eq!(command.program, Path::new("/bin/kick"));
        assert_eq!(command.arguments, [[Piece::Field(Field::Pid)]]);
    }
}
