//! Explanations for mistakes in `config.toml`: a table that is opened twice, a misspelt key, a key below a
//! header that is commented out. Pure.

use super::keys::{KEYS, TABLES};

/// Maximum distance, in letters, at which one name may be a misspelling of another.
const NEAR: usize = 2;
/// Maximum number of mistakes in one file that are fixed.
const MISTAKES: usize = 20;

/// A mistake that can be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mistake {
    /// The table is opened at both lines.
    Twice { table: String, first: usize, second: usize },
    /// The table has no such key; `near` is a key with a similar name, `elsewhere` the table that has the
    /// key.
    Unknown {
        line: usize,
        table: String,
        key: String,
        near: Option<&'static str>,
        elsewhere: Option<&'static str>,
    },
    /// The key stands below the commented-out header of the table `meant`, and so it belongs to `table`.
    Below { line: usize, table: String, key: String, meant: String },
}

impl Mistake {
    fn line(&self) -> usize {
        match self {
            Mistake::Twice { second: line, .. }
            | Mistake::Unknown { line, .. }
            | Mistake::Below { line, .. } => *line,
        }
    }

    fn text(&self) -> String {
        match self {
            Mistake::Twice { table, first, .. } => {
                format!("[{table}] is already open at line {first}; move the keys there")
            }
            Mistake::Unknown { table, key, near, elsewhere, .. } => {
                let place = if table.is_empty() {
                    "before the first table".to_owned()
                } else {
                    format!("in [{table}]")
                };
                let hint = match (near, elsewhere) {
                    (Some(near), _) => format!("; did you mean `{near}`?"),
                    (None, Some(table)) => format!("; it belongs to [{table}]"),
                    (None, None) => String::new(),
                };
                format!("unknown key `{key}` {place}{hint}")
            }
            Mistake::Below { table, key, meant, .. } => format!(
                "`{key}` stands below #[{meant}], which is a comment, so that it would be {table}.{key}: \
                 take the # before [{meant}] away, or move the key"
            ),
        }
    }
}

/// Returns the line and the text of the first mistake, if its intention is known.
pub(super) fn explain(text: &str) -> Option<(usize, String)> {
    let mistake = first(text)?;
    let is_known = !matches!(mistake, Mistake::Unknown { near: None, elsewhere: None, .. });
    is_known.then(|| (mistake.line(), mistake.text()))
}

/// Returns the line and the text of a key below the commented-out header of its table.
pub(super) fn misplaced(text: &str) -> Option<(usize, String)> {
    let found = scan(text).into_iter().find(|mistake| matches!(mistake, Mistake::Below { .. }))?;
    Some((found.line(), found.text()))
}

/// Fixes the text: misspelt keys get their names, and tables that are opened twice are merged. Returns `None`
/// if the intention is uncertain, or after too many mistakes.
pub fn mended(text: &str) -> Option<String> {
    let mut text = text.to_owned();
    for _ in 0..MISTAKES {
        text = match first(&text) {
            None => return Some(text),
            Some(Mistake::Twice { first, second, .. }) => together(&text, first, second),
            Some(Mistake::Unknown { line, key, near: Some(near), .. }) => renamed(&text, line, &key, near)?,
            Some(Mistake::Unknown { near: None, .. } | Mistake::Below { .. }) => return None,
        };
    }
    None
}

fn first(text: &str) -> Option<Mistake> {
    scan(text).into_iter().min_by_key(Mistake::line)
}

/// Finds every mistake. Considers only lines with plain headers and plain keys.
fn scan(text: &str) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut opened = Vec::<(&str, usize)>::new();
    let (mut table, mut commented) = ("", None);
    let mut depth = Open::default();
    for (line, written) in (1..).zip(text.lines()) {
        let is_inside = depth.is_inside();
        depth.read(written);
        let written = written.trim();
        if is_inside || written.is_empty() {
            continue;
        }
        if let Some(name) = written.strip_prefix('#').and_then(header) {
            commented = TABLES.iter().map(|(known, _)| *known).find(|known| *known == name);
            continue;
        }
        if written.starts_with('#') {
            continue;
        }
        if let Some(name) = header(written) {
            if let Some((_, first)) = opened.iter().find(|(known, _)| *known == name) {
                mistakes.push(Mistake::Twice { table: name.to_owned(), first: *first, second: line });
            }
            opened.push((name, line));
            (table, commented) = (name, None);
            continue;
        }
        let Some((key, _)) = written.split_once('=') else { continue };
        mistakes.extend(of_key(line, table, commented, key.trim()));
    }
    mistakes
}

