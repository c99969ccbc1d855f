//! A host that DNS names as a domain controller, before the real one, with a certificate from the forest's
//! own root. It accepts every password. Because AD does not list it, it gets no password. Once AD lists it,
//! the broker uses it.

use std::time::Duration;

use motion_ad_support::scripted::Received;

use crate::answers::{FAKE, REAL, Running};
use crate::cast::person;
use crate::lab::{Lab, wait};
use crate::pam::authenticate;
use crate::ready::{john, ready};
use crate::report::{Check, Report, contains, equal};
use crate::row::fields;

/// The broker's stored list of domain controllers.
const KEPT: &str = "/var/lib/motion-ad/controllers.json";
/// Number of the scripted server's scenario that answers every bind with success.
const WELCOME: &str = "0";
/// Maximum time until AD's list is read again: while DNS names a stranger, and otherwise.
const SOON: Duration = Duration::from_secs(40);
const LATER: Duration = Duration::from_secs(90);
/// DN of its server object in AD. The object below it, the agent, makes it a domain controller.
const SERVER: &str = "CN=FAKE,CN=Servers,CN=Default-First-Site-Name,CN=Sites,CN=Configuration,DC=acme,DC=com";

pub fn short(lab: &Lab, report: &mut Report) -> Check {
    with_stranger(lab, |server| {
        stranger(lab, report, server);
        Ok(())
    })
}

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    with_stranger(lab, |server| {
        stranger(lab, report, server);
        report.check("AD lists it: it is used without a restart", || {
            let object = format!("dn: {SERVER}\nobjectClass: server\ndNSHostName: {FAKE}\n");
            let agent = format!("dn: CN=NTDS Settings,{SERVER}\nobjectClass: nTDSDSA\noptions: 1\n");
            database(lab, &format!("printf '{object}\n{agent}' | ldbadd --relax -H $db"))?;
            wait(SOON, || equal("dc", login(lab, "not the password of anybody")?.1.as_str(), FAKE))
        });
        report.check("AD lists it no longer: it is not used any more", || {
            database(lab, &format!("ldbdel -r --relax -H $db '{SERVER}'"))?;
            wait(LATER, || equal("dc", login(lab, "not the password of anybody")?.1.as_str(), REAL))?;
            lab.run(&["cast", "reset", "john"]).ok().map(drop)
        });
        Ok(())
    })
}

/// Runs `work` while the scripted server runs and DNS names it first.
fn with_stranger(lab: &Lab, work: impl FnOnce(&Running) -> Check) -> Check {
    let files = lab.run(&["fake", "up"]).ok()?;
    let files: Vec<_> = files.split_whitespace().collect();
    lab.run(&["ca", "publish"]).ok()?;
    let server = Running::start(lab, WELCOME, &files)?;
    let done = records(lab, "add").and_then(|()| {
        let login = format!("[login]\nmethod = \"{}\"\n", lab.method().name());
        lab.write("/etc/motion-ad/config.toml", &login)?;
        fresh(lab)?;
        work(&server)
    });
    records(lab, "remove")?;
    lab.configure("")?;
    drop(server);
    lab.run(&["ca", "unpublish"]).ok()?;
    lab.run(&["fake", "down"]).ok()?;
    done.and_then(|()| ready(lab))
}

/// Prepares a broker that knows no domain controllers.
fn fresh(lab: &Lab) -> Check {
    lab.host_sh(&format!("systemctl stop motion-ad.service; rm -f {KEPT}")).ok().map(drop)
}

fn records(lab: &Lab, verb: &str) -> Check {
    for service in ["_ldap._tcp.dc._msdcs", "_ldap._tcp.Default-First-Site-Name._sites.dc._msdcs"] {
        lab.run(&["dns", "srv", verb, service, FAKE, "389", "0", "65535"]).ok()?;
    }
    Ok(())
}

fn database(lab: &Lab, command: &str) -> Check {
    let script = format!("db=/var/lib/samba/private/sam.ldb; {command}");
    lab.dc(&["sh", "-c", &script]).ok().map(drop)
}

/// Logs John in with `password`. Returns PAM's code and the domain controller that decided.
fn login(lab: &Lab, password: &str) -> Result<(String, String), String> {
    let position = lab.log_position()?;
    let code = authenticate(lab, person("john").sam, password).code;
    let line = lab.wait_for_log(&position, &["event=login", "user=john.doe"])?;
    Ok((code, fields(&line)?.remove("dc").unwrap_or_default()))
}

fn stranger(lab: &Lab, report: &mut Report, server: &Running) {
    let bound = || server.count(|received| matches!(received, Received::Bind { .. }));
    report.check("DNS names a host that AD does not list: no password goes there", || {
        let position = lab.log_position()?;
        for _ in 0..3 {
            let seen = login(lab, "not the password of anybody")?;
            equal("PAM and dc", seen, ("PAM_AUTH_ERR".to_owned(), REAL.to_owned()))?;
            lab.run(&["cast", "reset", "john"]).ok()?;
            equal("binds at the stranger", bound(), 0)?;
        }
        let ignored = ["event=dc", &format!("host={FAKE}"), "state=ignored", "AD does not list it"];
        lab.wait_for_log(&position, &ignored)?;
        john(lab)?;
        let lines = lab.log_since(&position)?;
        equal("lines", lines.iter().filter(|line| line.contains("state=ignored")).count(), 1)
    });
    report.check("status and doctor name it", || {
        let status = lab.host("root", &["motion-ad", "status"], "").ok()?;
        contains("status", &status, "AD does not list it as a domain controller")?;
        contains("status", &status, "all is well")?;
        let doctor = lab.host("root", &["motion-ad", "doctor"], "").stdout;
        contains("doctor", &doctor, &format!("{FAKE}: DNS names it, AD does not list it"))
    });
    report.check("the list is kept: a broker that starts again needs not read it first", || {
        contains("the list", &lab.host_sh(&format!("cat {KEPT}")).ok()?, REAL)?;
        equal("mode", lab.host_sh(&format!("stat -c %a {KEPT}")).ok()?.trim(), "600")?;
        lab.host_sh("systemctl restart motion-ad.service").ok()?;
        john(lab)?;
        equal("binds at the stranger", bound(), 0)
    });
}
