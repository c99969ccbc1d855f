//! Logs in through the LDAP bridge by third-party libraries, as user motion on the host. Each runs every row
//! of the cast, with an admin and without. Compares the library's result, AD's counters of every account, and
//! the lines of the log.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bridge::{ADMIN, Bind, CAST, SECRET, URL, WRONG, counted_for, disable, enable, lines};
use crate::cast::person;
use crate::clients::{self, PYTHON};
use crate::lab::{Lab, wait};
use crate::ready::ready;
use crate::report::{Check, Report, contains, equal};
use crate::row::fields;
use crate::secrets;
use crate::talk::Talk;

const NODE: &str = "/opt/clients/ldap/login.js";
const BASE: &str = "dc=acme,dc=com";
const MAP: &str = "/etc/motion-ad/names.map";
const GROUPS: &str = "[login]\nallow_groups = [\"XCALLY Agents\"]\ndeny_groups = [\"XCALLY Denied\"]\n";
/// Names that a search by an admin finds no account for, so that no bind follows.
const UNKNOWN: &[&str] = &["ACME\\john.doe", "nobody.at.all", "motion"];
/// Number of logins at the same time.
const CROWD: usize = 40;

/// Rows in addition to the bridge's cast: groups, a mapped name, a comma in the CN (of sally), wrong
/// passwords of unusual names.
#[rustfmt::skip]
const MORE: &[Bind] = &[
    // who        as                         by           code  data   counted
    ("nina",      "nina.nested",             None,           0, "",    0),
    ("otto",      "otto.outsider",           None,          49, "531", 0),
    ("dean",      "dean.denied",             None,          49, "531", 0),
    ("greta",     "greta.groups",            None,           0, "",    0),
    ("john",      "jd",                      None,           0, "",    0),
    ("john",      "jd",                      Some(WRONG),   49, "52e", 1),
    ("sally",     "sally.seat",              None,           0, "",    0),
    ("sally",     "sally.seat",              Some(WRONG),   49, "52e", 1),
    ("joerg",     "jörg.müller",             Some(WRONG),   49, "52e", 1),
    ("miles",     "miles.o'brien",           Some(WRONG),   49, "52e", 1),
];

/// The user with a comma in the CN.
const COMMA: &str = "sally";

/// The row of an ambiguous name: its distinguished name is not ambiguous.
const CLASH: Bind = ("clash-b", "clash", Some(WRONG), 49, "52e", 1);

/// The text that a library has for a failed bind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    /// AD's text, with its code.
    Text,
    /// passport-ldapauth's own text for AD's code.
    Own,
    /// No text.
    Nothing,
}

struct Library {
    command: &'static [&'static str],
    /// With an admin it looks for the account, and binds as the distinguished name it found.
    looks: bool,
    /// It cannot search without an admin.
    needs_admin: bool,
    says: Speech,
    /// It sends an empty password.
    sends_empty: bool,
    /// It searches for the user's groups with an admin; without one, as that user.
    groups: (bool, bool),
    /// It removes the escapes from a distinguished name, which is invalid then.
    unescapes: bool,
}

const LIBRARY: Library = Library {
    command: &[],
    looks: true,
    needs_admin: false,
    says: Speech::Text,
    sends_empty: false,
    groups: (true, true),
    unescapes: false,
};

const LIBRARIES: &[Library] = &[
    Library { command: &["node", NODE, "activedirectory"], looks: false, groups: (true, false), ..LIBRARY },
    Library { command: &["node", NODE, "activedirectory2"], looks: false, groups: (true, false), ..LIBRARY },
    Library {
        command: &["node", NODE, "passport-ldapauth"],
        needs_admin: true,
        says: Speech::Own,
        ..LIBRARY
    },
    Library {
        command: &["node", NODE, "passport-activedirectory"],
        needs_admin: true,
        says: Speech::Nothing,
        ..LIBRARY
    },
    // Its ldapjs 3 gives the application no text of a bind's answer.
    Library {
        command: &["node", NODE, "ldap-authentication-3"],
        says: Speech::Nothing,
        unescapes: true,
        ..LIBRARY
    },
    Library { command: &["node", NODE, "ldap-authentication-4"], ..LIBRARY },
    Library { command: &["node", NODE, "ldapts"], sends_empty: true, groups: (false, false), ..LIBRARY },
    Library { command: &["python3", PYTHON, "ldap3"], groups: (true, false), ..LIBRARY },
];

