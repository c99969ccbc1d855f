//! Text files from administrators' editors: byte order marks, encodings, invisible characters.
//!
//! This module reads every text file that an administrator writes, so that an editor never silently changes
//! its meaning. It drops a byte order mark. It rejects an encoding other than UTF-8, a line break that only
//! some editors know, and an invisible character, each with its line. A name with such a character looks
//! right, but belongs to no user or to another one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;

/// The byte order mark of UTF-8, which Windows writes before a text.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
/// The marks of encodings that are rejected, the longer ones first, each with its name for `iconv`.
const MARKS: [(&[u8], &str); 4] = [
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
];

/// The characters of Windows-1252 from 0x80 on, which Latin-1 does not have there; 0 if undefined
/// (encoding.spec.whatwg.org, windows-1252).
const WINDOWS_1252: [u16; 32] = [
    0x20ac, 0, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039, 0x152, 0, 0x17d,
    0, 0, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0,
    0x17e, 0x178,
];

/// Characters without a visible shape that are no white space: Default_Ignorable_Code_Point of Unicode's
/// DerivedCoreProperties.txt, and the blank of Braille.
const SHAPELESS: [(u32, u32); 19] = [
    (0xad, 0xad),
    (0x34f, 0x34f),
    (0x61c, 0x61c),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x202a, 0x202e),
    (0x2060, 0x206f),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfff8),
    (0xfff9, 0xfffb),
    (0x1bca0, 0x1bca3),
    (0x1d173, 0x1d17a),
    (0xe0000, 0xe0fff),
];

/// Reason why a text file cannot be used.
#[derive(Debug)]
pub enum Unread {
    /// The file cannot be opened or read.
    Io(io::Error),
    /// The file is not plain text.
    Flawed(Flaw),
}

/// A place in a file that is not plain text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct Flaw {
    /// The line, from 1.
    pub line: usize,
    /// The character or encoding that was found, and the advice.
    pub text: String,
}

impl Unread {
    /// Converts it to a problem of the file `file`.
    pub fn of(self, file: &Path) -> Problem {
        match self {
            Unread::Io(error) => {
                Problem { file: file.to_owned(), line: None, text: format!("cannot be read: {error}") }
            }
            Unread::Flawed(flaw) => flaw.of(file),
        }
    }

    /// Returns the kind of an error that the system reported.
    pub fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Unread::Io(error) => Some(error.kind()),
            Unread::Flawed(_) => None,
        }
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Unread::Io(error)
    }
}

impl From<Flaw> for Unread {
    fn from(flaw: Flaw) -> Self {
        Unread::Flawed(flaw)
    }
}

impl Flaw {
    /// Converts it to a problem of the file `file`.
    pub fn of(self, file: &Path) -> Problem {
        Problem { file: file.to_owned(), line: Some(self.line), text: self.text }
    }
}

/// Reads the text file `path` without its byte order mark.
///
/// # Errors
/// Returns [`Unread`] if the file cannot be read, is not UTF-8, or holds a line break that only some editors
/// know.
pub fn read(path: &Path) -> Result<String, Unread> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let text = decode(&bytes)?;
    Ok(text.to_owned())
}

/// Returns `bytes` as text without a byte order mark.
///
/// # Errors
/// Returns the same flaws as [`read`].
pub fn decode(bytes: &[u8]) -> Result<&str, Flaw> {
    let bytes = unmarked(bytes)?;
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (before, rest) = bytes.split_at(error.valid_up_to());
        Flaw { line: line_at(before), text: not_utf8(rest) }
    })?;
    match text.char_indices().find(|(at, c)| is_hidden_break(text, *at, *c)) {
        Some((at, c)) => {
            let text = format!(
                "{} is a line break in some editors and none here; write a line feed in its place",
                named(c)
            );
            Err(Flaw { line: line_at(bytes.get(..at).unwrap_or_default()), text })
        }
        None => Ok(text),
    }
}

/// Returns `bytes` without the byte order mark of UTF-8.
///
/// # Errors
/// Returns [`Flaw`] if the bytes are UTF-16 or UTF-32, according to their mark or zeros.
pub fn unmarked(bytes: &[u8]) -> Result<&[u8], Flaw> {
    if let Some((_, name)) = MARKS.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        return Err(Flaw { line: 1, text: format!("the file is {name}; {}", convert(name)) });
    }
    let bytes = bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes);
    match bytes.iter().position(|byte| *byte == 0) {
        // Every other byte of a Latin text in UTF-16 is zero.
        Some(at @ 0..=1) if bytes.len() > 2 => {
            let name = if at == 0 { "UTF-16BE" } else { "UTF-16LE" };
            Err(Flaw { line: 1, text: format!("the file is {name}; {}", convert(name)) })
        }
        _ => Ok(bytes),
    }
}

