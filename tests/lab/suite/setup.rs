//! `motion-ad setup` on the host, from the `.env` file that XCALLY's documentation has the administrator
//! write.

use std::fs;

use crate::cast::person;
use crate::lab::{Lab, Ran, wait};
use crate::one_account::PEOPLE;
use crate::pam::authenticate;
use crate::ready;
use crate::report::{Check, Report, contains, equal};

const ENV: &str = "/var/opt/motion2/.env";
const CONFIG: &str = "/etc/motion-ad/config.toml";
/// Another file that could use the bridge.
const OTHER: &str = "/var/opt/motion2/other.env";
/// Folder of the copies of the `.env`.
const COPIES: &str = "/etc/motion-ad/backup";
/// State of a host that never used the bridge.
const BRIDGE_OFF: &str = "systemctl stop taken.service; systemctl unmask --quiet motion-ad-ldap.socket; \
    systemctl disable --quiet --now motion-ad-ldap.socket motion-ad-ldap.service; \
    rm -rf /etc/motion-ad/backup /etc/motion-ad/ldap-admin /var/opt/motion2/other.env";
/// Takes the port of the bridge.
const TAKE_PORT: &str = "systemd-run --quiet --unit=taken systemd-socket-activate --listen=127.0.0.1:3890 \
    /bin/cat && sleep 1";
const BASE_DN: &str = "XC_ACTIVEDIRECTORY_BASE_DN='dc=acme,dc=com'";

pub fn chapter(lab: &Lab, report: &mut Report) -> Result<(), String> {
    let env = fs::read_to_string(lab.path(ENV)).map_err(|e| format!("{ENV}: {e}"))?;
    let done = checks(lab, report, &env).and_then(|()| bridge(lab, report, &env));
    lab.write(ENV, &env)?;
    lab.host_sh(BRIDGE_OFF).ok()?;
    lab.host_sh(&format!("chmod 600 {ENV}; rm -f {CONFIG}.bak")).ok()?;
    lab.configure("")?;
    ready::ready(lab)?;
    done
}

fn checks(lab: &Lab, report: &mut Report, env: &str) -> Result<(), String> {
    report.check("from XCALLY's own .env nothing has to be set, and each property hears why", || {
        let ran = setup(lab, "root", &["--apply"])?;
        equal("exit code", ran.code, 0)?;
        for text in [
            "STRATEGY, line 1: nothing to set",
            "ADMIN, line 2: no longer needed",
            "PASSWORD, line 3: remove it\n    take the line out and change the password of \
             cn=Administrator,cn=Users,dc=acme,dc=com in AD",
            "BASE_DN, line 4: nothing to set",
            "DNS names the domain controllers of acme.com (ad.acme.com); if one fails, the broker uses \
             another. With ldap:// passwords crossed the network in the clear",
            "acme.com is the domain that this host is joined to",
            "there is nothing to change\n",
        ] {
            contains("standard output", &ran.stdout, text)?;
        }
        Ok(())
    });
    report.check("john.doe logs in with that", || ready::john(lab).map(drop));

    lab.write(ENV, &env.replace(BASE_DN, "XC_ACTIVEDIRECTORY_BASE_DN='ou=People,dc=acme,dc=com' # staff"))?;
    report.check("a narrower base is shown as a diff, and nothing is written", || {
        let before = read(lab)?;
        let ran = setup(lab, "root", &[])?;
        equal("exit code", ran.code, 1)?;
        contains("standard output", &ran.stdout, "\n+base_dn = \"ou=People,dc=acme,dc=com\"\n")?;
        equal("config.toml", read(lab)?, before)
    });
    report.check("who may not read the join is told so, and cannot write", || {
        let ran = setup(lab, "motion", &[])?;
        contains("standard output", &ran.stdout, "/etc/sssd/sssd.conf: only root may read it")?;
        let ran = setup(lab, "motion", &["--apply"])?;
        equal("exit code", ran.code, 2)?;
        contains("standard error", &ran.stderr, "config.toml cannot be written: Permission denied")?;
        let ran = setup(lab, "nobody", &[])?;
        contains("standard error", &ran.stderr, ".env: cannot be read: Permission denied")?;
        contains("standard error", &ran.stderr, "use `sudo`")
    });
    report.check("on a terminal --apply asks first, and takes no for an answer", || {
        let before = read(lab)?;
        let command = ["script", "--quiet", "--return", "--command", "motion-ad setup --apply", "/dev/null"];
        let ran = lab.host("root", &command, "n\n");
        equal("exit code", ran.code, 1)?;
        contains("the terminal", &ran.stdout, "Write /etc/motion-ad/config.toml? [y/N]")?;
        contains("the terminal", &ran.stdout, "Nothing is written.")?;
        equal("config.toml", read(lab)?, before)
    });
    report.check("--apply writes it, and keeps the old file", || {
        let before = read(lab)?;
        let ran = setup(lab, "root", &["--apply"])?;
        equal("exit code", ran.code, 0)?;
        contains(
            "standard output",
            &ran.stdout,
            "is written; the old file is /etc/motion-ad/config.toml.bak",
        )?;
        equal("the old file", fs::read_to_string(lab.path(&format!("{CONFIG}.bak"))).ok(), Some(before))?;
        lab.host_sh("/usr/libexec/motion-ad/motion-ad-broker --check-config").ok().map(drop)
    });
    report.check("john.doe logs in, and nobody outside the base exists any more", || {
        ready::ready(lab)?;
        let ran = lab.host("root", &["motion-ad", "check", "Administrator"], "");
        contains("check", &ran.stdout, "unknown_user")
    });
    report.check("a second run changes nothing and says so", || {
        let before = read(lab)?;
        let ran = setup(lab, "root", &["--apply"])?;
        equal("exit code", ran.code, 0)?;
        contains("standard output", &ran.stdout, "config.toml has it as domain.base_dn")?;
        equal("config.toml", read(lab)?, before)
    });
    lab.configure("")?;
    report.check("a base with a comma in its name: it is taken, and only its users log in", || {
        base_with_a_comma(lab, env)
    });
    lab.configure("")?;
    contradictions(lab, report, env)?;
    without_srv(lab, report, env)
}

