//! The LDAP bridge on a joined host, used by OpenLDAP's clients as the application's user. Checks accepted
//! binds, the answers to rejected ones, AD's counters, and clients that are not served at all.

use std::time::{Duration, Instant};

use crate::cast::{everybody, person};
use crate::lab::{Lab, Ran, wait};
use crate::ready::{john, ready};
use crate::report::{Check, Report, contains, equal};
use crate::row::Counts;

pub const URL: &str = "ldap://127.0.0.1:3890";
pub const ADMIN: &str = "motion-ad";
pub const SECRET: &str = "a-secret-of-this-host-alone-0123";
pub const WRONG: &str = "not the password of anybody";
const PROGRAM: &str = "/usr/libexec/motion-ad/motion-ad-ldap";
/// Address of a bridge without the rules of its unit.
const FREE: &str = "127.0.0.1:3892";
/// Number of idle connections, more than the bridge allows.
const IDLE: usize = 260;
/// Maximum resident memory of the process after all tests, in KiB.
const MEMORY: u32 = 12 * 1024;

pub type Bind = (&'static str, &'static str, Option<&'static str>, i32, &'static str, u32);

/// Binds: the user, the name, the password's owner, LDAP's code, AD's code, and the number added to the
/// counter.
#[rustfmt::skip]
pub const CAST: &[Bind] = &[
    // who        as                         by           code  data   counted
    ("john",      "john.doe@acme.com",       None,           0, "",    0),
    ("john",      "ACME\\john.doe",          None,           0, "",    0),
    ("john",      "john.doe",                None,           0, "",    0),
    ("wendy",     "wendy.wrong",             Some(WRONG),   49, "52e", 1),
    ("wendy",     "wendy.wrong",             Some(""),      53, "",    0),
    ("dora",      "dora.disabled",           None,          49, "533", 0),
    ("dora",      "dora.disabled",           Some(WRONG),   49, "52e", 1),
    ("lou",       "lou.locked",              None,          49, "775", 0),
    ("ed",        "ed.ended@acme.com",       None,          49, "701", 0),
    ("petra",     "petra.expired",           None,          49, "532", 0),
    ("max",       "max.mustchange",          None,          49, "773", 0),
    ("nora",      "nora.night",              None,          49, "530", 0),
    ("walt",      "walt.elsewhere",          None,          49, "531", 0),
    ("sven",      "sven.suffix@brand.example", None,         0, "",    0),
    ("joerg",     "jörg.müller",             None,           0, "",    0),
    ("miles",     "miles.o'brien",           None,           0, "",    0),
    ("clash-a",   "clash",                   None,          49, "525", 0),
    ("john",      "nobody.at.all",           None,          49, "525", 0),
    ("john",      "motion",                  None,          49, "525", 0),
];

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    ready(lab)?;
    report.check("it is off until it is enabled", || {
        equal(
            "is-enabled",
            lab.host_sh("systemctl is-enabled motion-ad-ldap.socket").stdout.trim(),
            "disabled",
        )?;
        equal("listeners", listeners(lab)?.as_str(), "")
    });
    let done = enable(lab).map(|()| {
        logins(lab, report);
        searches(lab, report);
        strangers(lab, report);
        bounds(lab, report);
        faults(lab, report);
    });
    disable(lab)?;
    lab.configure("")?;
    done.and_then(|()| ready(lab))
}

/// Has the bridge listen, with an admin.
pub fn enable(lab: &Lab) -> Check {
    let script = format!(
        "printf '%s:%s\\n' {ADMIN} {SECRET} >/etc/motion-ad/ldap-admin && chmod 600 \
         /etc/motion-ad/ldap-admin && systemctl enable --now motion-ad-ldap.socket"
    );
    lab.host_sh(&script).ok().map(drop)
}

