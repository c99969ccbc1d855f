//! `make demo`: real logins, as a first impression.
//!
//! Its rows come from the suite's tables (`people.rs`, `config.rs`, `before_after.rs`) and are checked in the
//! same way.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use comfy_table::{ContentArrangement, Table, presets};

use crate::cast::person;
use crate::config::{ALLOWED, DENIED};
use crate::demo_bridge;
use crate::join;
use crate::lab::{Lab, LogPosition};
use crate::pam::pam;
use crate::people::{CAST, NAMES};
use crate::report::{Check, Report};
use crate::row::{Acct, Row, fields};

const HEADING: &str = "Logins at the PAM service `motion`, by the user that XCALLY Motion runs as, on a host \
that has joined a real\nActive Directory (acme.com) by `realm join`:";

const LEGEND: &str = "\
AD says       what AD itself answers to this name and password: an LDAP bind by ldapsearch, without motion-ad
PAM answers   what pamtester was answered by pam_motion_ad.so
log           the outcome in the broker's log; - where the module refused without asking the broker
DC, BRIDGE    the same bind at the server that .env names: before the change, and after it
ok            code, texts, badPwdCount of everybody in AD and log line are as tests/lab/suite expects them";

const FURTHER: &str = "Look further: `make lab-up` brings such a lab up to stay, `tests/lab/lab shell host` \
opens a shell on its host.";

/// Meanings of AD's error codes (MS-ERREF 2.2).
const MEANINGS: &[(&str, &str)] = &[
    ("data 52e", "logon failure"),
    ("data 530", "invalid logon hours"),
    ("data 531", "invalid workstation"),
    ("data 532", "password expired"),
    ("data 533", "account disabled"),
    ("data 701", "account expired"),
    ("data 773", "password must change"),
    ("data 775", "account locked out"),
];