/// Moves Seth into an organizational unit whose name has to be escaped in a distinguished name (RFC 4514,
/// 2.4).
fn base_with_a_comma(lab: &Lab, env: &str) -> Check {
    const NIGHT: &str = "OU=Agenten\\, Nacht,DC=acme,DC=com";
    let (seth, john) = (person("seth"), person("john"));
    let to = |ou: &str| lab.dc(&["samba-tool", "user", "move", seth.sam, ou]).ok().map(drop);
    lab.dc(&["samba-tool", "ou", "create", NIGHT]).ok()?;
    to(NIGHT)?;
    lab.write(ENV, &env.replace(BASE_DN, "XC_ACTIVEDIRECTORY_BASE_DN='ou=Agenten\\, Nacht,dc=acme,dc=com'"))?;
    let seen = setup(lab, "root", &["--apply"]).and_then(|ran| {
        equal("exit code", ran.code, 0).map_err(|e| format!("{e}\n{}{}", ran.stdout, ran.stderr))?;
        contains("config.toml", &read(lab)?, "Agenten")?;
        wait(std::time::Duration::from_secs(10), || {
            equal("seth", authenticate(lab, seth.sam, seth.password).code.as_str(), "PAM_SUCCESS")
        })?;
        equal("john", authenticate(lab, john.sam, john.password).code.as_str(), "PAM_USER_UNKNOWN")
    });
    to(PEOPLE)?;
    lab.dc(&["samba-tool", "ou", "delete", NIGHT]).ok()?;
    lab.write(ENV, env)?;
    seen
}

fn contradictions(lab: &Lab, report: &mut Report, env: &str) -> Result<(), String> {
    let cases = [
        (BASE_DN, "XC_ACTIVEDIRECTORY_BASE_DN='dc=other,dc=com'", "dc=other,dc=com is not inside acme.com"),
        (
            "DOMAIN='acme.com'",
            "DOMAIN='brand.example'",
            "is not the domain that this host is joined to, acme.com",
        ),
        ("ldap://ad.acme.com", "ldap://ad.other.com", "ad.other.com is no domain controller of acme.com"),
        ("inetOrgPerson", "posixAccount", "posixAccount is not the strategy of XCALLY's page"),
    ];
    for (from, to, text) in cases {
        lab.write(ENV, &env.replace(from, to))?;
        report.check(&format!("{to}: explained, not taken"), || {
            let before = read(lab)?;
            let ran = setup(lab, "root", &["--apply"])?;
            equal("exit code", ran.code, 1)?;
            contains("standard output", &ran.stdout, "yours to decide\n")?;
            contains("standard output", &ran.stdout, text)?;
            equal("config.toml", read(lab)?, before)
        });
    }
    lab.write(ENV, env)?;
    lab.host_sh(&format!("chmod 644 {ENV}")).ok()?;
    report.check("an .env that everybody may read is said", || {
        let ran = setup(lab, "root", &[])?;
        contains("standard output", &ran.stdout, "every user on this host may read it (mode 0644): chmod 600")
    });
    Ok(())
}

/// Tests a DNS that resolves the server in `.env`, but names no domain controllers.
fn without_srv(lab: &Lab, report: &mut Report, env: &str) -> Result<(), String> {
    lab.write(ENV, env)?;
    // A plain SRV record would be sufficient, too, so it is removed as well.
    let srv = |what: &str| {
        ["_ldap._tcp.dc._msdcs", "_ldap._tcp"].iter().try_for_each(|name| {
            lab.run(&["dns", "srv", what, name, "ad.acme.com", "389", "0", "100"]).ok().map(drop)
        })
    };
    srv("remove")?;
    report.check("where DNS names no domain controllers, the one of the .env is taken", || {
        let ran = wait(std::time::Duration::from_secs(10), || {
            let ran = setup(lab, "root", &["--json"])?;
            equal("exit code", ran.code, 1).map(|()| ran)
        })?;
        contains("standard output", &ran.stdout, "+servers = [\\\"ad.acme.com\\\"]")
    });
    srv("add")
}