/// Has it listen no more, and takes away what a chapter gave it.
pub fn disable(lab: &Lab) -> Check {
    let script = "systemctl disable --now motion-ad-ldap.socket; systemctl stop motion-ad-ldap.service; \
                  rm -f /etc/motion-ad/ldap-admin /etc/motion-ad/ldap.pem /etc/motion-ad/ldap.key";
    lab.host_sh(script).ok().map(drop)
}

fn listeners(lab: &Lab) -> Result<String, String> {
    let all = lab.host_sh("ss -ltnH 'sport = :3890'").ok()?;
    let mut local: Vec<_> = all.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
    local.sort_unstable();
    Ok(local.join(" "))
}

/// Binds and runs "who am I?", as `user` of the host.
pub fn whoami(lab: &Lab, user: &str, name: &str, password: &str, more: &[&str]) -> Ran {
    let mut command = vec!["ldapwhoami", "-x", "-D", name, "-w", password];
    if more.is_empty() {
        command.extend(["-H", URL]);
    }
    command.extend(more);
    lab.host(user, &command, "")
}

/// Logs John in through the bridge.
pub fn logs_in(lab: &Lab) -> Check {
    let john = person("john");
    whoami(lab, "motion", john.upn, john.password, &[]).ok().map(drop)
}

pub fn lines(lab: &Lab, event: &str) -> Result<Vec<String>, String> {
    let all = lab.host_sh("journalctl -q -t motion-ad-ldap -o cat").ok()?;
    let word = format!("event={event} ");
    Ok(all.lines().filter(|line| line.contains(&word)).map(str::to_owned).collect())
}

fn logins(lab: &Lab, report: &mut Report) {
    for (who, name, password, code, data, counted) in CAST {
        let person = person(who);
        let password = password.unwrap_or(person.password);
        report.check(
            &format!(
                "{name} by {}: {code} {data}",
                if password == person.password { "the password" } else { "another" }
            ),
            || {
                let (before, logged) = (lab.everybodys_counters()?, lines(lab, "bind")?.len());
                let bound = whoami(lab, "motion", name, password, &[]);
                let said = format!("{}{}", bound.stdout, bound.stderr);
                equal(&format!("exit code ({said})"), bound.code, *code)?;
                match *code {
                    0 => equal("who", bound.stdout.trim(), format!("u:{name}").as_str())?,
                    49 => {
                        contains("the text", &said, &format!("AcceptSecurityContext error, data {data}, v"))?
                    }
                    _ => {}
                }
                let after = lab.everybodys_counters()?;
                counted_for(&before, &after, person.sam, *counted)?;
                wait(Duration::from_secs(5), || equal("lines", lines(lab, "bind")?.len(), logged + 1))?;
                let line = lines(lab, "bind")?.pop().unwrap_or_default();
                contains("the line", &line, &format!("result={code}"))?;
                equal("the password is not in it", line.contains(password) && !password.is_empty(), false)
            },
        );
    }
    for who in ["wendy", "dora"] {
        let _ = lab.run(&["cast", "reset", who]);
    }
}

/// Checks that AD counted `times` wrong passwords more for this account, and none for any other account of
/// the domain.
pub fn counted_for(before: &Counts, after: &Counts, sam: &str, times: u32) -> Check {
    for one in everybody() {
        let count = |counts: &Counts| counts.get(one.sam).map_or(0, |count| count.bad_passwords);
        let added = count(after).saturating_sub(count(before));
        equal(&format!("counted for {}", one.sam), added, if one.sam == sam { times } else { 0 })?;
    }
    Ok(())
}

/// Searches as `name`. Returns the output without lines that belong to no entry.
fn search(lab: &Lab, name: &str, password: &str, more: &[&str]) -> Ran {
    let mut command =
        vec!["ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", URL, "-D", name, "-w", password];
    command.extend(["-b", "dc=acme,dc=com"]);
    command.extend(more);
    lab.host("motion", &command, "")
}

