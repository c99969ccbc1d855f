//! A name belongs to the account that currently has it. Accounts are moved, renamed, swapped, deleted and
//! created again while the broker remembers them. The next login, account check and session must be those of
//! the current account.
//!
//! All accounts of a round are created together, log in once so that the broker remembers them, and change
//! together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::app::{App, Call, Job};
use crate::cast::person;
use crate::lab::{Lab, Ran, wait};
use crate::pam::{Answer, authenticate, pam};
use crate::ready::ready;
use crate::register;
use crate::report::{Check, Report, contains, equal};
use crate::row::Method;
use crate::secrets::base64;

pub const PEOPLE: &str = "OU=People,DC=acme,DC=com";
const BRANCH: &str = "OU=Branch,DC=acme,DC=com";
const RULES: &str = "[login]\nallow_groups = [\"XCALLY Agents\"]\ndeny_groups = [\"XCALLY Denied\"]\n";

const LOGIN: &[&str] = &["authenticate", "acct_mgmt", "open_session"];

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    let done = rounds(lab, report);
    lab.set_method(Method::Ldap);
    lab.configure("").and_then(|()| register::clear(lab)).and(done)
}

fn rounds(lab: &Lab, report: &mut Report) -> Check {
    for method in [Method::Ldap, Method::Kerberos] {
        lab.set_method(method);
        for (title, rules) in [("no group rules", ""), ("group rules", RULES)] {
            report.note(&format!("{}, {title}", method.name()));
            lab.configure(rules)?;
            ready(lab)?;
            let done = round(lab, report, !rules.is_empty());
            clean(lab)?;
            done?;
        }
        letters(lab, report);
        report.check("a password that never expires need not be changed, whatever pwdLastSet is", || {
            never_expires(lab)
        });
    }
    lab.set_method(Method::Ldap);
    lab.configure("")?;
    ready(lab)?;
    report
        .check("reading is cut off: a wrong password is wrong, and shuts nobody out afterwards", || cut(lab));
    Ok(())
}

/// Names without a one-to-one mapping of upper and lower case in Unicode: first as AD has them, then as
/// typed.
const LETTERS: &[(&str, &str)] = &[
    ("νίκος.παππάς", "νίκος.παππάς"),
    ("νίκος.παππάς", "ΝΊΚΟΣ.ΠΑΠΠΆΣ"),
    ("ΜΆΡΙΟΣ.ΛΙΟΣ", "μάριος.λιος"),
    ("ΜΆΡΙΟΣ.ΛΙΟΣ", "ΜΆΡΙΟΣ.ΛΙΟΣ"),
    ("İlker", "İlker"),
    ("İlker", "İLKER"),
];

fn letters(lab: &Lab, report: &mut Report) {
    report.check("Greek and Turkish names, in capitals and in small letters", || {
        let names: BTreeSet<_> = LETTERS.iter().map(|(sam, _)| *sam).collect();
        let dn = |sam: &str| format!("CN={sam},{PEOPLE}");
        let add = |sam: &&'static str| {
            let account = Account { cn: sam, sam };
            account.add(FIRST, AGENTS)
        };
        ldap(lab, "ldapmodify", &names.iter().map(add).collect::<String>()).ok()?;
        let seen = LETTERS.iter().try_for_each(|(sam, typed)| {
            let answer = pam(lab, "motion", typed, FIRST, &["authenticate", "acct_mgmt"]);
            equal(&format!("{sam} as {typed}"), answer.code.as_str(), "PAM_SUCCESS")
        });
        for sam in names {
            ldap(lab, "ldapdelete", &format!("{}\n", dn(sam))).ok()?;
        }
        seen
    });
}

