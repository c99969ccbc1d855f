//! A login as a row of a table: the account, the typed password, and all expected results.
//!
//! After each row, the counters of all accounts in the domain are compared. After each table, the broker's
//! log is compared line by line.

use std::collections::BTreeMap;
use std::time::Duration;

use motion_ad::texts::{Language, Text};
use motion_ad::verdict::Outcome;

use crate::cast::person;
use crate::lab::{Counters, Lab, LogPosition, Release, wait};
use crate::pam::{Answer, pam};
use crate::report::{Check, Report, equal};

/// Number of wrong passwords that lock an account in the lab's domain.
const LOCKOUT: u32 = 3;

/// Reason why a KDC of Samba 4.22 tells a right password from a wrong one no more.
const KDC_FIRST: &str = "Samba 4.22's KDC looks at the account's state before it asks for a proof; 4.17 \
                         checks the password first";

/// Text typed at the password prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Typed {
    /// The user's password.
    Right,
    /// A password that no account has.
    Wrong,
    /// Only Return.
    Empty,
    /// A wrong password of this length in bytes.
    Bytes(usize),
    /// The password of another user, named by key.
    Of(&'static str),
}
pub use Typed::*;

/// The PAM calls, all on the same handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    Auth,
    /// authenticate and acct_mgmt, as a login page calls them.
    AuthAcct,
    /// acct_mgmt on a handle that never authenticated.
    Acct,
}
pub use Calls::*;

/// Method that checks the password (`login.method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A bind.
    Ldap,
    /// A ticket.
    Kerberos,
}

impl Method {
    /// Returns the name in configuration and log.
    pub fn name(self) -> &'static str {
        match self {
            Method::Ldap => "ldap",
            Method::Kerberos => "kerberos",
        }
    }
}

/// One login.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Key in the cast of the account that the name means. A wrong password raises its counter. Empty: no
    /// account.
    pub who: &'static str,
    pub name: &'static str,
    pub typed: Typed,
    pub calls: Calls,
    /// Outcome in the log line; empty if the module rejects the login without a request to the broker.
    pub outcome: &'static str,
    /// Number that the wrong password adds to badPwdCount.
    pub counted: u32,
    pub code: &'static str,
    /// The principal in the log, if it is not `name@acme.com`; `-` means none.
    principal: &'static str,
    /// Part of the reason in the log line.
    reason: &'static str,
    /// Text shown to the user.
    told: &'static str,
    /// True if authenticate succeeds and acct_mgmt fails.
    passes_auth: bool,
    /// True if AD accepts the login, and so resets the counter, although the module rejects it.
    ad_accepts: bool,
    /// The reason if this is so only with Kerberos; empty otherwise.
    kdc_accepts: &'static str,
    /// True if Samba 4.22's KDC rejects the account before it asks for a proof of the password.
    kdc_first: bool,
    /// Reason why the release of the domain controller makes a difference.
    differs: &'static str,
    /// Outcome and code with Kerberos if they differ, and the reason.
    kdc_refuses: Option<(&'static str, &'static str, &'static str)>,
    /// The row describes a login by LDAP, unless [`Row::by`] converted it.
    method: Method,
}

pub const fn row(
    who: &'static str,
    name: &'static str,
    typed: Typed,
    calls: Calls,
    outcome: &'static str,
    counted: u32,
    code: &'static str,
) -> Row {
    // Only a wrong password counts, and such a login never succeeds.
    assert!(counted == 0 || matches!(outcome.as_bytes(), b"wrong_password"));
    let (principal, reason, told) = ("", "", "");
    Row {
        who,
        name,
        typed,
        calls,
        outcome,
        counted,
        code,
        principal,
        reason,
        told,
        passes_auth: false,
        ad_accepts: false,
        kdc_accepts: "",
        kdc_first: false,
        differs: "",
        kdc_refuses: None,
        method: Method::Ldap,
    }
}

impl Row {
    pub const fn principal(self, principal: &'static str) -> Row {
        Row { principal, ..self }
    }

    pub const fn reason(self, reason: &'static str) -> Row {
        Row { reason, ..self }
    }

    pub const fn told(self, told: &'static str) -> Row {
        Row { told, ..self }
    }

