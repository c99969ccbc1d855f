//! The package: its files, users and units at each step, from before the join to after the purge.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::cast::person;
use crate::lab::{Lab, repository};
use crate::pam::authenticate;
use crate::ready::{john, ready, while_john_logs_in};
use crate::report::{Check, Report, contains, equal};

const UNITS: [&str; 3] = ["motion-ad.socket", "motion-ad-metrics.socket", "motion-ad.service"];
/// Files that an administrator edits.
const EDITED: [&str; 3] = ["/etc/motion-ad/config.toml", "/etc/motion-ad/names.map", "/etc/pam.d/motion"];

pub fn before_join(lab: &Lab, report: &mut Report) -> Check {
    if lab.path("/etc/krb5.keytab").exists() {
        return Err("this chapter needs a lab that is not joined yet".to_owned());
    }
    report.check("installing says what is missing", || {
        lab.run(&["install"]).ok()?;
        let apt = lab.commands_log()?;
        contains("apt", &apt, "this host is not joined to a domain yet")?;
        contains("apt", &apt, "realm join")
    });
    report.check("the units are active and enabled", || units(lab, "active", "enabled"));
    report.check("a login is denied, and the log says why", || {
        let position = lab.log_position()?;
        let person = person("john");
        let answer = authenticate(lab, person.sam, person.password);
        equal("code", answer.code.as_str(), "PAM_AUTHINFO_UNAVAIL")?;
        let words =
            ["event=login", "outcome=unavailable", "this host is not joined to a domain", "realm join"];
        lab.wait_for_log(&position, &words).map(drop)
    });
    report.check("after the join it works without another step", || {
        let position = lab.log_position()?;
        // Here the CA is in the system's store, as it may be on a real host.
        let ca = lab.run(&["ca"]).ok()?;
        lab.host_sh("mkdir -p /etc/ssl/certs").ok()?;
        let trusted = lab.path("/etc/ssl/certs/ca-certificates.crt");
        fs::copy(ca.trim(), &trusted).map_err(|e| format!("{}: {e}", trusted.display()))?;
        lab.run(&["join"]).ok()?;
        let seen = john(lab);
        fs::remove_file(&trusted).map_err(|e| e.to_string())?;
        lab.wait_for_log(&position, &["event=restart", "changed="])?;
        seen.map(drop)
    });
    report.check("with the CA in config.toml", || lab.configure("").and_then(|()| john(lab).map(drop)));
    report.check("the unit is hardened: systemd-analyze says 2.0 or less", || {
        let text = lab.host_sh("systemd-analyze security --no-pager motion-ad.service | tail -n 1").ok()?;
        let exposure = text.rsplit_once("motion-ad.service: ").and_then(|(_, rest)| rest.split(' ').next());
        let exposure: f32 =
            exposure.and_then(|text| text.parse().ok()).ok_or(format!("no exposure in {text}"))?;
        println!("         {exposure}");
        if exposure <= 2.0 { Ok(()) } else { Err(text) }
    });
    report.check("the broker runs as its own user without any capability", || process(lab));
    report.check("no other process of its user may look into it", || {
        let peek = format!("cat /proc/{}/environ", lab.broker()?);
        let ran = lab.host("motion-ad", &["sh", "-c", &peek], "");
        contains("its own user", &ran.stderr, "Permission denied")
    });
    report.check("it listens on nothing but its socket", || {
        let ports = lab.host_sh("ss -Hlntup").ok()?;
        match ports.lines().find(|line| line.contains("motion-ad")) {
            Some(line) => Err(line.to_owned()),
            None => Ok(()),
        }
    });
    Ok(())
}