/// Gives a user who must change the password (`pwdLastSet` 0) a password that never expires. AD computes no
/// expiry for it and authenticates the user (MS-ADTS 3.1.1.4.5.17).
fn never_expires(lab: &Lab) -> Check {
    // NORMAL_ACCOUNT and DONT_EXPIRE_PASSWD.
    const NEVER: &str = "66048";
    const USUAL: &str = "512";
    let max = person("max");
    let set = |control: &str| {
        let dn = format!("CN={},{PEOPLE}", max.sam);
        let change = format!(
            "dn: {dn}\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: {control}\n"
        );
        ldap(lab, "ldapmodify", &change).ok().map(drop)
    };
    let judged = || {
        let commands = [&["motion-ad", "check", max.sam][..], &["motion-ad", "audit"]];
        let [check, audit] =
            commands.map(|command| lab.host("root", command, &format!("{}\n", max.sam)).code);
        let handle = pam(lab, "motion", max.sam, max.password, &["authenticate", "acct_mgmt"]).code;
        let fresh = pam(lab, "motion", max.sam, "", &["acct_mgmt"]).code;
        [handle, fresh, check.to_string(), audit.to_string()]
    };
    let before = judged();
    set(NEVER)?;
    let seen = judged();
    set(USUAL)?;
    equal("before", before, ["PAM_NEW_AUTHTOK_REQD", "PAM_NEW_AUTHTOK_REQD", "1", "1"].map(str::to_owned))?;
    equal(
        "with a password that never expires",
        seen,
        ["PAM_SUCCESS", "PAM_SUCCESS", "0", "0"].map(str::to_owned),
    )
}

/// Closes port 389 by routing. The broker then reads nothing, while binds go to port 636.
fn cut(lab: &Lab) -> Check {
    let john = person("john");
    let rule =
        |verb: &str| lab.host_sh(&format!("ip rule {verb} dport 389 ipproto 6 unreachable")).ok().map(drop);
    let log_in = |password: &str| authenticate(lab, john.sam, password).code;
    rule("add")?;
    let wrong = log_in("not the password of anybody");
    let right = log_in(john.password);
    let counted = lab.counters(john.sam);
    rule("delete")?;
    let back = wait(Duration::from_secs(15), || {
        equal("once reading is back", log_in(john.password).as_str(), "PAM_SUCCESS")
    });
    equal("a wrong password", wrong.as_str(), "PAM_AUTH_ERR")?;
    equal("the right one", right.as_str(), "PAM_AUTHINFO_UNAVAIL")?;
    // The right password reached AD, which reset the counter.
    equal("badPwdCount", counted?.bad_passwords, 0)?;
    back
}

/// An account with its common name, which is part of its DN, and its sAMAccountName. The password comes from
/// the former.
#[derive(Clone, Copy)]
struct Account {
    cn: &'static str,
    sam: &'static str,
}

const fn account(cn: &'static str, sam: &'static str) -> Account {
    Account { cn, sam }
}

impl Account {
    fn dn(&self, ou: &str) -> String {
        format!("CN={},{ou}", self.cn)
    }

    /// Returns the LDIF record that creates it with this password in this group.
    fn add(&self, password: &str, group: &str) -> String {
        let (dn, sam) = (self.dn(PEOPLE), self.sam);
        let quoted: Vec<u8> = format!("\"{password}\"").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let quoted = String::from_utf8_lossy(&base64(&quoted)).into_owned();
        format!(
            "dn: {dn}\nchangetype: add\nobjectClass: user\nsAMAccountName: {sam}\n\
             userPrincipalName: {sam}@acme.com\nuserAccountControl: 512\nunicodePwd:: {quoted}\n\n\
             dn: CN={group},OU=Groups,DC=acme,DC=com\nchangetype: modify\nadd: member\nmember: {dn}\n\n"
        )
    }

    /// Returns the LDIF record that changes its sAMAccountName and userPrincipalName.
    fn rename(&self, sam: &str) -> String {
        format!(
            "dn: {}\nchangetype: modify\nreplace: sAMAccountName\nsAMAccountName: {sam}\n-\n\
             replace: userPrincipalName\nuserPrincipalName: {sam}@acme.com\n\n",
            self.dn(PEOPLE)
        )
    }

