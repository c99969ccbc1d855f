//! The names to audit: the lines of a text, or a column of a CSV file.

use std::io::{self, BufRead, Read};

use csv::{ByteRecord, ReaderBuilder};

use crate::config::text::{self, Flaw};
use crate::name::NameError;
use crate::protocol::MAX_USER;

/// One name of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its line in the list, from 1.
    pub(super) line: u64,
    /// The name, as written.
    pub(super) name: String,
    /// The reason why it cannot be looked up, if any.
    pub(super) problem: Option<String>,
}

impl Row {
    fn new(line: u64, name: &[u8]) -> Self {
        let problem = match text::decode(name) {
            Err(flaw) => Some(flaw.text),
            Ok(name) if name.len() > MAX_USER => Some(NameError::TooLong.to_string()),
            Ok(name) => text::invisible(name).map(|flaw| flaw.text),
        };
        Row { line, name: String::from_utf8_lossy(name).into_owned(), problem }
    }
}

/// Layout of a CSV file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Column of the names.
    pub(super) column: Column,
    /// Separator of two cells.
    pub(super) delimiter: u8,
    /// True if the first row is a heading. Matters only for a column that is given by its number.
    pub(super) is_headed: bool,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Its number, from 1.
    Number(usize),
    /// Its name in the first row.
    Name(String),
}

impl From<&str> for Column {
    fn from(text: &str) -> Self {
        match text.parse() {
            Ok(number @ 1..) => Column::Number(number),
            _ => Column::Name(text.to_owned()),
        }
    }
}

/// Reason why there is no list.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    /// The list cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Its encoding is unsupported.
    #[error("{0}")]
    Flawed(#[from] Flaw),
    /// It is not a CSV file.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// No column has this name.
    #[error("no column is called {name:?}; the first row has: {found}")]
    NoColumn {
        /// The requested column.
        name: String,
        /// The columns that exist.
        found: String,
    },
    /// All cells of the column are empty.
    #[error("there is no name in it")]
    Empty,
}

/// Returns every name in `from`. Skips lines and cells without one.
pub(super) fn read(mut from: impl Read, layout: Option<&Layout>) -> Result<Vec<Row>, ListError> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes)?;
    // UTF-16, as PowerShell writes it: `Get-ADUser … > list.txt`.
    let text = match text::decode_utf16(&bytes) {
        Some(text) => text?.into_bytes(),
        None => text::unmarked(&bytes)?.to_vec(),
    };
    let rows = match layout {
        Some(layout) => column(text.as_slice(), layout)?,
        None => lines(text.as_slice())?,
    };
    if rows.is_empty() { Err(ListError::Empty) } else { Ok(rows) }
}

fn lines(from: impl BufRead) -> Result<Vec<Row>, ListError> {
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(from.split(b'\n')) {
        let mut line = line?;
        // Lists may come from Windows.
        line.pop_if(|last| *last == b'\r');
        if !line.is_empty() {
            rows.push(Row::new(number, &line));
        }
    }
    Ok(rows)
}

fn column(text: &[u8], layout: &Layout) -> Result<Vec<Row>, ListError> {
    let mut reader = ReaderBuilder::new()
        .delimiter(layout.delimiter)
        .has_headers(layout.is_headed || matches!(layout.column, Column::Name(_)))
        .flexible(true)
        .from_reader(text);
    let index = match &layout.column {
        Column::Number(number) => number.saturating_sub(1),
        Column::Name(name) => index_of(reader.byte_headers()?, name)?,
    };
    let mut rows = Vec::new();
    let mut record = ByteRecord::new();
    let (mut line, mut counted) = (1, 0);
    while reader.read_byte_record(&mut record)? {
        // The crate counts one line too few for the line ends of Windows: its record begins between the
        // carriage return and the line feed.
        let begin = record.position().map_or(counted, |at| usize::try_from(at.byte()).unwrap_or(counted));
        let ends = text.iter().skip(begin).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let between = text.get(counted..begin + ends).unwrap_or_default();
        line += between.iter().filter(|byte| **byte == b'\n').count() as u64;
        counted = begin + ends;
        if let Some(name) = record.get(index).filter(|name| !name.is_empty()) {
            rows.push(Row::new(line, name));
        }
    }
    Ok(rows)
}