/// passport-ldapauth's default texts.
fn own_text(data: &str) -> &'static str {
    match data {
        "530" => "Not Permitted to login at this time",
        "531" => "Not permited to logon at this workstation",
        "532" => "Password expired",
        "533" => "Account disabled",
        "701" => "Account expired",
        "773" => "User must reset password",
        "775" => "User account locked",
        _ => "Invalid username/password",
    }
}

/// One login and its expected result.
struct Login {
    sam: &'static str,
    name: &'static str,
    password: String,
    /// LDAP's code and AD's, if a bind is sent.
    bind: Option<(i32, &'static str)>,
    counted: u32,
}

impl Library {
    fn name(&self) -> &'static str {
        self.command.last().copied().unwrap_or_default()
    }

    fn login(&self, row: &Bind, with_admin: bool) -> Login {
        let looks = self.looks && with_admin;
        let (who, name, password, code, data, counted) = if looks && row.1 == CLASH.1 { CLASH } else { *row };
        let person = person(who);
        let password = password.unwrap_or(person.password).to_owned();
        let is_broken = looks && self.unescapes && who == COMMA;
        let (code, data, counted) = if is_broken { (49, "525", 0) } else { (code, data, counted) };
        let is_sent = !(looks && UNKNOWN.contains(&name)) && (self.sends_empty || !password.is_empty());
        Login { sam: person.sam, name, password, bind: is_sent.then_some((code, data)), counted }
    }
}

impl Login {
    fn question(&self, with_admin: bool) -> Value {
        let bare = !self.name.contains(['@', '\\']);
        json!({
            "url": URL, "base": BASE, "name": self.name, "password": self.password,
            "find": if bare { self.name } else { self.sam },
            "admin": with_admin.then_some(ADMIN), "secret": with_admin.then_some(SECRET),
        })
    }

    fn comes_in(&self) -> bool {
        self.bind.is_some_and(|(code, _)| code == 0)
    }

    /// Compares the library's answer with the expected one.
    fn answered(&self, library: &Library, with_admin: bool, answer: &Value) -> Check {
        equal(&format!("in ({answer})"), answer["in"].as_bool(), Some(self.comes_in()))?;
        let said = answer["said"].as_str().unwrap_or_default();
        match (self.bind, library.says) {
            (Some((49, data)), Speech::Text) => {
                contains("said", said, &format!("AcceptSecurityContext error, data {data}, v"))?;
            }
            (Some((49, data)), Speech::Own) => equal("said", said, own_text(data))?,
            _ => {}
        }
        let sees_groups = if with_admin { library.groups.0 } else { library.groups.1 };
        let is_broken = library.unescapes && self.sam == person(COMMA).sam;
        if self.comes_in() && sees_groups && !is_broken {
            let groups: Vec<_> = answer["groups"].as_array().into_iter().flatten().collect();
            let expected =
                if self.name == person("nina").sam { "Agents Night Shift" } else { "XCALLY Agents" };
            contains("groups", &format!("{groups:?}"), expected)?;
            if self.name == person("greta").sam {
                equal("at least 300 groups", groups.len() > 300, true)?;
            }
        }
        Ok(())
    }
}

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    clients::install(lab)?;
    lab.configure(GROUPS)?;
    lab.write(MAP, "jd = john.doe@acme.com\n")?;
    let sally = person("sally").sam;
    let rename =
        |cn: &str| lab.dc(&["samba-tool", "user", "rename", sally, &format!("--force-new-cn={cn}")]).ok();
    ready(lab)?;
    lab.run(&["cast", "reset"]).ok()?;
    rename("Seat\\, Sally")?;
    let done = enable(lab).and_then(|()| libraries(lab, report));
    disable(lab)?;
    rename(sally)?;
    lab.host_sh(&format!("printf '# nobody\\n' >{MAP}")).ok()?;
    lab.run(&["cast", "reset"]).ok()?;
    lab.configure("")?;
    done
}

fn libraries(lab: &Lab, report: &mut Report) -> Check {
    for library in LIBRARIES {
        let mut talk = Talk::start(lab, "motion", library.command)?;
        for with_admin in [false, true] {
            let how = if with_admin { "with an admin" } else { "without an admin" };
            report.note(&format!("{}, {how}", library.name()));
            if library.needs_admin && !with_admin {
                lets_nobody_in(lab, report, library, &mut talk);
            } else {
                table(lab, report, library, &mut talk, with_admin)?;
                crowd(lab, report, library, &mut talk, with_admin)?;
            }
        }
    }
    let people = CAST.iter().chain(MORE).map(|(who, ..)| person(who).password.to_owned());
    secrets::nowhere(lab, report, &people.chain([WRONG.to_owned()]).collect::<BTreeSet<_>>());
    // The admin's secret is in the files that are there for it.
    report.check("the admin's secret is not in the journal", || {
        let journal = lab.host_sh("journalctl -q --no-pager -o export").ok()?;
        equal("found", journal.contains(SECRET), false)
    });
    Ok(())
}