    fn move_away(&self) -> String {
        let (dn, cn) = (self.dn(PEOPLE), self.cn);
        format!("dn: {dn}\nchangetype: moddn\nnewrdn: CN={cn}\ndeleteoldrdn: 1\nnewsuperior: {BRANCH}\n\n")
    }

    fn delete(&self) -> String {
        format!("dn: {}\nchangetype: delete\n\n", self.dn(PEOPLE))
    }

    fn disable(&self) -> String {
        format!(
            "dn: {}\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: 514\n\n",
            self.dn(PEOPLE)
        )
    }
}

const AGENTS: &str = "XCALLY Agents";
const DENIED: &str = "XCALLY Denied";
/// Passwords of the first and the last accounts with a name. Quoted and in UTF-16, each fills whole groups of
/// [`base64`].
const FIRST: &str = "F1rst-bearer1";
const NOW: &str = "N0w-bearing-1";

/// Accounts that are moved, while another account gets their DN.
const MOVED: [Account; 4] = [
    account("Sam Moved1", "moved1"),
    account("Sam Moved2", "moved2"),
    account("Sam Moved3", "moved3"),
    account("Sam Moved4", "moved4"),
];
const IN_ITS_PLACE: [Account; 4] = [
    account("Sam Moved1", "taken1"),
    account("Sam Moved2", "taken2"),
    account("Sam Moved3", "taken3"),
    account("Sam Moved4", "taken4"),
];
/// Pairs that swap names. The first of each pair has the password [`FIRST`], the second one [`NOW`].
const SWAPPED: [[Account; 2]; 4] = [
    [account("Swap 1a", "swap1a"), account("Swap 1b", "swap1b")],
    [account("Swap 2a", "swap2a"), account("Swap 2b", "swap2b")],
    [account("Swap 3a", "swap3a"), account("Swap 3b", "swap3b")],
    [account("Swap 4a", "swap4a"), account("Swap 4b", "swap4b")],
];
/// Accounts that are renamed, while a new account gets their name.
const RENAMED: [Account; 3] =
    [account("Anna Rossi1", "rossi1"), account("Anna Rossi2", "rossi2"), account("Anna Rossi3", "rossi3")];
const NAMESAKES: [Account; 3] =
    [account("Anna New1", "rossi1"), account("Anna New2", "rossi2"), account("Anna New3", "rossi3")];
/// Accounts that are deleted. All but the last one are created again.
const DELETED: [Account; 4] = [
    account("Del Eted1", "deleted1"),
    account("Del Eted2", "deleted2"),
    account("Del Eted3", "deleted3"),
    account("Del Eted4", "deleted4"),
];

fn before() -> String {
    let first = MOVED.iter().chain(&RENAMED).chain(&DELETED).map(|account| account.add(FIRST, AGENTS));
    let pairs = SWAPPED.iter().map(|[one, other]| one.add(FIRST, AGENTS) + &other.add(NOW, AGENTS));
    let branch = format!("dn: {BRANCH}\nchangetype: add\nobjectClass: organizationalUnit\n\n");
    std::iter::once(branch).chain(first).chain(pairs).collect()
}

fn changes() -> String {
    let moved = MOVED.iter().zip(&IN_ITS_PLACE);
    let moved = moved.map(|(one, other)| one.move_away() + &other.add(NOW, DENIED));
    let swapped = SWAPPED
        .iter()
        .map(|[one, other]| one.rename("for.a.moment") + &other.rename(one.sam) + &one.rename(other.sam));
    let renamed = RENAMED
        .iter()
        .zip(&NAMESAKES)
        .map(|(one, other)| one.rename(&one.sam.replace("rossi", "bianchi")) + &other.add(NOW, AGENTS));
    let deleted = DELETED.iter().enumerate().map(|(at, account)| match at {
        3 => account.delete(),
        _ => account.delete() + &account.add(NOW, AGENTS),
    });
    let disabled = [SWAPPED[3][0], NAMESAKES[2]].map(|account| account.disable());
    moved.chain(swapped).chain(renamed).chain(deleted).chain(disabled).collect()
}