fn index_of(heading: &ByteRecord, name: &str) -> Result<usize, ListError> {
    let cells: Vec<_> = heading.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_owned()).collect();
    cells
        .iter()
        .position(|cell| cell.eq_ignore_ascii_case(name.trim()))
        .ok_or_else(|| ListError::NoColumn { name: name.to_owned(), found: cells.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &[u8], layout: Option<&Layout>) -> Vec<(u64, String)> {
        read(text, layout).unwrap().into_iter().map(|row| (row.line, row.name)).collect()
    }

    fn layout(column: &str, delimiter: u8, is_headed: bool) -> Layout {
        Layout { column: column.into(), delimiter, is_headed }
    }

    fn expect(names: &[(u64, &str)]) -> Vec<(u64, String)> {
        names.iter().map(|(line, name)| (*line, (*name).to_owned())).collect()
    }

    #[test]
    fn a_text_has_a_name_a_line() {
        let names = expect(&[(1, "john.doe"), (3, "jörg"), (4, " x ")]);
        assert_eq!(seen("\u{feff}john.doe\r\n\njörg\n x ".as_bytes(), None), names);
    }

    #[test]
    fn a_csv_file_has_names_in_a_column() {
        let text =
            "id,Name,role\n1,john.doe,agent\n2,\"a, \"\"b\"\"\",user\n3\n4,,x\n5,\"two\nlines\",x\n6,z,x\n";
        let names = expect(&[(2, "john.doe"), (3, "a, \"b\""), (6, "two\nlines"), (8, "z")]);
        assert_eq!(seen(text.as_bytes(), Some(&layout("name", b',', false))), names);
        assert_eq!(seen(text.as_bytes(), Some(&layout("2", b',', true))), names);
        let all = seen(text.as_bytes(), Some(&layout("2", b',', false)));
        assert_eq!((all.len(), all[0].1.as_str()), (5, "Name"));
        let semicolons = "\u{feff}Username;x\njane;1\n";
        assert_eq!(
            seen(semicolons.as_bytes(), Some(&layout("USERNAME", b';', false))),
            expect(&[(2, "jane")])
        );
    }

    #[test]
    fn what_cannot_be_a_list_says_why() {
        let error = read(&b"a,b\n1,2\n"[..], Some(&layout("login", b',', false))).unwrap_err();
        assert_eq!(error.to_string(), "no column is called \"login\"; the first row has: a, b");
        assert!(matches!(read(&b"\n\r\n"[..], None), Err(ListError::Empty)));
        assert!(matches!(read(&b"a\n1\n"[..], Some(&layout("3", b',', true))), Err(ListError::Empty)));
    }

    #[test]
    fn a_name_that_cannot_be_asked_for_stays_in_the_list() {
        let long = "x".repeat(MAX_USER + 1);
        let rows = read(format!("{long}\n").as_bytes(), None).unwrap();
        assert!(rows[0].problem.as_deref().is_some_and(|problem| problem.contains("longer than")));
        let rows = read(&b"j\xf6rg\n"[..], None).unwrap();
        let problem = rows[0].problem.as_deref().unwrap();
        assert!(problem.starts_with("byte 0xF6 is no UTF-8; the file is probably Windows-1252"), "{problem}");
        let rows = read("john.doe\u{a0}\n".as_bytes(), None).unwrap();
        assert!(rows[0].problem.as_deref().unwrap().starts_with("U+00A0"), "{rows:?}");
    }

    #[test]
    fn a_list_of_powershell_is_read_and_one_without_a_mark_is_named() {
        let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        let names = expect(&[(1, "john.doe"), (2, "jörg")]);
        for list in [little("\u{feff}john.doe\r\njörg\r\n"), big("\u{feff}john.doe\r\njörg\r\n")] {
            assert_eq!(seen(&list, None), names);
        }
        let table = little("\u{feff}id;name\r\n1;john.doe\r\n");
        assert_eq!(seen(&table, Some(&layout("name", b';', false))), expect(&[(2, "john.doe")]));
        for (list, said) in [
            (little("john.doe\r\n"), "the file is UTF-16LE"),
            (b"\xff\xfej\0\xff".to_vec(), "ends within a character"),
        ] {
            let error = read(&list[..], None).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