/// Checks that a library that searches first fails without an admin, and sends no bind.
fn lets_nobody_in(lab: &Lab, report: &mut Report, library: &Library, talk: &mut Talk) {
    report.check(&format!("{}, without an admin: nothing is found, so nobody is in", library.name()), || {
        let (before, logged) = (lab.everybodys_counters()?, lines(lab, "bind")?.len());
        let login = Login { bind: None, ..library.login(&CAST[0], false) };
        login.answered(library, false, &talk.ask(vec![login.question(false)])?[0])?;
        counted_for(&before, &lab.everybodys_counters()?, login.sam, 0)?;
        equal("binds", lines(lab, "bind")?.len(), logged)
    });
}

/// Runs the rows one after the other.
fn table(lab: &Lab, report: &mut Report, library: &Library, talk: &mut Talk, with_admin: bool) -> Check {
    let logged = lines(lab, "bind")?.len();
    let mut before = lab.everybodys_counters()?;
    let mut expected = Vec::new();
    for row in CAST.iter().chain(MORE) {
        let login = library.login(row, with_admin);
        let typed = if login.password == person(row.0).password { "the password" } else { "another" };
        let bind = login.bind.map_or("no bind".to_owned(), |(code, data)| format!("{code} {data}"));
        report.check(&format!("{}, {} by {typed}: {bind}", library.name(), login.name), || {
            let answer = talk.ask(vec![login.question(with_admin)])?;
            let earlier = std::mem::replace(&mut before, lab.everybodys_counters()?);
            login.answered(library, with_admin, &answer[0])?;
            counted_for(&earlier, &before, login.sam, login.counted)
        });
        expected.extend(login.bind);
    }
    report.check(&format!("{}: one line of the log for each bind, in order", library.name()), || {
        let expected: Vec<_> =
            expected.iter().map(|(code, data)| (code.to_string(), (*data).to_owned())).collect();
        wait(Duration::from_secs(10), || equal("binds", binds(lab, logged)?, expected.clone()))
    });
    // Not sally: the lab finds people by their CN. A login of hers resets her count.
    ["wendy", "dora", "john", "joerg", "miles", "clash-b"]
        .iter()
        .try_for_each(|who| lab.run(&["cast", "reset", who]).ok().map(drop))
}

/// Returns the results and AD codes of the users' binds after the first `logged` lines, without the admin's
/// binds, which must succeed.
fn binds(lab: &Lab, logged: usize) -> Result<Vec<(String, String)>, String> {
    let mut users = Vec::new();
    for line in lines(lab, "bind")?.iter().skip(logged) {
        let fields = fields(line)?;
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        if field("user") == ADMIN {
            equal("the admin's result", field("result").as_str(), "0")?;
        } else {
            users.push((field("result"), field("data")));
        }
    }
    Ok(users)
}

/// Runs many logins at the same time in one process.
fn crowd(lab: &Lab, report: &mut Report, library: &Library, talk: &mut Talk, with_admin: bool) -> Check {
    report.check(&format!("{}: {CROWD} logins at once, two of them wrong", library.name()), || {
        let before = lab.everybodys_counters()?;
        let of = |row: &Bind| library.login(row, with_admin);
        let right = CAST.iter().find(|row| row.1 == "john.doe").ok_or("no row of John")?;
        let wrong = CAST.iter().find(|row| row.2 == Some(WRONG)).ok_or("no wrong row")?;
        let mut logins: Vec<_> = (0..CROWD - 2).map(|_| of(right)).collect();
        for at in [7, 31] {
            logins.insert(at, of(wrong));
        }
        let answers = talk.ask(logins.iter().map(|login| login.question(with_admin)).collect())?;
        for (login, answer) in logins.iter().zip(&answers) {
            login.answered(library, with_admin, answer)?;
        }
        counted_for(&before, &lab.everybodys_counters()?, person("wendy").sam, 2)
    });
    lab.run(&["cast", "reset", "wendy"]).ok().map(drop)
}