pub fn lifecycle(lab: &Lab, report: &mut Report) -> Check {
    ready(lab)?;
    let upgrade = |version: &str| newer(lab, version);
    report.check("killed ten times in a row it is back, and the next login works", || killed(lab));
    report.check("an upgrade while people log in: none fails", || {
        let deb = upgrade("9.9.9")?;
        for file in EDITED {
            let text = fs::read_to_string(lab.path(file)).map_err(|e| format!("{file}: {e}"))?;
            lab.write(file, &format!("{text}\n# edited\n"))?;
        }
        john(lab)?;
        let old = lab.broker()?;
        let (logins, slowest) = while_john_logs_in(lab, || install(lab, &deb))?;
        println!("         {logins} logins, the slowest {:.2} s", slowest.as_secs_f64());
        equal("version", version(lab)?.as_str(), "9.9.9")?;
        equal("the old broker runs", lab.broker()? == old, false)?;
        units(lab, "active", "enabled")?;
        for file in EDITED {
            let text = fs::read_to_string(lab.path(file)).map_err(|e| format!("{file}: {e}"))?;
            contains(file, &text, "# edited")?;
        }
        Ok(())
    });
    report.check("units that were disabled stay so over an upgrade", || {
        let all = UNITS.join(" ");
        lab.host_sh(&format!("systemctl disable --now {all}")).ok()?;
        let installed = upgrade("9.9.10").and_then(|deb| install(lab, &deb));
        let seen = units(lab, "inactive", "disabled");
        lab.host_sh(&format!("systemctl enable --now {all}")).ok()?;
        installed?;
        seen?;
        john(lab).map(drop)
    });
    report.check("removed it denies, and keeps what was edited", || {
        lab.run(&["remove"]).ok()?;
        let answer = authenticate(lab, person("john").sam, person("john").password);
        equal("a login succeeds", answer.code == "PAM_SUCCESS", false)?;
        for file in EDITED {
            let text = fs::read_to_string(lab.path(file)).map_err(|e| format!("{file}: {e}"))?;
            contains(file, &text, "# edited")?;
        }
        let units = lab.host_sh(&format!("systemctl is-active {}", UNITS.join(" "))).stdout;
        equal("units", units, "inactive\n".repeat(UNITS.len()))
    });
    report.check(
        "purged it leaves what it did not create, and the user whose files may be among that",
        || {
            lab.host_sh(
                "cd /etc/motion-ad && rm -rf *.pem backup && mkdir -m 700 backup && touch \
                     backup/xcally.env backup/motion.2026-11-30T062000Z.0 backup/mine.env \
                     config.toml.bak && echo mine >mine.pem",
            )
            .ok()?;
            lab.run(&["purge"]).ok()?;
            equal("files", lab.host_sh("ls -A /etc/motion-ad").stdout.as_str(), "backup\nmine.pem\n")?;
            let copies = lab.host_sh("ls -A /etc/motion-ad/backup").stdout;
            equal("copies", copies.as_str(), "mine.env\n")?;
            lab.host_sh("getent passwd motion-ad").ok()?;
            lab.run(&["install"]).ok()?;
            lab.host_sh("rm -r /etc/motion-ad/mine.pem /etc/motion-ad/backup").ok().map(drop)
        },
    );
    report.check("purged it leaves nothing, and no copy of a file that may hold a password", || {
        lab.host_sh(
            "cd /etc/motion-ad && mkdir -m 700 backup && echo PASSWORD=x >backup/xcally.env && \
             touch backup/config.toml.2026-11-30T062000Z.1",
        )
        .ok()?;
        lab.run(&["purge"]).ok()?;
        // The lab's own copies of the installed packages do not count.
        let left = "find / -xdev -name '*motion[-_]ad*' ! -path '/var/cache/motion-ad-lab*'; find /run /tmp \
                    -name '*motion-ad*'
            ls /etc/pam.d/motion; getent passwd motion-ad motion-ad-ldap; getent group motion-ad \
motion-ad-ldap motion-ad-metrics; systemctl list-unit-files --no-legend 'motion-ad*'";
        equal("what is left", lab.host_sh(left).stdout.as_str(), "")
    });
    report.check("installed and purged once more, the host's files and accounts are as they were", || {
        let before = traces(lab)?;
        lab.run(&["install"]).ok()?;
        equal("installing changes nothing that is seen", traces(lab)? == before, false)?;
        lab.run(&["purge"]).ok()?;
        let after = traces(lab)?;
        let of_one = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
            one.difference(other).cloned().collect::<Vec<_>>().join("\n")
        };
        equal("left behind", of_one(&after, &before).as_str(), "")?;
        equal("gone", of_one(&before, &after).as_str(), "")
    });
    report.check("installed anew it works", || {
        lab.run(&["install"]).ok()?;
        lab.configure("")?;
        john(lab).map(drop)
    });
    Ok(())
}