/// Removes all these accounts, if they exist.
fn clean(lab: &Lab) -> Check {
    register::clear(lab)?;
    let first = MOVED.iter().map(|account| account.dn(BRANCH));
    let rest = MOVED.iter().chain(&RENAMED).chain(&NAMESAKES).chain(&DELETED).chain(SWAPPED.iter().flatten());
    for dn in first.chain(rest.map(|account| account.dn(PEOPLE))) {
        ldap(lab, "ldapdelete", &format!("{dn}\n"));
    }
    ldap(lab, "ldapdelete", &format!("{BRANCH}\n")).ok().map(drop)
}

/// Runs an OpenLDAP tool as the administrator on the domain controller, over Samba's own socket.
pub fn ldap(lab: &Lab, tool: &str, input: &str) -> Ran {
    const SOCKET: &str = "ldapi://%2Fvar%2Flib%2Fsamba%2Fprivate%2Fldap_priv%2Fldapi";
    const PASSWORD: &str = "/usr/local/lib/lab/admin-password";
    let command = [tool, "-x", "-H", SOCKET, "-D", "Administrator@acme.com", "-y", PASSWORD];
    lab.dc_with(&command, input)
}

/// Returns the objectGUID of every account, by DN.
fn guids(lab: &Lab) -> Result<BTreeMap<String, String>, String> {
    let search = ["ldbsearch", "-H", "/var/lib/samba/private/sam.ldb", "(objectClass=user)", "objectGUID"];
    let found = lab.dc(&search).ok()?;
    let mut guids = BTreeMap::new();
    let mut dn = "";
    for line in found.lines() {
        if let Some(text) = line.strip_prefix("dn: ") {
            dn = text;
        } else if let Some(guid) = line.strip_prefix("objectGUID: ") {
            guids.insert(dn.to_owned(), guid.to_owned());
        }
    }
    Ok(guids)
}

/// Returns the badPwdCount of the account with this DN.
fn counted(lab: &Lab, dn: &str) -> Result<u32, String> {
    let search = ["ldbsearch", "-H", "/var/lib/samba/private/sam.ldb", "-b", dn, "-s", "base", "badPwdCount"];
    let found = lab.dc(&search).ok()?;
    let count = found.lines().find_map(|line| line.strip_prefix("badPwdCount: "));
    count.unwrap_or("0").parse().map_err(|e| format!("badPwdCount: {e}"))
}

/// One round: the results of each case with the current method and rules.
struct Round<'a> {
    lab: &'a Lab,
    guids: BTreeMap<String, String>,
    has_rules: bool,
}

fn round(lab: &Lab, report: &mut Report, has_rules: bool) -> Check {
    ldap(lab, "ldapmodify", &before()).ok()?;
    let firsts = MOVED.iter().chain(&RENAMED).chain(&DELETED).map(|account| (account, FIRST));
    let pairs = SWAPPED.iter().flat_map(|[one, other]| [(one, FIRST), (other, NOW)]);
    for (account, password) in firsts.chain(pairs) {
        let answer = pam(lab, "motion", account.sam, password, &["authenticate"]);
        equal(account.sam, answer.code.as_str(), "PAM_SUCCESS")
            .map_err(|e| format!("{e}\n{}", answer.output))?;
    }
    // Logs in first, and opens a session on the same handle after another account got the name.
    let mut app = App::start(lab)?;
    let job = |calls: &[Call]| Job {
        handle: "one".into(),
        service: "motion".into(),
        user: SWAPPED[2][0].sam.into(),
        answers: vec![FIRST.into()],
        calls: calls.to_vec(),
        ..Job::default()
    };
    let proved = app.run(job(&[Call::Authenticate]))?;
    equal("authenticate on the handle", proved.code(), "PAM_SUCCESS")?;
    ldap(lab, "ldapmodify", &changes()).ok()?;
    report.check("names swapped: no session on the handle of who logged in before", || {
        let position = lab.log_position()?;
        equal("open_session", app.run(job(&[Call::Open]))?.code(), "PAM_SESSION_ERR")?;
        let dn = SWAPPED[2][1].dn(PEOPLE);
        lab.wait_for_log(&position, &["event=session_open", &format!("the name is now that of {dn}")])?;
        let opened = register::open(lab)?.into_iter().any(|session| session.user == SWAPPED[2][0].sam);
        equal("a session", opened, false)
    });
    let round = Round { lab, guids: guids(lab)?, has_rules };
    round.moved(report);
    round.swapped(report);
    round.renamed(report);
    round.deleted(report);
    Ok(())
}

