//! The last part of `make demo`: logins of XCALLY's own integration, with a domain controller and with the
//! bridge.
//!
//! The rows are those of `docs/moving-over.md`, which `make test-bridge` performs with a browser. Here the
//! client is OpenLDAP's `ldapsearch`. It is configured as XCALLY is, by `.env` alone, and binds as XCALLY's
//! library does.

use comfy_table::Table;

use crate::before_after::{Done, GROUPS, Row, Typed, rows};
use crate::bridge::{counted_for, lines};
use crate::cast::person;
use crate::lab::{Lab, wait};
use crate::ready::john;
use crate::report::equal;
use crate::row::fields;
use crate::xcally::{BACK, counted, with_seats};

pub const TITLE: &str =
    "XCALLY's own integration, by its .env alone: before and after `motion-ad setup --bridge --apply`";

/// Binds at the server of `.env`, with the domain of `.env` behind the name. The password is a line of
/// standard input.
const CLIENT: &str = r#"set -a; . /var/opt/motion2/.env; IFS= read -r password
printf %s "$password" | ldapsearch -x -LLL -H "$XC_ACTIVEDIRECTORY_URL" -D "$1@$XC_ACTIVEDIRECTORY_DOMAIN" \
    -y /dev/stdin -s base -b "" 1.1"#;
/// LDAP's codes for a rejected password or account, and for a user who is logged in elsewhere.
const REJECTED: [i32; 2] = [49, 53];

/// Result of a row with one of the two servers.
struct Tried {
    done: Done,
    /// The bridge's log line about the last bind, if there is one.
    log: String,
}

/// Performs the rows, and adds them to `table`. Adds failed checks to `wrong`. Returns the number of rows.
pub fn show(lab: &Lab, table: &mut Table, wrong: &mut Vec<String>) -> Result<usize, String> {
    let rows = rows()?;
    // Samba rejects a simple bind without TLS by default, Windows does not.
    lab.run(&["dc", "plain", "on"]).ok()?;
    lab.configure(GROUPS)?;
    // The domain controller was restarted.
    wait(BACK, || john(lab).map(drop))?;
    let before = try_all(lab, &rows, false)?;
    lab.host("root", &["motion-ad", "setup", "--bridge", "--apply", "--yes"], "").ok()?;
    let after = try_all(lab, &rows, true)?;
    table.set_header(["", "SUBJECT", "USER", "PASSWORD", "DC", "BRIDGE", "BRIDGE'S LOG"]);
    let mut above = "";
    for ((row, before), after) in rows.iter().zip(&before).zip(&after) {
        let seen = equal("with a domain controller", before.done, row.before)
            .and_then(|()| equal("with the bridge", after.done, row.after));
        let mark = if seen.is_ok() { "ok" } else { "WRONG" };
        let subject = if subject(row) == above { "" } else { subject(row) };
        above = self::subject(row);
        let user = format!("{} ({})", person(row.who).sam, row.account);
        let (before, log) = (before.done.text(), after.log.as_str());
        table.add_row([mark, subject, &user, row.typed.text(), &before, &after.done.text(), log]);
        if let Err(error) = seen {
            wrong.push(format!("{}: {error}", row.name()));
        }
    }
    Ok(rows.len())
}

/// Returns the paragraph of XCALLY's page that a row is about.
fn subject(row: &Row) -> &'static str {
    match row.typed {
        Typed::Right => "account status",
        Typed::Wrong | Typed::WrongThenRight => "AD's lockout",
        Typed::Twice => "several sessions",
    }
}

fn try_all(lab: &Lab, rows: &[Row], is_bridge: bool) -> Result<Vec<Tried>, String> {
    lab.run(&["cast", "reset"]).ok()?;
    let each = |row: &Row| {
        if is_bridge && row.typed == Typed::Twice {
            with_seats(lab, "deny")?;
        }
        try_row(lab, row)
    };
    rows.iter().map(each).collect()
}

/// Performs all logins of a row. The last one counts.
fn try_row(lab: &Lab, row: &Row) -> Result<Tried, String> {
    let person = person(row.who);
    let (before, logged) = (lab.everybodys_counters()?, lines(lab, "bind")?.len());
    let mut is_in = false;
    for password in row.typed.passwords(person.password) {
        let ran = lab.host("motion", &["sh", "-c", CLIENT, "sh", person.sam], &format!("{password}\n"));
        is_in = match ran.code {
            0 => true,
            code if REJECTED.contains(&code) => false,
            code => return Err(format!("{}: exit code {code}: {}", row.name(), ran.stderr)),
        };
    }
    let after = lab.everybodys_counters()?;
    let counted = counted(&before, &after, row);
    counted_for(&before, &after, person.sam, counted)?;
    let line = lines(lab, "bind")?.split_off(logged).pop();
    let log = line.map_or(Ok("-".to_owned()), |line| outcome(&line))?;
    Ok(Tried { done: Done { is_in, counted }, log })
}

/// Returns the outcome and AD's code from a line about a bind.
fn outcome(line: &str) -> Result<String, String> {
    let mut fields = fields(line)?;
    let outcome = fields.remove("outcome").unwrap_or_default();
    Ok(fields.remove("data").map_or_else(|| outcome.clone(), |data| format!("{outcome} (data {data})")))
}
