//! Restrictions of AD apart from an account's state: members of Protected Users, authentication policies and
//! silos, and binds where NTLM is off. Samba 4.22 knows all of them, Samba 4.17 Protected Users alone.

use std::fs;
use std::time::Duration;

use crate::cast::{Person, person};
use crate::lab::{Lab, Release, wait};
use crate::pam::authenticate;
use crate::ready::{ready, restart};
use crate::report::{Check, Report, contains, equal};

const CONFIG: &str = "/etc/motion-ad/config.toml";
const WRONG: &str = "not the password of anybody";
/// Maximum time until the broker works after a restart of the domain controller.
const BACK: Duration = Duration::from_secs(30);
/// This host's account.
const HOST: &str = "XCALLY$";

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    lab.run(&["cast", "reset"]).ok()?;
    let done = protected(lab, report).and_then(|()| match lab.has_policies() {
        true => silo(lab, report).and_then(|()| policy_of_host(lab, report)),
        false => {
            report.note(
                "no authentication policies and silos: they need Samba 4.22 and the functional level 2016",
            );
            Ok(())
        }
    });
    let done = done.and_then(|()| match lab.dc_release() {
        Release::Trixie => ntlm(lab, report),
        Release::Bookworm => {
            report.note("Samba 4.17 takes simple binds without NTLM, as the chapter hardening shows");
            Ok(())
        }
    });
    lab.configure("")?;
    done.and(ready(lab))
}

/// Configures this method, which may be `auto`.
fn by(lab: &Lab, method: &str) -> Check {
    lab.configure("")?;
    let text = fs::read_to_string(lab.path(CONFIG)).map_err(|e| format!("{CONFIG}: {e}"))?;
    lab.write(CONFIG, &text.replace("method = \"ldap\"", &format!("method = \"{method}\"")))?;
    restart(lab)
}

/// One login: its code, its texts, and its line in the log.
fn login(lab: &Lab, person: &Person, password: &str) -> Result<(String, String), String> {
    let position = lab.log_position()?;
    let code = authenticate(lab, person.sam, password).code;
    let line = lab.wait_for_log(&position, &["event=login", &format!("user={}", person.sam)])?;
    println!("         {code}: {line}");
    Ok((code, line))
}

/// A login with the right password, and one with a wrong one that counts as often as `counted`.
fn both(lab: &Lab, person: &Person, right: (&str, &[&str]), wrong: (&str, &[&str]), counted: u32) -> Check {
    for (password, (expected, words)) in [(person.password, right), (WRONG, wrong)] {
        let (code, line) = login(lab, person, password)?;
        equal("PAM", code.as_str(), expected).map_err(|e| format!("{e}\n{line}"))?;
        words.iter().try_for_each(|word| contains("the line", &line, word))?;
    }
    let seen = lab.counters(person.sam)?.bad_passwords;
    lab.run(&["cast", "reset", person.sam]).ok()?;
    equal("badPwdCount", seen, counted)
}

fn samba_tool(lab: &Lab, arguments: &[&str]) -> Check {
    let command: Vec<_> = ["samba-tool"].iter().chain(arguments).copied().collect();
    lab.dc(&command).ok().map(drop).map_err(|e| format!("{command:?}: {e}"))
}

/// Checks the exit status and the text of `motion-ad check` for a user.
fn check(lab: &Lab, person: &Person, exit: i32, words: &[&str]) -> Check {
    let ran = lab.host("root", &["motion-ad", "check", person.sam], "");
    equal("exit code", ran.code, exit).map_err(|e| format!("{e}\n{}{}", ran.stdout, ran.stderr))?;
    words.iter().try_for_each(|word| contains("check", &ran.stdout, word))
}

const BY_KERBEROS: (&str, &[&str]) = ("PAM_SUCCESS", &["outcome=success", "method=kerberos"]);
const WRONG_ONCE: (&str, &[&str]) = ("PAM_AUTH_ERR", &["outcome=wrong_password", "method=kerberos"]);

fn protected(lab: &Lab, report: &mut Report) -> Check {
    let seth = person("seth");
    samba_tool(lab, &["group", "addmembers", "Protected Users", seth.sam])?;
    by(lab, "auto")?;
    report.check(
        "Protected Users: with login.method = \"auto\" the password goes to Kerberos, and counts once",
        || {
            wait(BACK, || ready(lab))?;
            both(lab, &seth, BY_KERBEROS, WRONG_ONCE, 1)
        },
    );
    report.check("Protected Users: motion-ad check and audit name the group", || {
        check(lab, &seth, 0, &["Protected Users", "member"])?;
        let ran = lab.host("root", &["motion-ad", "audit", "--json", "-"], &format!("{}\n", seth.sam));
        contains("audit", &ran.stdout, "Protected Users").map_err(|e| format!("{e}{}", ran.stderr))
    });
    by(lab, "ldap")?;
    report.check(
        "Protected Users: with login.method = \"ldap\" its members are rejected, and nothing counts",
        || {
            wait(BACK, || ready(lab))?;
            let restricted: (&str, &[&str]) =
                ("PAM_PERM_DENIED", &["outcome=account_restriction", "data 52f"]);
            both(lab, &seth, restricted, restricted, 0)?;
            check(lab, &seth, 1, &["account_restriction", "Protected Users"])
        },
    );
    samba_tool(lab, &["group", "removemembers", "Protected Users", seth.sam])
}