    pub const fn passes_auth(self) -> Row {
        Row { passes_auth: true, ..self }
    }

    pub const fn ad_accepts(self) -> Row {
        Row { ad_accepts: true, ..self }
    }

    pub const fn kdc_accepts(self, why: &'static str) -> Row {
        Row { kdc_accepts: why, ..self }
    }

    pub const fn kdc_refuses(self, outcome: &'static str, code: &'static str, why: &'static str) -> Row {
        Row { kdc_refuses: Some((outcome, code, why)), ..self }
    }

    /// Samba 4.22's KDC rejects the account before it asks for a proof of the password, as Windows documents:
    /// no password counts, and the user learns nothing.
    pub const fn kdc_first(self) -> Row {
        Row { kdc_first: true, ..self }
    }

    /// Returns the row for this method, at a domain controller of this release.
    pub fn by(self, method: Method, dc: Release) -> Row {
        match method {
            Method::Ldap => self,
            Method::Kerberos if self.kdc_first && dc == Release::Trixie => Row {
                method,
                outcome: "not_checked",
                code: "PAM_AUTH_ERR",
                counted: 0,
                told: "",
                reason: if self.outcome == "wrong_password" { "KDC error 18" } else { self.outcome },
                differs: KDC_FIRST,
                ..self
            },
            Method::Kerberos => {
                let (outcome, code, why) = self.kdc_refuses.unwrap_or((self.outcome, self.code, ""));
                Row {
                    method,
                    outcome,
                    code,
                    ad_accepts: self.ad_accepts || !self.kdc_accepts.is_empty() || !why.is_empty(),
                    kdc_accepts: if why.is_empty() { self.kdc_accepts } else { why },
                    // A reason with a bind's error code exists only with LDAP.
                    reason: if self.reason.starts_with("data ") { "" } else { self.reason },
                    ..self
                }
            }
        }
    }

    /// Returns the name in printable form.
    pub fn shown_name(&self) -> String {
        let name = self.name.escape_debug().to_string().replace("\\'", "'").replace("\\\\", "\\");
        match name.char_indices().nth(40) {
            Some((cut, _)) => format!("{}… ({} bytes)", &name[..cut], self.name.len()),
            None if name.is_empty() => "\"\"".to_owned(),
            None => name,
        }
    }

    /// Returns the password in one or two words.
    pub fn shown_password(&self) -> String {
        match self.typed {
            _ if self.calls == Acct => "-".to_owned(),
            Right => "right".to_owned(),
            Wrong => "wrong".to_owned(),
            Empty => "empty".to_owned(),
            Bytes(count) => format!("{count} bytes"),
            Of(key) => format!("{key}'s"),
        }
    }