fn searches(lab: &Lab, report: &mut Report) {
    let john = person("john");
    let filter = "(&(objectCategory=User)(|(sAMAccountName=john.doe)(userPrincipalName=john.doe)))";
    let dn = "CN=john.doe,OU=People,DC=acme,DC=com";
    report.check("the admin's secret finds a user, whose distinguished name logs in", || {
        let found = search(lab, ADMIN, SECRET, &["-E", "pr=100/noprompt", filter, "sAMAccountName"]).ok()?;
        contains("found", &found, &format!("dn: {dn}\n"))?;
        contains("found", &found, "sAMAccountName: john.doe\n")?;
        for spelling in [dn, "cn=john.doe, ou=people, dc=ACME, dc=com"] {
            contains("who", &whoami(lab, "motion", spelling, john.password, &[]).ok()?, "john.doe")?;
        }
        let refused = whoami(lab, "motion", dn, WRONG, &[]);
        equal("a wrong password", refused.code, 49)?;
        contains("a wrong password", &refused.stderr, "data 52e,")?;
        let unknown = whoami(lab, "motion", "CN=nobody,OU=People,DC=acme,DC=com", john.password, &[]);
        contains("an unknown name", &unknown.stderr, "data 525,")?;
        lab.run(&["cast", "reset", "john"]).ok().map(drop)
    });
    report.check("a user searches as himself", || {
        let found = search(lab, john.upn, john.password, &[filter, "mail"]).ok()?;
        contains("found", &found, &format!("dn: {dn}\n"))
    });
    report.check("the secret is worth nothing elsewhere, and another one nothing here", || {
        let answer = crate::pam::authenticate(lab, ADMIN, SECRET);
        equal("PAM", answer.code.as_str(), "PAM_USER_UNKNOWN")?;
        equal("another one", whoami(lab, "motion", ADMIN, "a-secret-of-this-host-alone-0124", &[]).code, 49)
    });
    report.check("without a bind there is nothing but the root", || {
        let anonymous =
            lab.host("motion", &["ldapsearch", "-x", "-LLL", "-H", URL, "-b", "", "-s", "base"], "");
        equal("an anonymous bind", anonymous.code, 53)?;
        let root = search(lab, ADMIN, SECRET, &["-b", "", "-s", "base"]).ok()?;
        contains("the root", &root, "defaultNamingContext: dc=acme,dc=com\n")
    });
    report.check("nothing is changed by it", || {
        let change = format!("dn: {dn}\nchangetype: modify\nreplace: description\ndescription: x\n");
        let command = ["ldapmodify", "-x", "-H", URL, "-D", ADMIN, "-w", SECRET];
        equal("modify", lab.host("motion", &command, &change).code, 53)?;
        let command = ["ldapcompare", "-x", "-H", URL, "-D", ADMIN, "-w", SECRET, dn, "cn:x"];
        equal("compare", lab.host("motion", &command, "").code, 53)
    });
}

fn strangers(lab: &Lab, report: &mut Report) {
    report.check("another user of the host is not served, and the log says so once", || {
        let john = person("john");
        let (before, logged) = (lines(lab, "refused")?.len(), lines(lab, "bind")?.len());
        for _ in 0..3 {
            let answer = whoami(lab, "nobody", john.upn, john.password, &[]);
            // The bridge closes the connection without an answer, during or after the connect.
            contains("answer", &answer.stderr, "Can't contact LDAP server")?;
        }
        logs_in(lab)?;
        wait(Duration::from_secs(5), || equal("lines", lines(lab, "refused")?.len(), before + 1))?;
        contains("the line", &lines(lab, "refused")?.join("\n"), "peer=uid:65534")?;
        wait(Duration::from_secs(5), || equal("binds", lines(lab, "bind")?.len(), logged + 1))
    });
    report.check("root is served", || {
        let john = person("john");
        whoami(lab, "root", john.upn, john.password, &[]).ok().map(drop)
    });
    report.check("another host gets no connection", || {
        let host = lab.run(&["addr", lab.host_name()]).ok()?;
        let connect = format!("exec 3<>/dev/tcp/{}/3890", host.trim());
        let ran = lab.dc(&["timeout", "5", "bash", "-c", &connect]);
        contains("answer", &ran.stderr, "Connection refused")
    });
    report.check("it listens on loopback, and refuses any other address", || {
        equal("listeners", listeners(lab)?.as_str(), "127.0.0.1:3890 [::1]:3890")?;
        let elsewhere = lab.host_sh(&format!("{PROGRAM} --listen 0.0.0.0:3891"));
        equal("exit code", elsewhere.code, 1)?;
        contains("answer", &elsewhere.stderr, "no loopback address")?;
        let john = person("john");
        whoami(lab, "motion", john.upn, john.password, &["-H", "ldap://[::1]:3890"]).ok().map(drop)
    });
}

