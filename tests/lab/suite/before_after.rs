//! The table of `docs/moving-over.md` that compares logins of XCALLY's own integration before and after the
//! bridge. Each row is a real login in the suite.

use crate::cast::{everybody, person};

const DOCUMENT: &str = include_str!("../../../docs/moving-over.md");
const HEADER: &str = "| User | Account | Password | with a domain controller | with the bridge |";

/// The configuration that the table assumes.
pub const GROUPS: &str = "[login]\nallow_groups = [\"XCALLY Agents\"]\ndeny_groups = [\"XCALLY Denied\"]\n";
/// A password of no account.
pub const WRONG: &str = "N0t-the-password-of-anybody";

/// The passwords of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    Right,
    Wrong,
    /// Three wrong passwords, and then the right one.
    WrongThenRight,
    /// The right one, in one browser and then in another.
    Twice,
}

impl Typed {
    pub const ALL: [Typed; 4] = [Typed::Right, Typed::Wrong, Typed::WrongThenRight, Typed::Twice];

    pub fn text(self) -> &'static str {
        match self {
            Typed::Right => "right",
            Typed::Wrong => "wrong",
            Typed::WrongThenRight => "wrong three times, then right",
            Typed::Twice => "right, in a second browser",
        }
    }

    /// Returns the passwords, with `right` as the right one.
    pub fn passwords(self, right: &'static str) -> Vec<&'static str> {
        match self {
            Typed::Right => vec![right],
            Typed::Wrong => vec![WRONG],
            Typed::WrongThenRight => vec![WRONG, WRONG, WRONG, right],
            Typed::Twice => vec![right, right],
        }
    }
}

/// Result of the last login of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub is_in: bool,
    /// Number that all logins of the row add to AD's badPwdCount.
    pub counted: u32,
}

impl Done {
    fn parse(cell: &str) -> Option<Self> {
        let cell = cell.trim_matches('*');
        let (word, counted) = match cell.split_once(", AD counts ") {
            Some((word, counted)) => (word, counted.parse().ok()?),
            None => (cell, 0),
        };
        match word {
            "accepted" => Some(Done { is_in: true, counted }),
            "rejected" => Some(Done { is_in: false, counted }),
            _ => None,
        }
    }

    /// Returns the cell of the table.
    pub fn text(self) -> String {
        let word = if self.is_in { "accepted" } else { "rejected" };
        match self.counted {
            0 => word.to_owned(),
            counted => format!("{word}, AD counts {counted}"),
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Key in the cast.
    pub who: &'static str,
    /// The account's condition, as the document has it.
    pub account: &'static str,
    pub typed: Typed,
    /// Result with a domain controller, and with the bridge.
    pub before: Done,
    pub after: Done,
}

impl Row {
    fn parse(line: &'static str) -> Option<Self> {
        let cells: Vec<_> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let [user, account, typed, before, after] = cells[..] else { return None };
        let sam = user.strip_prefix('`')?.strip_suffix('`')?;
        let who = everybody().into_iter().find(|person| person.sam == sam)?.key;
        let typed = Typed::ALL.into_iter().find(|one| one.text() == typed)?;
        Some(Row { who, account, typed, before: Done::parse(before)?, after: Done::parse(after)? })
    }

    /// Returns a name for reports.
    pub fn name(&self) -> String {
        format!("{} ({}), {}", person(self.who).sam, self.account, self.typed.text())
    }
}

/// Returns the rows, in the document's order.
pub fn rows() -> Result<Vec<Row>, String> {
    let lines = DOCUMENT.lines().skip_while(|line| *line != HEADER).skip(2);
    let lines = lines.take_while(|line| line.starts_with('|'));
    let row = |line| Row::parse(line).ok_or_else(|| format!("docs/moving-over.md: no row of logins: {line}"));
    let rows = lines.map(row).collect::<Result<Vec<_>, _>>()?;
    // The three subjects of XCALLY's page, and a user whom only the bridge rejects.
    let has = |typed: Typed| rows.iter().any(|row| row.typed == typed);
    let differs = rows.iter().any(|row| row.typed == Typed::Right && row.before.is_in && !row.after.is_in);
    match Typed::ALL.into_iter().all(has) && differs {
        true => Ok(rows),
        false => Err("docs/moving-over.md: the table of logins is not whole".to_owned()),
    }
}