    pub fn entry_points(&self) -> &'static [&'static str] {
        match self.calls {
            Auth => &["authenticate"],
            AuthAcct => &["authenticate", "acct_mgmt"],
            Acct => &["acct_mgmt"],
        }
    }

    /// Returns the row as one line.
    pub fn label(&self) -> String {
        let (name, calls) = (self.shown_name(), self.entry_points().join(", "));
        let why = match (self.method, self.kdc_accepts, self.differs) {
            (Method::Ldap, ..) | (_, "", "") => String::new(),
            (Method::Kerberos, "", why) | (Method::Kerberos, why, _) => format!(" ({why})"),
        };
        match self.calls {
            Acct => format!("{name}, {calls}: {}", self.code),
            _ => format!("{name}, password {}, {calls}: {}{why}", self.shown_password(), self.code),
        }
    }

    pub fn password(&self) -> String {
        match self.typed {
            Right => person(self.who).password.to_owned(),
            Wrong => "not the password of anybody".to_owned(),
            Empty => String::new(),
            Bytes(count) => "x".repeat(count),
            Of(key) => person(key).password.to_owned(),
        }
    }

    /// Returns true if the password is sent to AD.
    pub fn is_sent(&self) -> bool {
        self.calls != Acct && !["", "unknown_user", "unmapped", "ambiguous"].contains(&self.outcome)
    }

    /// Checks the PAM code, the prompts and texts, and AD's counters.
    pub fn check(&self, answer: &Answer, before: &Counts, after: &Counts) -> Check {
        let all = |text: String| format!("{text}\npamtester said:\n{}", answer.output);
        equal("PAM", answer.code.as_str(), self.code).map_err(all)?;
        let passed: &[&str] = match (self.code, self.passes_auth) {
            ("PAM_SUCCESS", _) => self.entry_points(),
            (_, true) => &["authenticate"],
            _ => &[],
        };
        equal("entry points that succeeded", answer.passed.as_slice(), &own(passed)).map_err(all)?;
        self.check_conversation(answer).map_err(all)?;
        self.check_counters(before, after)
    }

    fn check_conversation(&self, answer: &Answer) -> Check {
        // A name that no account can have is rejected before the password prompt.
        let asked = self.calls != Acct && !(self.outcome.is_empty() && self.code == "PAM_USER_UNKNOWN");
        equal("prompts", answer.output.matches("Password: ").count(), usize::from(asked))?;
        // A text in another language than the service's is unexpected, too.
        let in_language =
            |language| Outcome::ALL.iter().filter_map(move |outcome| Text::Outcome(*outcome).to(language));
        let texts = Language::ALL.iter().flat_map(|language| in_language(*language));
        let told: Vec<_> = texts.filter(|text| answer.output.contains(text)).collect();
        let unexpected = told.iter().find(|text| *text != self.told);
        match unexpected {
            Some(text) => Err(format!("the person was told {text:?}")),
            None if !self.told.is_empty() && told.is_empty() => {
                Err(format!("the person was not told {:?}", self.told))
            }
            None => Ok(()),
        }
    }

    fn check_counters(&self, before: &Counts, after: &Counts) -> Check {
        let mut expected = before.clone();
        if !self.who.is_empty() {
            let counters = expected.get_mut(person(self.who).sam).ok_or("AD does not know the person")?;
            counters.bad_passwords += self.counted;
            counters.locked |= self.counted > 0 && counters.bad_passwords >= LOCKOUT;
            // The broker checks these groups after AD accepted the password, so AD has reset the counter.
            let groups = ["success", "not_allowed", "denied"].contains(&self.outcome);
            if (groups || self.ad_accepts) && self.calls != Acct {
                *counters = Counters { bad_passwords: 0, locked: false };
            }
        }
        let changed = |counts: &Counts| -> Counts {
            let other = |sam: &String| expected.get(sam) != after.get(sam);
            counts.iter().filter(|(sam, _)| other(sam)).map(|(sam, c)| (sam.clone(), *c)).collect()
        };
        equal("AD's counters", changed(after), changed(&expected))
    }

    /// Returns the fields that the log line must have.
    fn expected_fields(&self, service: &str) -> BTreeMap<&'static str, String> {
        let event = if self.calls == Acct { "account" } else { "login" };
        let principal = match self.principal {
            "" => format!("{}@acme.com", self.name.to_lowercase()),
            "-" => String::new(),
            principal => principal.to_owned(),
        };
        // The log names the domain controller if it decided, because it received the password.
        let undecided = ["unknown_user", "unmapped", "ambiguous", "misconfigured"].contains(&self.outcome);
        let dc = if self.calls == Acct || undecided { "" } else { "ad.acme.com" };
        let fields = [
            ("event", event.to_owned()),
            ("user", self.name.to_owned()),
            ("principal", principal),
            ("outcome", self.outcome.to_owned()),
            ("dc", dc.to_owned()),
            ("service", service.to_owned()),
        ];
        fields.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    /// Checks the log since `position`, which must hold only this login.
    pub fn check_log(&self, lab: &Lab, position: &LogPosition, service: &str) -> Check {
        let row = [self];
        let rows = if self.outcome.is_empty() { &row[..0] } else { &row[..] };
        check_log(lab, position, service, rows)
    }

    fn check_line(&self, line: &str, service: &str, uid: &str) -> Check {
        let mut fields = fields(line)?;
        let mut take = |name: &str| fields.remove(name).unwrap_or_default();
        let (peer, ms, reason) = (take("peer"), take("ms"), take("reason"));
        let (advice, method) = (take("advice"), take("method"));
        if fields.contains_key("dc") {
            equal("method", method.as_str(), self.method.name())?;
        }
        if !peer.starts_with(&format!("uid:{uid},pid:")) || ms.parse::<f64>().is_err() {
            return Err(format!("expected the peer uid:{uid} and milliseconds: {line}"));
        }
        if !reason.contains(self.reason) || (self.outcome != "success" && reason.is_empty()) {
            return Err(format!("expected a reason with {:?}: {line}", self.reason));
        }
        if self.outcome == "misconfigured" {
            // A malformed file is detected before the name is mapped, a missing group only after the DC's
            // decision.
            fields.remove("dc");
            fields.remove("principal");
            equal("there is advice", advice.is_empty(), false)?;
        }
        let mut expected = self.expected_fields(service);
        if self.outcome == "misconfigured" {
            expected.remove("principal");
        }
        let seen: BTreeMap<_, _> =
            fields.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        equal("the log line", seen, expected)
    }
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// AD's counters of all accounts, by sAMAccountName.
pub type Counts = BTreeMap<String, Counters>;