fn bounds(lab: &Lab, report: &mut Report) {
    report.check("more idle connections than there are places: logins go on", || {
        let script = format!(
            "ulimit -n 1000; for i in $(seq {IDLE}); do exec {{fd}}<>/dev/tcp/127.0.0.1/3890; printf \
             '\\060\\040\\002' >&$fd; done; echo open; read -r _"
        );
        let mut idle = lab.host_child("motion", &["bash", "-c", &script])?;
        let mut first = String::new();
        let mut output = std::io::BufReader::new(idle.stdout.take().ok_or("no output")?);
        std::io::BufRead::read_line(&mut output, &mut first).map_err(|e| e.to_string())?;
        let done = equal("open", first.trim(), "open").and_then(|()| (0..3).try_for_each(|_| logs_in(lab)));
        drop(idle.stdin.take());
        let _ = idle.wait();
        done
    });
    report.check("TLS by the host's own certificate, by StartTLS and from the first byte", || {
        lab.host_sh(
            "cd /etc/motion-ad && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
             -addext subjectAltName=DNS:localhost,DNS:$(hostname -f) -keyout ldap.key -out ldap.pem \
             2>/dev/null && chown root:motion-ad-ldap ldap.key && chmod 640 ldap.key",
        )
        .ok()?;
        lab.configure(
            "[bridge]\ncertificate = \"/etc/motion-ad/ldap.pem\"\nkey = \"/etc/motion-ad/ldap.key\"\n",
        )?;
        let john = person("john");
        let by = |more: &[&str]| {
            let mut command = vec!["env", "LDAPTLS_CACERT=/etc/motion-ad/ldap.pem", "ldapwhoami", "-x"];
            command.extend(["-D", john.upn, "-w", john.password]);
            command.extend(more);
            lab.host("motion", &command, "").ok().map(drop)
        };
        // The bridge detects the change by itself.
        wait(Duration::from_secs(20), || by(&["-ZZ", "-H", "ldap://localhost:3890"]))?;
        by(&["-H", "ldaps://localhost:3890"])
    });
    report.check("it keeps the PAM modules loaded, and restarts when a package replaces one", || {
        let maps = lab.host_sh("cat /proc/$(systemctl show -P MainPID motion-ad-ldap.service)/maps").ok()?;
        let file = |name: &str| {
            let line = maps.lines().find(|line| line.ends_with(name));
            line.and_then(|line| line.split_whitespace().last())
                .ok_or(format!("{name} is not loaded:\n{maps}"))
        };
        file("/pam_motion_ad.so")?;
        // A module of the default service, which libpam loads as well.
        let other = file("/pam_unix.so")?;
        // Another file with the same contents would change nothing; a byte after the end of the library harms
        // nobody.
        lab.host_sh(&format!("cp -p {other} {other}.new && echo >>{other}.new && mv {other}.new {other}"))
            .ok()?;
        wait(Duration::from_secs(20), || {
            contains("restart", &lines(lab, "restart")?.join("\n"), &format!("changed={other}"))
        })?;
        logs_in(lab)
    });
    report.check("its memory stays within 12 MiB, it holds no capability", || {
        let status =
            lab.host_sh("cat /proc/$(systemctl show -P MainPID motion-ad-ldap.service)/status").ok()?;
        let value = |key: &str| {
            status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).unwrap_or_default()
        };
        let resident: u32 =
            value("VmRSS:").trim_end_matches(" kB").parse().map_err(|e| format!("{status}: {e}"))?;
        println!("         {resident} KiB resident");
        equal("capabilities", value("CapEff:"), "0000000000000000")?;
        if resident <= MEMORY { Ok(()) } else { Err(format!("{resident} KiB are resident")) }
    });
}