impl Round<'_> {
    fn try_in(&self, name: &str, password: &str, entry_points: &[&str]) -> Answer {
        pam(self.lab, "motion", name, password, entry_points)
    }

    /// Checks that a call at the login page ends with this code.
    fn expect(&self, name: &str, password: &str, entry_points: &[&str], code: &str) -> Check {
        let answer = self.try_in(name, password, entry_points);
        equal(name, answer.code.as_str(), code)
            .map_err(|e| format!("{e}\npamtester said:\n{}", answer.output))
    }

    /// Checks that the calls succeed, and that the last one opens a session for the account with this DN.
    fn enters(&self, name: &str, password: &str, entry_points: &[&str], dn: &str) -> Check {
        let session = || {
            self.expect(name, password, entry_points, "PAM_SUCCESS")?;
            let sessions = register::open(self.lab)?;
            Ok::<_, String>(sessions.into_iter().rev().find(|session| session.user == name))
        };
        // pamtester has already ended, so the broker may have ended the session, but hardly twice in a row.
        let session = match session()? {
            None => session()?,
            found => found,
        };
        let guid = session.ok_or("there is no session")?.guid;
        equal("the session's account", Some(&guid), self.guids.get(dn))
    }

    /// Checks that at most one login fails. Its right password may go out under the former meaning of the
    /// name. It then counts only for the account that received it, and the next login succeeds.
    fn enters_soon(&self, name: &str, password: &str, dn: &str) -> Check {
        let answer = self.try_in(name, password, LOGIN);
        match answer.code.as_str() {
            "PAM_SUCCESS" => {}
            "PAM_AUTH_ERR" if self.lab.method() == Method::Ldap => {
                equal("badPwdCount of the bearer", counted(self.lab, dn)?, 0)?;
            }
            code => return Err(format!("{code}\npamtester said:\n{}", answer.output)),
        }
        self.enters(name, password, LOGIN, dn)
    }

    fn check_says(&self, name: &str, code: i32, text: &str) -> Check {
        let ran = self.lab.host("root", &["motion-ad", "check", name], "");
        equal("exit code", ran.code, code).map_err(|e| format!("{e}\n{}{}", ran.stdout, ran.stderr))?;
        contains("check", &(ran.stdout + &ran.stderr), text)
    }

    fn moved(&self, report: &mut Report) {
        let [stranger, own, account, session] = MOVED;
        report.check("moved, DN reused: the new account's password opens nothing under the old name", || {
            self.expect(stranger.sam, NOW, LOGIN, "PAM_AUTH_ERR")?;
            equal("badPwdCount", counted(self.lab, &stranger.dn(BRANCH))?, 1)?;
            self.enters(stranger.sam, FIRST, LOGIN, &stranger.dn(BRANCH))
        });
        report.check("moved, DN reused: the own password, within two logins", || {
            self.enters_soon(own.sam, FIRST, &own.dn(BRANCH))
        });
        report.check("moved, DN reused: acct_mgmt and check on a fresh handle", || {
            self.expect(account.sam, "", &["acct_mgmt"], "PAM_SUCCESS")?;
            self.check_says(account.sam, 0, "may log in")
        });
        report.check("moved, DN reused: open_session on a fresh handle", || {
            self.enters(session.sam, "", &["open_session"], &session.dn(BRANCH))
        });
        if self.has_rules {
            report.check("moved, DN reused: the new account is judged by its own groups", || {
                self.expect(IN_ITS_PLACE[0].sam, NOW, LOGIN, "PAM_PERM_DENIED")
            });
        }
    }

    fn swapped(&self, report: &mut Report) {
        let [stranger, own, session, disabled] = SWAPPED;
        report.check("names swapped: the earlier bearer's password opens nothing", || {
            self.expect(stranger[0].sam, FIRST, LOGIN, "PAM_AUTH_ERR")?;
            self.enters(stranger[0].sam, NOW, LOGIN, &stranger[1].dn(PEOPLE))
        });
        report.check("names swapped: the present bearer's password, within two logins", || {
            self.enters_soon(own[0].sam, NOW, &own[1].dn(PEOPLE))
        });
        report.check("names swapped: open_session on a fresh handle", || {
            self.enters(session[0].sam, "", &["open_session"], &session[1].dn(PEOPLE))
        });
        // The first account is disabled and now has the second name.
        report.check("names swapped: acct_mgmt and check judge the present bearer", || {
            self.expect(disabled[0].sam, "", &["acct_mgmt"], "PAM_SUCCESS")?;
            self.expect(disabled[1].sam, "", &["acct_mgmt"], "PAM_PERM_DENIED")?;
            self.check_says(disabled[0].sam, 0, "may log in")?;
            self.check_says(disabled[1].sam, 1, "disabled")
        });
    }

    fn renamed(&self, report: &mut Report) {
        let [stranger, session, account] = RENAMED;
        report.check("renamed, name given away: the earlier bearer's password opens nothing", || {
            self.expect(stranger.sam, FIRST, LOGIN, "PAM_AUTH_ERR")?;
            equal("badPwdCount", counted(self.lab, &NAMESAKES[0].dn(PEOPLE))?, 1)?;
            self.enters(stranger.sam, NOW, LOGIN, &NAMESAKES[0].dn(PEOPLE))?;
            let renamed = stranger.sam.replace("rossi", "bianchi");
            self.enters(&renamed, FIRST, LOGIN, &stranger.dn(PEOPLE))
        });
        report.check("renamed, name given away: open_session on a fresh handle", || {
            self.enters(session.sam, "", &["open_session"], &NAMESAKES[1].dn(PEOPLE))
        });
        report.check("renamed, name given away: acct_mgmt and check judge the present bearer", || {
            self.expect(account.sam, "", &["acct_mgmt"], "PAM_PERM_DENIED")?;
            self.check_says(account.sam, 1, "disabled")
        });
    }

    fn deleted(&self, report: &mut Report) {
        let [again, session, account, gone] = DELETED;
        report.check("deleted and made again: the new password at once, the old one never", || {
            self.enters(again.sam, NOW, LOGIN, &again.dn(PEOPLE))?;
            self.expect(again.sam, FIRST, LOGIN, "PAM_AUTH_ERR")
        });
        report.check("deleted and made again: open_session on a fresh handle", || {
            self.enters(session.sam, "", &["open_session"], &session.dn(PEOPLE))
        });
        report.check("deleted and made again: acct_mgmt and check on a fresh handle", || {
            self.expect(account.sam, "", &["acct_mgmt"], "PAM_SUCCESS")?;
            self.check_says(account.sam, 0, "may log in")
        });
        report.check("deleted: nobody bears the name, whatever is asked", || {
            self.expect(gone.sam, "", &["acct_mgmt"], "PAM_USER_UNKNOWN")?;
            self.check_says(gone.sam, 1, "unknown_user")?;
            self.expect(gone.sam, FIRST, LOGIN, "PAM_USER_UNKNOWN")
        });
    }
}