fn of_key(line: usize, table: &str, commented: Option<&'static str>, key: &str) -> Option<Mistake> {
    let is_plain =
        |key: &str| !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let has = |table: &str, key: &str| KEYS.iter().any(|known| (known.table, known.name) == (table, key));
    if !is_plain(key) || (!table.is_empty() && !TABLES.iter().any(|(known, _)| *known == table)) {
        return None;
    }
    if has(table, key) {
        let meant = commented.filter(|meant| *meant != table && has(meant, key))?;
        let (table, key, meant) = (table.to_owned(), key.to_owned(), meant.to_owned());
        return Some(Mistake::Below { line, table, key, meant });
    }
    // Before the first table, the tables themselves are keys.
    if table.is_empty() && TABLES.iter().any(|(known, _)| *known == key) {
        return None;
    }
    let names = KEYS.iter().filter(|known| known.table == table).map(|known| known.name);
    let mut near: Vec<_> =
        names.map(|name| (distance(name, key), name)).filter(|(far, _)| *far <= NEAR).collect();
    near.sort_unstable();
    // The name that is nearer than every other.
    let near = match near.as_slice() {
        [(_, only)] => Some(*only),
        [(one, name), (other, _), ..] if one < other => Some(*name),
        _ => None,
    };
    let mut tables = KEYS.iter().filter(|known| known.name == key).map(|known| known.table);
    let elsewhere = tables.next().filter(|_| tables.next().is_none());
    Some(Mistake::Unknown { line, table: table.to_owned(), key: key.to_owned(), near, elsewhere })
}

/// Returns the name of the table that a line opens.
fn header(written: &str) -> Option<&str> {
    let rest = written.strip_prefix('[')?;
    let (name, after) = rest.split_once(']')?;
    let after = after.trim();
    (!name.starts_with('[') && (after.is_empty() || after.starts_with('#'))).then(|| name.trim())
}

/// The lists and strings of several lines that are still open.
#[derive(Default)]
struct Open {
    brackets: usize,
    quotes: Option<&'static str>,
}

impl Open {
    fn is_inside(&self) -> bool {
        self.brackets > 0 || self.quotes.is_some()
    }

    fn read(&mut self, line: &str) {
        let is_value = self.is_inside() || line.contains('=');
        let mut rest =
            if self.is_inside() { line } else { line.split_once('=').map_or("", |(_, value)| value) };
        if !is_value || line.trim_start().starts_with('#') {
            return;
        }
        while let Some(c) = rest.chars().next() {
            if let Some(end) = self.quotes {
                match rest.split_once(end) {
                    Some((_, after)) => (rest, self.quotes) = (after, None),
                    None => return,
                }
                continue;
            }
            let long = ["\"\"\"", "'''"].into_iter().find(|mark| rest.starts_with(mark));
            if let Some(mark) = long {
                (self.quotes, rest) = (Some(mark), rest.strip_prefix(mark).unwrap_or_default());
                continue;
            }
            match c {
                '#' => return,
                '"' | '\'' => rest = text_end(rest, c),
                '[' => self.brackets += 1,
                ']' => self.brackets = self.brackets.saturating_sub(1),
                _ => {}
            }
            if !matches!(c, '"' | '\'') {
                rest = rest.strip_prefix(c).unwrap_or_default();
            }
        }
    }
}

/// Returns the rest of the line after a string.
fn text_end(text: &str, quote: char) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\\' if quote == '"' && !escaped => escaped = true,
            c if c == quote && !escaped => return text.get(at + c.len_utf8()..).unwrap_or_default(),
            _ => escaped = false,
        }
    }
    ""
}

