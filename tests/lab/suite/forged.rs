//! A forged KDC of the realm that knows John's password, but not this host's key. For users whose password it
//! does not know, it reports an expired password and accepts a change.

use crate::app::{App, Call, Job};
use crate::lab::Lab;
use crate::ready::{john, john_at, ready, restart};
use crate::report::{Check, Report, contains, equal};
use crate::row::Method;

/// Passwords that the attacker chooses: the forged one (tests/lab/lib/forge.sh), and its replacement.
const FORGED: &str = "F0rged-from-front-to-end";
const NEW: &str = "F0rged-from-end-to-front";
/// Password in AD, which no test types.
const REAL: &str = "R3al-from-end-to-end";
/// A service that leaves expired passwords to acct_mgmt.
const SERVICE: &str = "motion-forged";

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    lab.set_method(Method::Kerberos);
    let done = lab.configure("").and_then(|()| ready(lab)).and_then(|()| forgery(lab, report));
    lab.set_method(Method::Ldap);
    lab.configure("").and(done)
}

fn forgery(lab: &Lab, report: &mut Report) -> Check {
    // Without cached credentials the broker does not get as far as a user's ticket: the forged KDC does not
    // know its key.
    for (name, fresh, cause) in [
        ("a forged KDC under a running broker: John is refused, and the log names it", false, "forged KDC"),
        (
            "a forged KDC when the broker starts: John is refused, and the log says that it rejects the host",
            true,
            "the KDC does not accept the key of",
        ),
    ] {
        lab.run(&["forge", "up"]).ok()?;
        report.check(name, || refused(lab, fresh, cause));
        lab.run(&["forge", "down"]).ok()?;
        report
            .check("the real KDC is back, and so is John", || ready(lab).and_then(|()| john(lab).map(drop)));
    }
    admission(lab, report)
}

/// Two users without a userPrincipalName, which stock KDCs cannot forge. The first may log in, the second
/// must change the password first.
const PEOPLE: [(&str, &str); 2] = [("fiona.forged", ""), ("frank.forged", "--must-change-at-next-login")];

/// Calls authenticate, acct_mgmt and chauthtok with the attacker's password, which is not valid in AD.
fn admission(lab: &Lab, report: &mut Report) -> Check {
    let lines = ["auth", "account", "password", "session"];
    let lines = lines.map(|line| format!("{line} required pam_motion_ad.so expired=account\n"));
    lab.write(&format!("/etc/pam.d/{SERVICE}"), &lines.concat())?;
    for (sam, option) in PEOPLE {
        let no_upn = format!(
            "samba-tool user create {sam} {REAL} {option} && printf 'dn: \
             CN={sam},CN=Users,DC=acme,DC=com\\nchangetype: modify\\ndelete: userPrincipalName\\n' | \
             ldbmodify -H /var/lib/samba/private/sam.ldb"
        );
        lab.dc(&["sh", "-c", &no_upn]).ok()?;
    }
    lab.run(&["forge", "up"]).ok()?;
    let unavailable = "PAM_AUTHINFO_UNAVAIL";
    report.check("a forged KDC says \"expired\", and AD does not: nobody is authenticated", || {
        equal("PAM", attack(lab, "fiona.forged")?.first().map(String::as_str), Some(unavailable))
    });
    report.check("both say so, and the forger takes a new password: nobody is admitted", || {
        let codes = attack(lab, "frank.forged")?;
        let expected = ["PAM_SUCCESS", "PAM_NEW_AUTHTOK_REQD", unavailable, "PAM_NEW_AUTHTOK_REQD"];
        equal("PAM", codes, expected.map(str::to_owned).to_vec())
    });
    lab.run(&["forge", "down"]).ok()?;
    for (sam, _) in PEOPLE {
        lab.dc(&["samba-tool", "user", "delete", sam]).ok()?;
    }
    lab.host_sh(&format!("rm /etc/pam.d/{SERVICE}")).ok().map(drop)?;
    ready(lab)
}

/// Returns the codes for an application that continues after every failure, and finally calls acct_mgmt
/// again.
fn attack(lab: &Lab, sam: &str) -> Result<Vec<String>, String> {
    let position = lab.log_position()?;
    let mut app = App::start(lab)?;
    let done = app.run(Job {
        handle: sam.to_owned(),
        service: SERVICE.to_owned(),
        user: sam.to_owned(),
        answers: [FORGED, FORGED, NEW, NEW].map(str::to_owned).to_vec(),
        calls: vec![Call::Authenticate, Call::Account, Call::ChangeExpired, Call::Account],
        through: true,
        end: true,
        ..Job::default()
    })?;
    for line in lab.log_since(&position)? {
        println!("         {line}");
    }
    println!("         {:?}", done.codes);
    Ok(done.codes)
}

/// Checks that John is refused, and that the log names the cause.
fn refused(lab: &Lab, fresh: bool, cause: &str) -> Check {
    if fresh {
        restart(lab)?;
    }
    let position = lab.log_position()?;
    let (answer, took) = john_at(lab, "motion", &["authenticate"]);
    let line = lab.wait_for_log(&position, &["event=login", "user=john.doe"])?;
    println!("         {:.2} s: {line}", took.as_secs_f64());
    equal("PAM", answer.code.as_str(), "PAM_AUTHINFO_UNAVAIL").map_err(|e| format!("{e}\n{line}"))?;
    contains("the log", &line, cause)
}