/// Returns the displayed rows, with the configuration that they need.
fn parts() -> [(&'static str, &'static str, Vec<&'static Row>); 3] {
    // One call of each kind per user is enough for a demo. acct_mgmt alone is only in the suite.
    let mut seen = BTreeSet::new();
    let cast = CAST.iter().filter(|row| row.calls != Acct && seen.insert((row.name, row.typed))).collect();
    let names = NAMES.iter().filter(|row| row.calls != Acct && !row.name.is_empty()).collect();
    let groups =
        ALLOWED[..1].iter().chain(&ALLOWED[2..3]).chain(&ALLOWED[6..7]).chain(&DENIED[..1]).collect();
    let rules = "[login]\nallow_groups = [\"XCALLY Agents\"]\ndeny_groups = [\"XCALLY Denied\"]\n";
    [
        ("Everybody, with a wrong password and with the right one", "", cast),
        ("Names as people type them, and as attackers do", "", names),
        ("With allow_groups = [\"XCALLY Agents\"] and deny_groups = [\"XCALLY Denied\"]", rules, groups),
    ]
}

pub fn run() -> Result<ExitCode, String> {
    let lab = Lab::up(crate::ONE_OF_EACH)?;
    let mut setup = Report::quiet();
    join::chapter(&lab, &mut setup)?;
    setup.all_passed()?;

    let (mut logins, mut wrong) = (0, Vec::new());
    let mut text = String::new();
    for (title, configuration, rows) in parts() {
        let begun = Instant::now();
        lab.run(&["cast", "reset"]).ok()?;
        lab.configure(configuration)?;
        let table = show(&lab, &rows, &mut wrong)?;
        text += &format!("\n{title}\n{table}");
        logins += rows.len();
        took(title, begun);
    }
    let (begun, mut table) = (Instant::now(), empty());
    logins += demo_bridge::show(&lab, &mut table, &mut wrong)?;
    text += &format!("\n{}\n{}", demo_bridge::TITLE, indented(&table));
    took(demo_bridge::TITLE, begun);
    drop(lab);
    println!("\n{HEADING}\n{text}\n{LEGEND}");
    for error in &wrong {
        println!("\nWRONG: {error}");
    }
    println!("\n{} of {logins} logins went as they should.", logins - wrong.len());
    println!("{FURTHER}");
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn took(title: &str, begun: Instant) {
    eprintln!("demo: {:<62} {:6.1} s", format!("{title:.60}"), begun.elapsed().as_secs_f64());
}

fn empty() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn indented(table: &Table) -> String {
    table.lines().map(|line| format!("  {}\n", line.trim_end())).collect()
}

/// Tries the rows and returns the table to display. Adds failed checks to `wrong`.
fn show(lab: &Lab, rows: &[&Row], wrong: &mut Vec<String>) -> Result<String, String> {
    let mut table = empty();
    table.set_header(["", "WHO", "NAME TYPED", "PASSWORD", "AD SAYS", "PAM ANSWERS", "LOG"]);
    for row in rows {
        let before = lab.everybodys_counters()?;
        let position = lab.log_position()?;
        let answer = pam(lab, "motion", row.name, &row.password(), row.entry_points());
        let checked: Check = lab
            .everybodys_counters()
            .and_then(|after| row.check(&answer, &before, &after))
            .and_then(|()| row.check_log(lab, &position, "motion"));
        let ad = ad_says(lab, row);
        if row.counted > 0 {
            // The next row of the user starts at zero again, because the comparison bind also counted.
            lab.run(&["cast", "reset", row.who]).ok()?;
        }
        let mark = if checked.is_ok() { "ok" } else { "WRONG" };
        let log = logged(lab, &position)?;
        let who = if row.who.is_empty() { "-".to_owned() } else { condition(row.who) };
        table.add_row([mark, &who, &row.shown_name(), &row.shown_password(), &ad, &answer.code, &log]);
        if let Err(error) = checked {
            wrong.push(format!("{}: {error}", row.label()));
        }
    }
    Ok(indented(&table))
}

/// Returns the outcomes in the broker's log since `position`.
fn logged(lab: &Lab, position: &LogPosition) -> Result<String, String> {
    let lines = lab.log_since(position)?;
    let outcomes: Vec<_> = lines.iter().filter_map(|line| fields(line).ok()?.remove("outcome")).collect();
    Ok(if outcomes.is_empty() { "-".to_owned() } else { outcomes.join(", ") })
}

/// Returns the user's key and the condition of the account.
fn condition(key: &str) -> String {
    let person = person(key);
    format!("{} ({})", person.key, person.condition)
}

/// Returns AD's own answer to the same password: a simple bind from the same host without this project's
/// code. It runs after PAM, because a wrong password counts here, too.
fn ad_says(lab: &Lab, row: &Row) -> String {
    let password = row.password();
    if row.who.is_empty() || !row.is_sent() {
        return "(not asked)".to_owned();
    }
    let container = if row.who == "administrator" { "CN=Users" } else { "OU=People" };
    let dn = format!("CN={},{container},DC=acme,DC=com", person(row.who).sam);
    let bind = [
        "env",
        "LDAPTLS_CACERT=/etc/motion-ad/ca.pem",
        "ldapsearch",
        "-LLL",
        "-x",
        "-H",
        "ldaps://ad.acme.com",
    ];
    let search = ["-D", &dn, "-w", &password, "-s", "base", "-b", "", "1.1"];
    let ran = lab.host("root", &[&bind[..], &search[..]].concat(), "");
    match (ran.code, ran.stderr.split_once("AcceptSecurityContext error, ")) {
        (0, _) => "success".to_owned(),
        (_, Some((_, data))) => {
            let data = data.split(',').next().unwrap_or_default();
            let meaning = MEANINGS.iter().find(|(code, _)| *code == data).map_or("?", |(_, meaning)| meaning);
            format!("{data}: {meaning}")
        }
        (code, None) => format!("exit code {code}: {}", ran.stderr.lines().next().unwrap_or_default()),
    }
}