/// Returns every file of the host with its mode and owner, the content of configuration files, and every
/// account. Data that other programs write over time is excluded: logs, caches, the package list, and backups
/// of the account files.
fn traces(lab: &Lab) -> Result<BTreeSet<String>, String> {
    let script = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /run -o \
        -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path \
        /var/lib/sss -o -path /var/lib/systemd -o -path /root \\) -prune -o -printf '%m %u:%g %p\\n' | grep \
        -v -e '/etc/.*-$' -e '\\.pwd\\.lock$'
        find /etc -xdev -type f ! -name '*-' ! -path '/etc/krb5.keytab' -exec sha256sum {} +; cat \
/etc/passwd /etc/group; ls -A /run/systemd/generator* /etc/systemd/system/*.wants";
    Ok(lab.host_sh(script).ok()?.lines().map(str::to_owned).collect())
}

pub fn units(lab: &Lab, active: &str, enabled: &str) -> Check {
    let state = |question: &str| lab.host_sh(&format!("systemctl {question} {}", UNITS.join(" "))).stdout;
    equal("active", state("is-active"), format!("{active}\n").repeat(UNITS.len()))?;
    equal("enabled", state("is-enabled"), format!("{enabled}\n").repeat(UNITS.len()))
}

fn process(lab: &Lab) -> Check {
    let pid = lab.broker()?;
    let status = lab.host_sh(&format!("cat /proc/{pid}/status")).ok()?;
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
    };
    let id =
        |what: &str| lab.host("root", &["id", what, "motion-ad"], "").ok().map(|id| id.trim().to_owned());
    let (uid, gid) = (id("-u")?, id("-g")?);
    equal("Uid", value("Uid"), [uid.as_str(); 4].join(" "))?;
    equal("Gid", value("Gid"), [gid.as_str(); 4].join(" "))?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        equal(set, value(set).as_str(), "0000000000000000")?;
    }
    equal("NoNewPrivs", value("NoNewPrivs").as_str(), "1")?;
    equal("Seccomp (2: a filter)", value("Seccomp").as_str(), "2")
}

fn killed(lab: &Lab) -> Check {
    let mut before = lab.broker()?;
    for _ in 0..10 {
        lab.host_sh("systemctl kill -s KILL motion-ad.service").ok()?;
        john(lab)?;
        let after = lab.broker()?;
        equal("the killed broker runs", after == before, false)?;
        before = after;
    }
    units(lab, "active", "enabled")
}

fn install(lab: &Lab, deb: &std::path::Path) -> Check {
    lab.run(&["install", &deb.display().to_string()]).ok().map(drop)
}

pub fn version(lab: &Lab) -> Result<String, String> {
    lab.host("root", &["dpkg-query", "-W", "-f", "${Version}", "libpam-motion-ad"], "").ok()
}

/// Returns the package under test with its version changed to `version`.
pub fn newer(lab: &Lab, version: &str) -> Result<PathBuf, String> {
    let temporary = repository().join("target/tmp");
    fs::create_dir_all(&temporary).map_err(|e| format!("{}: {e}", temporary.display()))?;
    let folder = temporary.join(format!("libpam-motion-ad_{version}"));
    let deb = folder.with_file_name(format!("libpam-motion-ad_{version}.deb"));
    // An earlier run may have left files of another package.
    let _ = fs::remove_dir_all(&folder);
    let dpkg = |arguments: &[&str]| {
        let ran = Command::new("dpkg-deb").args(arguments).output().map_err(|e| format!("dpkg-deb: {e}"))?;
        if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).into_owned()) }
    };
    let (tree, file) = (folder.display().to_string(), deb.display().to_string());
    dpkg(&["--raw-extract", &lab.package()?.display().to_string(), &tree])?;
    let control = folder.join("DEBIAN/control");
    let text = fs::read_to_string(&control).map_err(|e| e.to_string())?;
    let lines = text.lines().map(|line| match line.starts_with("Version: ") {
        true => format!("Version: {version}\n"),
        false => format!("{line}\n"),
    });
    fs::write(&control, lines.collect::<String>()).map_err(|e| e.to_string())?;
    // Uncompressed for speed, because the package is temporary.
    dpkg(&["--root-owner-group", "-Znone", "--build", &tree, &file])?;
    fs::remove_dir_all(&folder).map_err(|e| e.to_string())?;
    Ok(deb)
}
