//! Text for terminals: escaping, tables, durations; and JSON for scripts.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use comfy_table::{CellAlignment, ContentArrangement, Row, Table};
use serde::Serialize;

use super::Failure;

/// Returns true if a terminal would obey `c` instead of showing it, show its line in another order, or show
/// nothing.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Escapes every character in `text` that a terminal would obey.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_unsafe(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Columns of plain text, the same on a terminal and in a file.
pub(super) struct Columns(Table);

impl Columns {
    /// Columns with a heading.
    pub(super) fn headed<const N: usize>(heading: [&str; N]) -> Self {
        let mut columns = Columns::plain();
        columns.0.set_header(heading);
        columns
    }

    /// Columns without a heading.
    pub(super) fn plain() -> Self {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        if is_terminal() {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns());
        }
        Columns(table)
    }

    /// Columns with these headings.
    pub(super) fn of(heading: &[&str]) -> Self {
        let mut columns = Columns::plain();
        columns.0.set_header(heading);
        columns
    }

    /// Adds a row of one line; [`Columns::fitting`] may truncate its cells.
    pub(super) fn line(&mut self, cells: &[String]) {
        let cells = cells.iter().map(|cell| escape(cell));
        self.0.add_row(Row::from(cells).max_height(1).to_owned());
    }

    /// Limits the columns to `width` characters; a truncated cell ends with `…`.
    pub(super) fn fitting(mut self, width: u16) -> Self {
        self.0
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width)
            .set_truncation_indicator("…");
        self
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.0.add_row(cells.map(escape));
    }

    /// Adds a row of a name and its value, if it has one.
    pub(super) fn pair(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.row([name, value]);
        }
    }

    /// Aligns columns of numbers.
    pub(super) fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        for index in columns {
            if let Some(column) = self.0.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self
    }

    /// Returns the lines, without trailing spaces.
    pub(super) fn text(&self) -> String {
        self.0.lines().fold(String::new(), |mut text, line| {
            text.push_str(line.trim_end());
            text.push('\n');
            text
        })
    }
}

/// Width of a list, in columns: that of the terminal, or else 80.
pub(super) fn columns() -> u16 {
    width().and_then(|columns| u16::try_from(columns).ok()).unwrap_or(80)
}

pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Returns true if the text on standard output may be coloured (<https://no-color.org>).
pub(super) fn has_colour() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Beginnings of lines that report a state, each with its colour (ECMA-48, 8.3.117).
const COLOURS: [(&str, &str); 8] = [
    ("problem:", "31"),
    ("not ready:", "31"),
    ("no user can log in", "31"),
    ("not well:", "33"),
    ("note:", "33"),
    ("users can log in", "33"),
    ("ready:", "32"),
    ("all is well", "32"),
];
/// The same for the verdict on one account, which follows its name.
const VERDICTS: [(&str, &str); 3] =
    [(" may log in", "32"), (" may not log in", "31"), (" cannot be checked", "31")];
/// The levels of the doctor's report, which begin a line after two spaces, each with its colour.
const LEVELS: [(&str, &str); 3] = [("ok", "32"), ("WARNING", "33"), ("FAILURE", "31")];

/// Colours the level of a line of the doctor's report.
fn coloured_level(line: &str) -> Option<String> {
    let rest = line.strip_prefix("  ")?;
    let (level, code, rest) = LEVELS.iter().find_map(|(level, code)| {
        let rest = rest.strip_prefix(level).filter(|rest| rest.starts_with(' '))?;
        Some((level, code, rest))
    })?;
    Some(format!("  \u{1b}[{code}m{level}\u{1b}[0m{rest}"))
}

/// Formats `text` for a terminal: wraps sentences between words, and colours those that report a state.
pub(super) fn for_terminal(text: &str, width: usize, colour: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for line in text.lines() {
        let found = COLOURS.iter().find(|(begin, _)| line.starts_with(begin)).or_else(|| {
            VERDICTS.iter().find(|(part, _)| !line.starts_with([' ', '{', '"']) && line.contains(part))
        });
        // The output of `ready` is one line for every reader.
        let is_sentence = (found.is_some() || line.starts_with("advice:")) && !line.contains("ready:");
        let lines = if is_sentence { hang(line, 2, Some(width)) } else { line.to_owned() };
        let coloured = match found {
            _ if !colour => None,
            Some((_, code)) => Some(format!("\u{1b}[{code}m{lines}\u{1b}[0m")),
            None => coloured_level(&lines),
        };
        let _ = writeln!(shown, "{}", coloured.unwrap_or(lines));
    }
    shown
}

/// Width of the terminal in columns, if standard output is one that knows its width.
pub(super) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Wraps `text` between words at `width` columns. The lines after the first one are indented; the first one
/// already has `indent` columns in use.
pub(super) fn hang(text: &str, indent: usize, width: Option<usize>) -> String {
    broken(text.split_whitespace(), indent, width, "")
}

/// Wraps a shell command in the same way, so that it can be pasted: every line but the last ends with a
/// backslash. Quoted text stays on one line.
pub(super) fn hang_shell(command: &str, indent: usize, width: Option<usize>) -> String {
    let mut quoted = false;
    let words = command.split(|c: char| {
        quoted ^= c == '\'';
        c == ' ' && !quoted
    });
    broken(words, indent, width, " \\")
}

fn broken<'a>(
    words: impl Iterator<Item = &'a str>,
    indent: usize,
    width: Option<usize>,
    end: &str,
) -> String {
    let mut text = String::new();
    let mut column = indent;
    for word in words {
        let length = word.chars().count();
        let is_first = text.is_empty();
        if !is_first && width.is_some_and(|width| column + 1 + length + end.len() > width) {
            let _ = write!(text, "{end}\n{}", " ".repeat(indent));
            column = indent;
        } else if !is_first {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
}

/// Formats a duration in its two largest units.
pub(super) fn span(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, min, s) => format!("{min} min {s} s"),
        (0, h, min, _) => format!("{h} h {min} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// Returns `value` as JSON that is safe on a terminal.
pub(super) fn json(value: &impl Serialize) -> Result<String, Failure> {
    Ok(safe(&serde_json::to_string_pretty(value)?))
}

/// The same on one line.
pub(super) fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    Ok(safe(&serde_json::to_string(value)?))
}

/// Escapes the unsafe characters that serde_json leaves: it escapes only C0.
fn safe(plain: &str) -> String {
    let mut safe = String::with_capacity(plain.len() + 1);
    for c in plain.chars() {
        // Such a character occurs only inside a string, and all of them are in the Basic Multilingual Plane.
        if c != '\n' && is_unsafe(c) {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe.push('\n');
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let cases = [
            ("jörg\\müller", "jörg\\müller"),
            ("\x1b[2Jx", "\\u{1b}[2Jx"),
            ("a\nb\tc\0", "a\\nb\\tc\\u{0}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}nimda", "\\u{202e}nimda"),
            ("root\u{200b}\u{ad}", "root\\u{200b}\\u{ad}"),
            ("a\u{61c}1", "a\\u{61c}1"),
        ];
        for (text, safe) in cases {
            assert_eq!(escape(text), safe);
        }
    }

    #[test]
    fn json_is_safe_and_says_the_same() {
        let text = "\x1b\u{7f}\u{9b}\u{202e}ö\"\\\n";
        let json = json(&[text]).unwrap();
        assert!(!json.trim_end().replace("\n  ", "").replace("\n]", "").contains(is_unsafe), "{json:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text]);
    }

    #[test]
    fn columns_are_aligned_and_no_cell_breaks_its_line() {
        let mut columns = Columns::headed(["STEP", "MS"]);
        columns.row(["map", "0.1"]);
        columns.row(["é\n\x1b", "12.0"]);
        let text = columns.right([1]).text();
        assert_eq!(text, " STEP         MS\n map         0.1\n é\\n\\u{1b}  12.0\n");
    }

    #[test]
    fn a_sentence_is_broken_between_words_and_coloured_and_nothing_else_is() {
        let text = " john  x\nproblem: the group \"Aliens\" does not exist\n{\"a\": \"b may log in\"}\n\
                    all is well\n";
        let plain = for_terminal(text, 30, false);
        assert_eq!(
            plain,
            " john  x\nproblem: the group \"Aliens\"\n  does not exist\n{\"a\": \"b may log in\"}\n\
             all is well\n"
        );
        let coloured = for_terminal(text, 80, true);
        assert_eq!(coloured.matches('\u{1b}').count(), 4, "{coloured:?}");
        assert!(coloured.contains("\u{1b}[32mall is well\u{1b}[0m\n"), "{coloured:?}");
        assert_eq!(
            for_terminal("john may not log in: denied\n", 80, true),
            "\u{1b}[31mjohn may not log in: denied\u{1b}[0m\n"
        );
        assert_eq!(for_terminal("not ready: a b c\n", 5, false), "not ready: a b c\n");
    }

    #[test]
    fn the_level_of_a_finding_is_coloured_and_its_text_is_not() {
        let text = "host\n  ok       join  joined\n  FAILURE  keytab\n           FAILURE okay\n  okay\n";
        let coloured = for_terminal(text, 80, true);
        let expected = "host\n  \u{1b}[32mok\u{1b}[0m       join  joined\n\
                        \u{20} \u{1b}[31mFAILURE\u{1b}[0m  keytab\n\
                        \u{20}          FAILURE okay\n  okay\n";
        assert_eq!(coloured, expected);
        assert_eq!(for_terminal(text, 80, false), text);
    }

    #[test]
    fn a_pair_without_value_is_left_out() {
        let mut columns = Columns::plain();
        columns.pair("name", Some("x"));
        columns.pair("dn", None);
        columns.pair("reason", Some(""));
        assert_eq!(columns.text(), " name  x\n");
    }

    #[test]
    fn lines_are_broken_between_words_and_a_command_stays_one() {
        assert_eq!(hang("one two three", 2, Some(9)), "one two\n  three");
        assert_eq!(hang("one two three", 2, None), "one two three");
        assert_eq!(hang("extraordinary x", 0, Some(5)), "extraordinary\nx");
        assert_eq!(
            hang_shell("adcli join --domain='a b' x", 2, Some(16)),
            "adcli join \\\n  --domain='a b' \\\n  x"
        );
    }

    #[test]
    fn a_span_has_two_units() {
        let cases = [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3660, "1 h 1 min"), (90_000, "1 d 1 h")];
        for (seconds, text) in cases {
            assert_eq!(span(seconds), text);
        }
    }
}