/// Tries every row at `service` with the lab's method, and checks each. At the end, checks the log.
pub fn run(lab: &Lab, report: &mut Report, service: &str, rows: &[Row]) -> Result<(), String> {
    let rows: Vec<_> = rows.iter().map(|row| row.by(lab.method(), lab.dc_release())).collect();
    let position = lab.log_position()?;
    let mut before = lab.everybodys_counters()?;
    for row in &rows {
        report.check(&row.label(), || {
            let answer = pam(lab, service, row.name, &row.password(), row.entry_points());
            let after = lab.everybodys_counters()?;
            let checked = row.check(&answer, &before, &after);
            before = after;
            checked
        });
    }
    let logged: Vec<_> = rows.iter().filter(|row| !row.outcome.is_empty()).collect();
    let name = format!("the log has one line for each of these {}, in order", logged.len());
    report.check(&name, || check_log(lab, &position, service, &logged));
    Ok(())
}

/// Events that the broker logs about itself around its start.
const OF_THE_BROKER: [&str; 6] =
    ["event=start ", "event=config ", "event=restart ", "event=method ", "event=trust ", "event=dc "];

fn check_log(lab: &Lab, position: &LogPosition, service: &str, rows: &[&Row]) -> Check {
    let uid = lab.host_sh("id -u motion").ok()?;
    let is_login = |line: &&String| line.starts_with("event=login ") || line.starts_with("event=account ");
    let mut lines = Vec::new();
    // The broker writes the log concurrently with the logins.
    wait(Duration::from_secs(20), || {
        lines = lab.log_since(position)?;
        let count = lines.iter().filter(is_login).count();
        if count >= rows.len() { Ok(()) } else { Err(format!("{count} lines, expected {}", rows.len())) }
    })?;
    let foreign = lines
        .iter()
        .find(|line| !is_login(line) && !OF_THE_BROKER.iter().any(|event| line.starts_with(event)));
    if let Some(line) = foreign {
        return Err(format!("a line that nobody expects: {line}"));
    }
    let logins: Vec<_> = lines.iter().filter(is_login).collect();
    for (row, line) in rows.iter().zip(&logins) {
        row.check_line(line, service, uid.trim()).map_err(|e| format!("{}: {e}", row.label()))?;
    }
    equal("lines", logins.len(), rows.len())
}

/// Returns the unescaped fields of a line of logfmt. A duplicate field is an error, because only a forged
/// value could produce it.
pub fn fields(line: &str) -> Result<BTreeMap<String, String>, String> {
    let mut fields = BTreeMap::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(|| format!("a word that is no field: {line}"))?;
        let (value, next) = value(after).ok_or_else(|| format!("an unfinished value: {line}"))?;
        if fields.insert(name.to_owned(), value).is_some() {
            return Err(format!("{name} is there twice: {line}"));
        }
        rest = next;
    }
    Ok(fields)
}

/// Returns one value and the text after it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(' ').unwrap_or((text, ""));
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return quoted[at + 1..].strip_prefix(' ').or(Some("")).map(|rest| (value, rest)),
            '\\' => match chars.next()?.1 {
                'u' => {
                    let code = chars.as_str().strip_prefix('{')?.split_once('}')?.0;
                    value.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
                    chars.nth(code.len() + 1);
                }
                c => value.push(c),
            },
            c => value.push(c),
        }
    }
    None
}
