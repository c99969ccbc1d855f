//! A domain controller hardened as far as Samba allows: the statements of docs/windows-hardening.md that are
//! marked as seen and that no other chapter covers.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::cast::person;
use crate::lab::{Lab, Release, wait};
use crate::pam::authenticate;
use crate::ready::{ready, restart};
use crate::report::{Check, Report, equal};
use crate::row::Method;

const NTLM_OFF: &str = "NTLM is off";
/// Settings of Samba, each with its meaning on Windows.
const SETTINGS: &[(&str, &str)] = &[
    (NTLM_OFF, "ntlm auth = disabled"),
    ("RC4 is off", "kdc supported enctypes = aes128-cts aes256-cts"),
    ("whose keys are not told gets AES", "kdc default domain supported enctypes = aes128-cts aes256-cts"),
    ("signing is required", "ldap server require strong auth = yes"),
];
/// Ports of RPC and SMB.
const WINDOWS_PORTS: [&str; 3] = ["135", "139", "445"];
/// Maximum time until the broker detects that a domain controller works again.
const BACK: Duration = Duration::from_secs(30);

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    let file = PathBuf::from(lab.run(&["path", "dc"]).ok()?.trim()).join("etc/samba/smb.conf");
    let before = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let samba = |text: &str| {
        fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        lab.run(&["dc", "restart"]).ok().map(drop)
    };
    for (name, setting) in SETTINGS {
        samba(&before.replacen("[global]\n", &format!("[global]\n{setting}\n"), 1))?;
        match (lab.dc_release(), *name) {
            (Release::Trixie, NTLM_OFF) => {
                report.note("Samba 4.22 takes no binds without NTLM, as the chapter restrictions shows");
                by(lab, report, name, Method::Kerberos);
            }
            _ => by_both(lab, report, name),
        }
    }
    samba(&before)?;
    for port in WINDOWS_PORTS {
        lab.run(&["net", "refuse", "dc", port]).ok()?;
    }
    by_both(lab, report, "no SMB and no RPC");
    lab.run(&["net", "heal", "dc"]).ok()?;
    lab.set_method(Method::Ldap);
    lab.configure("")?;
    report.check("LDAPS alone is not enough: without port 389 nobody comes in", || {
        ready(lab)?;
        lab.run(&["net", "refuse", "dc", "389"]).ok()?;
        restart(lab)?;
        let answer = authenticate(lab, person("john").sam, person("john").password);
        lab.run(&["net", "heal", "dc"]).ok()?;
        equal("john", answer.code.as_str(), "PAM_AUTHINFO_UNAVAIL")
    });
    wait(BACK, || ready(lab))
}

fn by_both(lab: &Lab, report: &mut Report, name: &str) {
    for method in [Method::Ldap, Method::Kerberos] {
        by(lab, report, name, method);
    }
}

fn by(lab: &Lab, report: &mut Report, name: &str, method: Method) {
    lab.set_method(method);
    report.check(&format!("{name}: john.doe comes in by {}", method.name()), || {
        lab.configure("")?;
        restart(lab)?;
        wait(BACK, || ready(lab))
    });
}