fn faults(lab: &Lab, report: &mut Report) {
    let john_is = |code: i32| {
        let john = person("john");
        let answer = whoami(lab, "motion", john.upn, john.password, &[]);
        equal(&format!("exit code ({})", answer.stderr), answer.code, code)
    };
    report.check("a broker that is stopped is 52, never 49, and one that is back is noticed", || {
        lab.host_sh("systemctl stop motion-ad.socket motion-ad.service").ok()?;
        let stopped = john_is(52);
        lab.host_sh("systemctl start motion-ad.socket motion-ad.service").ok()?;
        stopped?;
        wait(Duration::from_secs(20), || john_is(0))
    });
    report.check("a bind waits for no DNS server, not even outside the rules of the unit", || {
        let john = person("john");
        lab.host_sh(&format!("systemd-run --quiet --collect --unit=free-bridge {PROGRAM} --listen {FREE}"))
            .ok()?;
        lab.run(&["net", "swallow", "dc", "53/udp"]).ok()?;
        let url = format!("ldap://{FREE}");
        let bind = || whoami(lab, "motion", john.upn, john.password, &["-H", &url]).ok();
        // The first attempts may come before it listens.
        let done = wait(Duration::from_secs(10), bind).and_then(|_| {
            let begun = Instant::now();
            bind().map(|_| begun.elapsed())
        });
        lab.run(&["net", "heal", "dc"]).ok()?;
        let begun = Instant::now();
        let usual = bind().map(|_| begun.elapsed());
        lab.host_sh("systemctl stop free-bridge.service").ok()?;
        let (took, usual) = (done?, usual?);
        // A query to a silent DNS server takes five seconds.
        equal("the bind waited", took > usual + Duration::from_secs(5), false)
            .map_err(|e| format!("{e}: {took:?}, without a fault {usual:?}"))
    });
    report.check("a domain controller that is cut off is 52", || {
        lab.run(&["net", "cut", "dc"]).ok()?;
        let cut = john_is(52);
        lab.run(&["net", "heal", "dc"]).ok()?;
        cut?;
        wait(Duration::from_secs(30), || john_is(0))
    });
    report.check("an admin's file that cannot be used keeps the admin out, and nobody else", || {
        let admin_is = |code| equal("the admin", whoami(lab, "motion", ADMIN, SECRET, &[]).code, code);
        let before = lines(lab, "config")?.len();
        let file = "/etc/motion-ad/ldap-admin";
        lab.host_sh(&format!("cp -p {file} {file}.right && echo nonsense >{file}")).ok()?;
        let noticed = wait(Duration::from_secs(20), || match lines(lab, "config")?.len() > before {
            true => Ok(()),
            false => Err("the bridge does not notice the file".to_owned()),
        });
        let (user, admin) = (logs_in(lab), admin_is(49));
        lab.host_sh(&format!("mv {file}.right {file}")).ok()?;
        noticed.and(user).and(admin)?;
        wait(Duration::from_secs(20), || admin_is(0))
    });
    report.check("a bridge that restarts loses no login that waits", || {
        lab.host_sh("systemctl restart motion-ad-ldap.service --no-block").ok()?;
        logs_in(lab)?;
        john(lab).map(drop)
    });
}