/// Moves the lines of the table at line `second` to the end of the table at line `first`.
fn together(text: &str, first: usize, second: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let end_of = |start: usize| {
        let behind = lines.iter().enumerate().skip(start);
        let next = behind.into_iter().find(|(_, line)| header(line.trim()).is_some()).map(|(index, _)| index);
        // Comments and empty lines before the next table belong to that one.
        let end = next.unwrap_or(lines.len());
        let own = lines.iter().take(end).rposition(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#')
        });
        (own.map_or(start, |last| (last + 1).max(start)), end)
    };
    let ((insert, _), (moved, _)) = (end_of(first), end_of(second));
    let moving = lines.get(second..moved).unwrap_or_default();
    let mut out = String::new();
    let mut push = |line: &str| {
        out.push_str(line);
        out.push('\n');
    };
    for (index, line) in lines.iter().enumerate() {
        if index == insert {
            moving.iter().for_each(|line| push(line));
        }
        if !(second - 1..moved).contains(&index) {
            push(line);
        }
    }
    out
}

/// Renames the key in a line.
fn renamed(text: &str, line: usize, key: &str, name: &str) -> Option<String> {
    let mut out = String::new();
    for (number, written) in (1..).zip(text.lines()) {
        match number == line {
            true => {
                let (head, rest) = written.split_at_checked(written.find(key)?)?;
                out += &format!("{head}{name}{}", rest.strip_prefix(key)?);
            }
            false => out += written,
        }
        out.push('\n');
    }
    Some(out)
}

/// Returns the minimum number of letters to insert, delete, change or swap that turns one name into the
/// other.
pub(crate) fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<_>, Vec<_>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut this = vec![row + 1];
        for (column, with) in other.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let same = at(&last, column) + usize::from(letter != with);
            let mut best = same.min(at(&last, column + 1) + 1).min(at(&this, column) + 1);
            let is_swapped = row > 0
                && column > 0
                && one.get(row - 1) == Some(with)
                && other.get(column - 1) == Some(letter);
            if is_swapped {
                best = best.min(at(&before, column - 1) + 1);
            }
            this.push(best);
        }
        (before, last) = (last, this);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_named_with_its_line_and_what_was_meant() {
        let cases = [
            (
                "[login]\n[tls]\n[login]\nallow_groups = []\n",
                3,
                "[login] is already open at line 1; move the keys there",
            ),
            (
                "[login]\nalow_groups = []\n",
                2,
                "unknown key `alow_groups` in [login]; did you mean `allow_groups`?",
            ),
            ("[login]\nwarn_dyas = 3\n", 2, "unknown key `warn_dyas` in [login]; did you mean `warn_days`?"),
            ("[tls]\nallow_groups = []\n", 2, "unknown key `allow_groups` in [tls]; it belongs to [login]"),
            ("warn_days = 1\n", 1, "unknown key `warn_days` before the first table; it belongs to [login]"),
            (
                "[tls]\n#mode = \"auto\"\n#[sessions]\nca_file = \"/x\"\n",
                4,
                "`ca_file` stands below #[sessions], which is a comment, so that it would be tls.ca_file: \
                 take the # before [sessions] away, or move the key",
            ),
        ];
        for (text, line, said) in cases {
            assert_eq!(explain(text), Some((line, said.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_is_inside_a_value_is_no_line() {
        for text in [
            "login = { warn_days = 3 }\nnames.refuse = []\n",
            "[login]\nallow_groups = [\n  \"a = b\", # [login]\n  '[login]',\n]\nwarn_days = 3\n",
            "[domain]\nnetbios = '''\n[domain]\nx = 1\n'''\nsite = \"\\\"]\"\n",
            "[unheard_of]\nx = 1\n",
            "[pool]\nnonsense = 1\n",
        ] {
            assert_eq!(explain(text), None, "{text}");
        }
    }

    #[test]
    fn names_differ_by_so_many_letters() {
        for (one, other, far) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "", 3),
            ("alow", "allow", 1),
            ("dyas", "days", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!((distance(one, other), distance(other, one)), (far, far), "{one} {other}");
        }
    }
}