fn silo(lab: &Lab, report: &mut Report) -> Check {
    let seth = person("seth");
    let from = "O:SYG:SYD:(XA;OICI;CR;;;WD;(@USER.ad://ext/AuthenticationSilo == \"desk\"))";
    let from = format!("--user-allowed-to-authenticate-from={from}");
    let (policy, silo) = (["domain", "auth", "policy"], ["domain", "auth", "silo"]);
    let domain = |what: [&'static str; 3], more: &[&str]| samba_tool(lab, &[&what[..], more].concat());
    domain(policy, &["create", "--name=desk", "--enforce", &from])?;
    domain(silo, &["create", "--name=desk", "--enforce", "--user-authentication-policy=desk"])?;
    domain(silo, &["member", "grant", "--name=desk", &format!("--member={}", seth.sam)])?;
    samba_tool(lab, &["user", "auth", "silo", "assign", seth.sam, "--silo=desk"])?;
    by(lab, "auto")?;
    report.check(
        "a silo without this host: account_restriction for every password, and nothing counts",
        || {
            wait(BACK, || ready(lab))?;
            let named: (&str, &[&str]) =
                ("PAM_PERM_DENIED", &["outcome=account_restriction", "silo", "KDC error 12"]);
            both(lab, &seth, named, named, 0)
        },
    );
    report.check("motion-ad check names the silo", || check(lab, &seth, 0, &["authentication silo", "desk"]));
    domain(silo, &["member", "grant", "--name=desk", &format!("--member={HOST}")])?;
    samba_tool(lab, &["user", "auth", "silo", "assign", HOST, "--silo=desk"])?;
    // The ticket says that the host is in the silo.
    restart(lab)?;
    report.check("a silo with this host: the exchange is armoured, and its user comes in", || {
        wait(BACK, || ready(lab))?;
        both(lab, &seth, BY_KERBEROS, WRONG_ONCE, 1)
    });
    for account in [seth.sam, HOST] {
        samba_tool(lab, &["user", "auth", "silo", "remove", account])?;
        domain(silo, &["member", "revoke", "--name=desk", &format!("--member={account}")])?;
    }
    domain(silo, &["delete", "--name=desk", "--force"])?;
    domain(policy, &["delete", "--name=desk", "--force"])
}

/// A policy of this host that admits administrators alone.
fn policy_of_host(lab: &Lab, report: &mut Report) -> Check {
    let john = person("john");
    let to = "--computer-allowed-to-authenticate-to=O:SYG:SYD:(XA;OICI;CR;;;WD;(Member_of SID(BA)))";
    samba_tool(lab, &["domain", "auth", "policy", "create", "--name=host", "--enforce", to])?;
    samba_tool(lab, &["user", "auth", "policy", "assign", HOST, "--policy=host"])?;
    by(lab, "kerberos")?;
    report.check(
        "a policy of this host that does not admit the user: account_restriction after the proof",
        || {
            let named: (&str, &[&str]) =
                ("PAM_PERM_DENIED", &["outcome=account_restriction", "AllowedToAuthenticateTo"]);
            wait(BACK, || equal("PAM", login(lab, &john, john.password)?.0.as_str(), "PAM_PERM_DENIED"))?;
            both(lab, &john, named, ("PAM_AUTH_ERR", &["outcome=wrong_password"]), 1)
        },
    );
    samba_tool(lab, &["user", "auth", "policy", "remove", HOST])?;
    samba_tool(lab, &["domain", "auth", "policy", "delete", "--name=host", "--force"])
}

fn ntlm(lab: &Lab, report: &mut Report) -> Check {
    let john = person("john");
    lab.run(&["dc", "ntlm", "off"]).ok()?;
    by(lab, "auto")?;
    report.check("NTLM is off: with login.method = \"auto\" passwords go to Kerberos", || {
        wait(BACK, || ready(lab))?;
        let (code, line) = login(lab, &john, john.password)?;
        equal("PAM", code.as_str(), "PAM_SUCCESS")?;
        contains("the line", &line, "method=kerberos")
    });
    report.check("NTLM is off: a wrong password goes to AD once", || {
        let (code, line) = login(lab, &john, WRONG)?;
        equal("PAM", code.as_str(), "PAM_AUTH_ERR")?;
        contains("the line", &line, "method=kerberos")
    });
    for command in ["status", "doctor"] {
        report.check(&format!("NTLM is off: motion-ad {command} names it"), || {
            let ran = lab.host("root", &["motion-ad", command], "");
            contains(command, &ran.stdout, "data 418")
        });
    }
    by(lab, "ldap")?;
    report.check(
        "NTLM is off: with login.method = \"ldap\" every login is unavailable, and status says why",
        || {
            let unavailable =
                || equal("PAM", login(lab, &john, john.password)?.0.as_str(), "PAM_AUTHINFO_UNAVAIL");
            wait(BACK, unavailable)?;
            let ran = lab.host("root", &["motion-ad", "status"], "");
            equal("exit code", ran.code, 1)?;
            contains("status", &ran.stdout, "takes no simple binds")
        },
    );
    lab.run(&["dc", "ntlm", "on"]).ok()?;
    report.check(
        "NTLM is on again: AD has counted the wrong password once, and binds are used again",
        || {
            equal("badPwdCount", lab.counters(john.sam)?.bad_passwords, 1)?;
            by(lab, "auto")?;
            wait(BACK, || ready(lab))?;
            let (code, line) = login(lab, &john, john.password)?;
            equal("PAM", code.as_str(), "PAM_SUCCESS")?;
            contains("the line", &line, "method=ldap")
        },
    );
    lab.run(&["cast", "reset", john.sam]).ok().map(drop)
}