/// Returns UTF-16 with a byte order mark as text; `None` for any other encoding.
///
/// # Errors
/// Returns [`Flaw`] if the text ends within a character, or holds half of a pair.
pub fn decode_utf16(bytes: &[u8]) -> Option<Result<String, Flaw>> {
    let is_wider = bytes.starts_with(b"\xff\xfe\0\0");
    let read: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] if !is_wider => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return None,
    };
    let (pairs, rest) = bytes.get(2..).unwrap_or_default().as_chunks::<2>();
    let mut text = String::with_capacity(pairs.len());
    for c in char::decode_utf16(pairs.iter().copied().map(read)) {
        match c {
            Ok(c) => text.push(c),
            Err(_) => {
                let line = line_at(text.as_bytes());
                return Some(Err(Flaw { line, text: "half of a UTF-16 pair stands alone".to_owned() }));
            }
        }
    }
    match rest.is_empty() {
        true => Some(Ok(text)),
        false => {
            let line = line_at(text.as_bytes());
            Some(Err(Flaw { line, text: "the file is UTF-16 and ends within a character".to_owned() }))
        }
    }
}

/// Finds the first invisible character of `text`: its line, and a text that names it.
pub fn invisible(text: &str) -> Option<Flaw> {
    let (at, c) = text.char_indices().find(|(at, c)| is_invisible(*c) && !is_line_end(text, *at, *c))?;
    let text_before = text.get(..at).unwrap_or_default();
    let text = format!("{} is invisible; delete it, or type an ordinary space in its place", named(c));
    Some(Flaw { line: line_at(text_before.as_bytes()), text })
}

/// Works as [`invisible`], but skips lines that begin with `#`, which are comments.
pub(super) fn invisible_beside_comments(text: &str) -> Option<Flaw> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with('#'));
    lines.into_iter().find_map(|(line, text)| Some(Flaw { line, ..invisible(text)? }))
}

/// Works as [`invisible`] on the keys and strings of a TOML document, including escaped characters.
pub(super) fn invisible_in_toml(text: &str) -> Option<Flaw> {
    fn in_table(table: &DeTable<'_>) -> Option<(usize, Flaw)> {
        table.iter().find_map(|(key, value)| {
            let in_key = || Some((key.span().start, invisible(key.get_ref())?));
            in_key().or_else(|| in_value(value))
        })
    }
    fn in_value(value: &Spanned<DeValue<'_>>) -> Option<(usize, Flaw)> {
        match value.get_ref() {
            DeValue::String(text) => Some((value.span().start, invisible(text)?)),
            DeValue::Array(array) => array.iter().find_map(in_value),
            DeValue::Table(table) => in_table(table),
            _ => None,
        }
    }
    let (at, flaw) = in_table(DeTable::parse(text).ok()?.get_ref())?;
    let before = line_at(text.as_bytes().get(..at).unwrap_or_default());
    Some(Flaw { line: before + flaw.line - 1, ..flaw })
}

/// Returns true for a character that is invisible or looks like a space. A space and a tab are visible.
fn is_invisible(c: char) -> bool {
    let point = u32::from(c);
    (c.is_whitespace() && !matches!(c, ' ' | '\t' | '\n'))
        || (c.is_control() && !matches!(c, '\t' | '\n'))
        || SHAPELESS.iter().any(|(first, last)| (*first..=*last).contains(&point))
}

fn is_hidden_break(text: &str, at: usize, c: char) -> bool {
    matches!(c, '\r' | '\u{85}' | '\u{2028}' | '\u{2029}') && !is_line_end(text, at, c)
}

/// Returns true for a carriage return before a line feed, or at the end of the text.
fn is_line_end(text: &str, at: usize, c: char) -> bool {
    c == '\r' && text.get(at + 1..).is_some_and(|rest| rest.is_empty() || rest.starts_with('\n'))
}

fn named(c: char) -> String {
    let name = match c {
        '\r' => " (carriage return)",
        '\0' => " (NUL)",
        '\u{a0}' => " (no-break space)",
        '\u{ad}' => " (soft hyphen)",
        '\u{200b}' => " (zero width space)",
        '\u{202f}' => " (narrow no-break space)",
        '\u{feff}' => " (byte order mark)",
        _ => "",
    };
    format!("U+{:04X}{name}", u32::from(c))
}

