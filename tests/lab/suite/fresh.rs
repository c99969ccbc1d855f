//! A new host: joined, the package installed, no file edited. Users log in whatever the domain offers, and a
//! wrong password counts once.

use std::fs;
use std::time::Duration;

use crate::cast::person;
use crate::lab::{Lab, repository, wait};
use crate::pam::authenticate;
use crate::ready::john;
use crate::report::{Check, Report, contains, equal};
use crate::row::Method;

/// Maximum time until the broker detects by itself that TLS works again.
const BACK: Duration = Duration::from_secs(90);

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    lab.run(&["join"]).ok()?;
    lab.run(&["cast", "reset"]).ok()?;
    lab.run(&["purge"]).ok()?;
    // The CA of earlier chapters does not belong to the package, so the purge left it.
    lab.host_sh("rm -rf /etc/motion-ad").ok()?;
    lab.run(&["ca", "publish"]).ok()?;
    let package = lab.package()?;
    report.check("the package is installed on a joined host", || {
        lab.run(&["install", &package.to_string_lossy()]).ok().map(drop)
    });
    report.check("nothing is edited, and the CA is in no file of the host", || unedited(lab));
    report.check("somebody comes in at once, by whichever method", || john(lab).map(drop));
    report.check("the CA is published in AD alone: verified LDAPS", || {
        // Kerberos serves until the roots were read from AD, which takes a busy machine one or two seconds.
        wait(BACK, || logs_in(lab, Method::Ldap))?;
        let open = lab.host_sh("ss -Htnp dst 10.73.0.10:636 | grep -c motion-ad").ok()?;
        equal("a connection to port 636", open.trim() == "0", false)
    });
    report.check("motion-ad status shows the forest's root", || {
        contains("status", &lab.host("root", &["motion-ad", "status"], "").ok()?, "Acme Root CA")
    });
    report.check("a wrong password counts once", || counts_once(lab));
    lab.run(&["dc", "tls", "off"]).ok()?;
    report.check("no TLS on the DC: Kerberos, and the log says why", || {
        let position = lab.log_position()?;
        lab.host_sh("systemctl restart motion-ad.service").ok()?;
        logs_in(lab, Method::Kerberos)?;
        let line = lab.wait_for_log(&position, &["event=method", "method=kerberos", "reason="])?;
        println!("         {line}");
        contains("status", &lab.host("root", &["motion-ad", "status"], "").ok()?, "kerberos")
    });
    report.check("a wrong password counts once by Kerberos", || counts_once(lab));
    lab.run(&["dc", "tls", "on"]).ok()?;
    report.check("TLS is back: LDAP again, without a restart", || wait(BACK, || logs_in(lab, Method::Ldap)));
    lab.run(&["dc", "tls", "off"]).ok()?;
    report.check("TLS goes away under a running broker: Kerberos", || {
        wait(BACK, || logs_in(lab, Method::Kerberos))
    });
    lab.run(&["dc", "tls", "on"]).ok()?;
    lab.run(&["ca", "unpublish"]).ok()?;
    lab.configure("")
}

fn unedited(lab: &Lab) -> Check {
    let shipped = repository().join("packaging/config.toml");
    let shipped = fs::read_to_string(&shipped).map_err(|e| format!("{}: {e}", shipped.display()))?;
    let installed = fs::read_to_string(lab.path("/etc/motion-ad/config.toml")).map_err(|e| e.to_string())?;
    equal("config.toml is as shipped", installed == shipped, true)?;
    let ca = lab.run(&["ca"]).ok()?;
    let ca = fs::read_to_string(ca.trim()).map_err(|e| e.to_string())?;
    // Any line except the first is unique.
    let line = ca.lines().nth(1).ok_or("the CA has no certificate")?;
    let found = lab.host("root", &["grep", "-rlF", line, "/etc", "/usr/share/ca-certificates"], "");
    equal("files with the CA", found.stdout.as_str(), "")
}

/// Checks that John can log in, and that the log names this method.
fn logs_in(lab: &Lab, method: Method) -> Check {
    let position = lab.log_position()?;
    let took = john(lab)?;
    let words = ["event=login", "outcome=success", &format!("method={}", method.name())];
    lab.wait_for_log(&position, &words)?;
    println!("         {:.2} s by {}", took.as_secs_f64(), method.name());
    Ok(())
}

fn counts_once(lab: &Lab) -> Check {
    let wendy = person("wendy");
    let before = lab.counters(wendy.sam)?.bad_passwords;
    equal("PAM", authenticate(lab, wendy.sam, "not hers").code.as_str(), "PAM_AUTH_ERR")?;
    equal("badPwdCount", lab.counters(wendy.sam)?.bad_passwords, before + 1)
}