/// `setup --bridge` and `--no-bridge`: the `.env` names the bridge only while it answers, and its original
/// values are never lost.
fn bridge(lab: &Lab, report: &mut Report, env: &str) -> Result<(), String> {
    lab.write(ENV, env)?;
    lab.host_sh(&format!("chmod 600 {ENV}; {BRIDGE_OFF}")).ok()?;
    for (name, fault, undo) in [
        ("masked", "systemctl mask --quiet motion-ad-ldap.socket", "systemctl unmask motion-ad-ldap.socket"),
        ("on a port that is taken", TAKE_PORT, "systemctl stop taken.service"),
    ] {
        report.check(
            &format!("--bridge with a socket {name}: .env and the bridge stay as they were"),
            || {
                lab.host_sh(fault).ok()?;
                let ran = setup(lab, "root", &["--bridge", "--apply", "--yes"])?;
                lab.host_sh(undo).ok()?;
                equal("exit code", ran.code, 2)?;
                contains("standard error", &ran.stderr, "/var/opt/motion2/.env is unchanged")?;
                equal(".env", file(lab, ENV)?.as_str(), env)?;
                let state = "systemctl is-enabled motion-ad-ldap.socket; ls /etc/motion-ad/ldap-admin";
                equal("the bridge", lab.host_sh(state).stdout.as_str(), "disabled\n")
            },
        );
    }
    report.check("an .env that was edited behind the bridge does not replace the original", || {
        applied(lab, "--bridge", ENV)?;
        equal("exit code", setup(lab, "root", &["--bridge"])?.code, 0)?;
        lab.host_sh(&format!("sed -i 's/127.0.0.1:3890/127.0.0.1:389/' {ENV}")).ok()?;
        applied(lab, "--bridge", ENV)?;
        applied(lab, "--no-bridge", ENV)?;
        equal(".env", file(lab, ENV)?.as_str(), env)
    });
    report.check("a bridge that is off is said, and turned on", || {
        applied(lab, "--bridge", ENV)?;
        lab.host_sh("systemctl disable --now motion-ad-ldap.socket motion-ad-ldap.service").ok()?;
        let ran = setup(lab, "root", &["--bridge"])?;
        equal("exit code", ran.code, 1)?;
        contains("standard output", &ran.stdout, "motion-ad-ldap.socket is not enabled and active")?;
        applied(lab, "--bridge", ENV)?;
        lab.host_sh("systemctl is-active motion-ad-ldap.socket").ok().map(drop)
    });
    report.check("a second .env gets neither the bridge nor the first one's values", || {
        let other = env.replace("ldap://ad.acme.com", "ldap://ad.acme.com:389");
        lab.host_sh(&format!("cp -p {ENV} {OTHER}")).ok()?;
        lab.write(OTHER, &other)?;
        for way in ["--bridge", "--no-bridge"] {
            let ran = setup(lab, "root", &[way, "--env", OTHER, "--apply", "--yes"])?;
            equal("exit code", ran.code, 2)?;
            contains("standard error", &ran.stderr, &format!("is the copy of {ENV}"))?;
            equal(OTHER, file(lab, OTHER)?.as_str(), other.as_str())?;
        }
        Ok(())
    });
    report.check("a copy that an earlier version made is restored, and nothing is left", || {
        lab.host_sh(&format!("sed -i 1d {COPIES}/xcally.env")).ok()?;
        equal("the copy", file(lab, &format!("{COPIES}/xcally.env"))?.as_str(), env)?;
        applied(lab, "--no-bridge", ENV)?;
        equal(".env", file(lab, ENV)?.as_str(), env)?;
        equal("owner and mode", lab.host_sh(&format!("stat -c '%U %a' {ENV}")).ok()?.trim(), "motion 600")?;
        let left =
            "cd /etc/motion-ad && ls ldap-admin backup/xcally.env; systemctl is-active motion-ad-ldap.socket";
        equal("left", lab.host_sh(left).stdout.as_str(), "inactive\n")
    });
    Ok(())
}

/// Applies a way of setup to the `.env`.
fn applied(lab: &Lab, way: &str, env: &str) -> Check {
    let ran = setup(lab, "root", &[way, "--env", env, "--apply", "--yes"])?;
    equal(way, ran.code, 0).map_err(|e| format!("{e}\n{}{}", ran.stdout, ran.stderr))
}

fn file(lab: &Lab, path: &str) -> Result<String, String> {
    fs::read_to_string(lab.path(path)).map_err(|e| format!("{path}: {e}"))
}

/// Runs `motion-ad setup`, and checks that its output does not contain the password.
fn setup(lab: &Lab, user: &str, arguments: &[&str]) -> Result<Ran, String> {
    let mut command = vec!["motion-ad", "setup"];
    command.extend(arguments);
    let ran = lab.host(user, &command, "");
    match format!("{ran:?}").contains(person("administrator").password) {
        true => Err(format!("the password is in {ran:?}")),
        false => Ok(ran),
    }
}

fn read(lab: &Lab) -> Result<String, String> {
    file(lab, CONFIG)
}