/// Returns the problem with `rest`, whose first byte begins no character of UTF-8.
fn not_utf8(rest: &[u8]) -> String {
    let byte = rest.first().copied().unwrap_or_default();
    let windows = byte.checked_sub(0x80).and_then(|index| WINDOWS_1252.get(usize::from(index))).copied();
    let (name, c) = match windows {
        Some(0) => ("Latin-1", None),
        Some(point) => ("Windows-1252", char::from_u32(point.into())),
        None => ("Windows-1252 or Latin-1", Some(char::from(byte))),
    };
    let shown = c.map(|c| format!(", where it is {c:?}")).unwrap_or_default();
    let from = if name == "Latin-1" { "LATIN1" } else { "WINDOWS-1252" };
    format!("byte 0x{byte:02X} is no UTF-8; the file is probably {name}{shown}; {}", convert(from))
}

fn convert(from: &str) -> String {
    format!("save it as UTF-8, for example with `iconv -f {from} -t UTF-8`")
}

/// Returns the line, from 1, that follows `before`.
fn line_at(before: &[u8]) -> usize {
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaw(bytes: &[u8]) -> String {
        decode(bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_byte_order_mark_is_dropped_at_the_beginning_alone() {
        assert_eq!(decode("\u{feff}jd = x\n".as_bytes()), Ok("jd = x\n"));
        assert_eq!(decode("jörg\r\n\ta b\r\n".as_bytes()), Ok("jörg\r\n\ta b\r\n"));
        assert_eq!(decode(b""), Ok(""));
        // Two files that `cat` joined.
        let joined = invisible(decode("a\n\u{feff}jd = x\n".as_bytes()).unwrap()).unwrap();
        assert_eq!(joined.line, 2);
        assert!(joined.text.starts_with("U+FEFF (byte order mark) is invisible"), "{joined}");
    }

    #[test]
    fn another_encoding_is_named_with_its_line() {
        let wide = |text: &str, big: bool| -> Vec<u8> {
            text.encode_utf16()
                .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
                .collect()
        };
        let cases = [
            (wide("\u{feff}jd = x", false), "line 1: the file is UTF-16;", "-f UTF-16 "),
            (wide("\u{feff}jd = x", true), "line 1: the file is UTF-16;", "-f UTF-16 "),
            (wide("jd = x", false), "line 1: the file is UTF-16LE;", "-f UTF-16LE "),
            (wide("jd = x", true), "line 1: the file is UTF-16BE;", "-f UTF-16BE "),
            (b"\xff\xfe\0\0j\0\0\0".to_vec(), "line 1: the file is UTF-32;", "-f UTF-32 "),
            (b"a\nj\xf6rg\n".to_vec(), "line 2: byte 0xF6 is no UTF-8", "where it is 'ö'"),
            (
                b"a\n\x80\n".to_vec(),
                "line 2: byte 0x80 is no UTF-8; the file is probably Windows-1252",
                "'€'",
            ),
            (b"\x81".to_vec(), "the file is probably Latin-1;", "-f LATIN1 "),
            (b"j\xc3".to_vec(), "line 1: byte 0xC3 is no UTF-8", "'Ã'"),
        ];
        for (bytes, starts, contains) in cases {
            let flaw = flaw(&bytes);
            assert!(flaw.contains(starts) && flaw.contains(contains), "{flaw}");
        }
    }

    #[test]
    fn a_line_break_that_only_editors_know_is_refused_even_in_a_comment() {
        for (text, line, name) in [
            ("# people\rjd = x\n", 1, "U+000D (carriage return)"),
            ("a\n# people\u{2028}jd = x\n", 2, "U+2028"),
            ("a\u{85}b", 1, "U+0085"),
        ] {
            let flaw = decode(text.as_bytes()).unwrap_err();
            assert_eq!(flaw.line, line);
            assert!(flaw.text.starts_with(name), "{flaw}");
        }
        assert!(decode(b"a\r\nb\r").is_ok());
    }

    #[test]
    fn what_nobody_sees_is_named_by_its_code_point() {
        for (text, line, name) in [
            ("jd\u{200b} = x", 1, "U+200B (zero width space)"),
            ("a\njd\u{a0}= x", 2, "U+00A0 (no-break space)"),
            ("j\u{ad}d", 1, "U+00AD"),
            ("j\u{202e}d", 1, "U+202E"),
            ("j\u{3164}d", 1, "U+3164"),
            ("j\u{e0041}d", 1, "U+E0041"),
            ("j\0d", 1, "U+0000 (NUL)"),
            ("j\u{7f}d", 1, "U+007F"),
        ] {
            let flaw = invisible(text).unwrap();
            assert_eq!(flaw.line, line, "{flaw}");
            assert!(flaw.text.starts_with(&format!("{name} ")), "{flaw}");
        }
        for text in ["jörg müller\t= x\r\n", "νίκος.παππάς", "山田 太郎", "e\u{301}", "İlker", "a\r\n"]
        {
            assert_eq!(invisible(text), None, "{text}");
        }
    }
}
