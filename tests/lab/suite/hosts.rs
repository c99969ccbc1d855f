//! Joined hosts as they occur in practice: containers, edited SSSD files, keytabs from before a rename,
//! unusual DNS files. On each, John can log in as before, and a wrong password is rejected.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::UdpSocket;
use std::process::Child;
use std::time::Duration;

use crate::cast::person;
use crate::lab::{Lab, wait};
use crate::one_account::{PEOPLE, ldap};
use crate::pam::{authenticate, pam};
use crate::ready::{john, john_at, ready, restart, start_after};
use crate::report::{Check, Report, contains, equal};
use crate::row::Method;

const SSSD: &str = "/etc/sssd/sssd.conf";
const KEYTAB: &str = "/etc/krb5.keytab";

/// Shell commands that change the host and restore it. The broker detects each change by itself.
const HOSTS: &[(&str, &str, &str)] = &[
    (
        "sssd.conf: the domain stands in a snippet",
        "cp -p /etc/sssd/sssd.conf /root/sssd.conf && cp -p /etc/sssd/sssd.conf \
         /etc/sssd/conf.d/10-acme.conf && printf '[sssd]\\nservices = nss, pam\\n' >/etc/sssd/sssd.conf",
        "rm /etc/sssd/conf.d/10-acme.conf && cp -p /root/sssd.conf /etc/sssd/sssd.conf",
    ),
    (
        "sssd.conf: the same key twice, the last one counts",
        "cp -p /etc/sssd/sssd.conf /root/sssd.conf && sed -i 's/^domains = .*/domains = old.example\\n&/; \
         s/^ad_domain = .*/ad_domain = old.example\\n&/' /etc/sssd/sssd.conf && \
         printf '[domain/old.example]\\nid_provider = ad\\n' >>/etc/sssd/sssd.conf",
        "cp -p /root/sssd.conf /etc/sssd/sssd.conf",
    ),
    (
        "sssd.conf: other letter cases, enabled without domains",
        "cp -p /etc/sssd/sssd.conf /root/sssd.conf && sed -i 's/^domains = .*//; s/^\\[sssd\\]/[SSSD]/; \
         s/^\\[domain.acme.com\\]/[Domain\\/ACME.COM]\\nEnabled = True/; s/^id_provider/ID_Provider/; \
         s/^ad_domain/AD_Domain/' /etc/sssd/sssd.conf",
        "cp -p /root/sssd.conf /etc/sssd/sssd.conf",
    ),
    (
        "resolv.conf with a malformed search domain",
        "cp /etc/resolv.conf /root/resolv.conf && sed -i '1i search acme..com' /etc/resolv.conf",
        "cat /root/resolv.conf >/etc/resolv.conf",
    ),
];

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    for (name, change, back) in HOSTS {
        report.check(name, || {
            lab.host_sh(change).ok()?;
            let seen = comes_and_stays_out(lab);
            lab.host_sh(back).ok()?;
            seen
        });
    }
    report.check("LXC's drop-in empties LoadCredential= of every service", || without_credentials(lab));
    report.check("credentials that no drop-in brings back: the broker says so and does not loop", || {
        withheld(lab)
    });
    for other in [("OLDNAME$", "ACME.COM"), ("XCALLY$", "OTHER.EXAMPLE")] {
        report.check(&format!("a keytab whose first account is {}@{}", other.0, other.1), || {
            second_account(lab, other)
        });
    }
    report.check("joined as VOICE01: that is the name which userWorkstations must hold", || other_name(lab));
    report.check("sssd.conf names a keytab elsewhere: the command hands it over", || keytab_elsewhere(lab));
    report
        .check("DNS has a dead address of the domain controller as well: no login waits long for it", || {
            dead_address(lab)
        });
    report
        .check("DNS never answers AAAA: the first login after a start waits for none of it", || no_aaaa(lab));
    report.check("a domain controller that /etc/hosts alone knows, while DNS is dead", || hosts_alone(lab));
    report.check("resolv.conf names a dead server: nobody is denied, and the broker is the same", || {
        other_dns(lab)
    });
    report.check(
        "a domain controller that is named by an alias or an address: the log names it as AD does",
        || by_alias(lab),
    );
    report.check(
        "joined by winbind, without sssd.conf: the log says what to write, and then John logs in",
        || by_winbind(lab),
    );
    report.check(
        "an application of a user without access: its user, program and service, and what to set",
        || stranger(lab),
    );
    ready(lab)?;
    lab.configure("")
}

/// Argument that makes this program a DNS server that passes on every query but those for AAAA.
pub const NO_AAAA: &str = "dns-without-aaaa";
/// Address of the node `fake`, on which it runs.
const FAKE: &str = "10.73.0.40";
/// The DNS server that it asks.
const DNS: &str = "10.73.0.10:53";
/// Type of an AAAA record (RFC 3596, 2.1).
const AAAA: u16 = 28;
/// Length in bytes of a message's header (RFC 1035, 4.1.1).
const HEADER: usize = 12;

/// Runs as the DNS server, until its standard input ends.
///
/// # Errors
/// If it cannot listen.
pub fn dns_without_aaaa() -> Result<(), String> {
    let text = |e: io::Error| e.to_string();
    let socket = UdpSocket::bind("0.0.0.0:53").map_err(text)?;
    println!("listening");
    io::stdout().flush().map_err(text)?;
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
    let mut datagram = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut datagram).map_err(text)?;
        let query = datagram[..length].to_vec();
        if asked_for(&query) == Some(AAAA) {
            continue;
        }
        let upstream = UdpSocket::bind("0.0.0.0:0").map_err(text)?;
        upstream.set_read_timeout(Some(Duration::from_secs(2))).map_err(text)?;
        upstream.connect(DNS).and_then(|()| upstream.send(&query)).map_err(text)?;
        if let Ok(length) = upstream.recv(&mut datagram) {
            socket.send_to(&datagram[..length], from).map_err(text)?;
        }
    }
}

/// Returns the type that a query asks for.
fn asked_for(query: &[u8]) -> Option<u16> {
    let mut at = HEADER;
    loop {
        match *query.get(at)? {
            0 => break,
            label => at += 1 + usize::from(label),
        }
    }
    Some(u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]))
}

/// The DNS server on the node `fake`. Dropping it ends it.
struct Dns<'a>(&'a Lab, Child);

impl<'a> Dns<'a> {
    fn start(lab: &'a Lab) -> Result<Self, String> {
        lab.run(&["fake", "up"]).ok()?;
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let program = program.to_str().ok_or("the path of this program is no text")?;
        let mut dns = Dns(lab, lab.child(&["fake", "run", "--", program, NO_AAAA])?);
        let mut first = String::new();
        let output = dns.1.stdout.as_mut().ok_or("the DNS server has no output")?;
        BufReader::new(output).read_line(&mut first).map_err(|e| e.to_string())?;
        equal("its first line", first.trim(), "listening")?;
        Ok(dns)
    }
}

impl Drop for Dns<'_> {
    fn drop(&mut self) {
        drop(self.1.stdin.take());
        let _ = self.1.wait();
        self.0.run(&["fake", "down"]);
    }
}

/// Starts a broker that knows no domain controller, and returns the duration of its first login.
fn first_login(lab: &Lab) -> Result<Duration, String> {
    start_after(lab, || lab.host_sh(FORGET).ok().map(drop))?;
    john(lab)
}

/// Gives the domain controller an address at which no host answers, for passwords by each method.
fn dead_address(lab: &Lab) -> Check {
    let times = || {
        let of = |method| {
            lab.set_method(method);
            lab.configure("")?;
            Ok::<_, String>([first_login(lab)?, john(lab)?])
        };
        Ok::<_, String>([of(Method::Ldap)?, of(Method::Kerberos)?])
    };
    let usual = times()?;
    lab.run(&["dns", "add", "ad", "10.73.0.98"]).ok()?;
    let seen = times();
    lab.set_method(Method::Ldap);
    lab.run(&["dns", "remove", "ad"]).ok()?;
    lab.run(&["dns", "add", "ad", "10.73.0.10"]).ok()?;
    lab.configure("")?;
    ready(lab)?;
    let seen = seen?;
    println!("         first and next login, by LDAP and by Kerberos: {seen:.1?}, usually {usual:.1?}");
    // At a dead address, a connection would fail after three seconds.
    let waits = seen.iter().flatten().zip(usual.iter().flatten());
    let waited = waits.filter(|(seen, usual)| **seen > **usual + Duration::from_secs(1)).count();
    equal("logins that waited for it", waited, 0)
}

/// Starts a broker that knows no domain controller, with a DNS server that is silent for AAAA, and with the
/// usual one.
fn no_aaaa(lab: &Lab) -> Check {
    let usual = first_login(lab)?;
    let dns = Dns::start(lab)?;
    lab.host_sh(&format!(
        "cp /etc/resolv.conf /root/resolv.conf && echo 'nameserver {FAKE}' >/etc/resolv.conf"
    ))
    .ok()?;
    let seen = first_login(lab);
    let doctor = lab.host("root", &["motion-ad", "doctor", "--json"], "").stdout;
    lab.host_sh("cat /root/resolv.conf >/etc/resolv.conf").ok()?;
    drop(dns);
    let seen = seen?;
    println!("         {:.1} s, usually {:.1} s", seen.as_secs_f64(), usual.as_secs_f64());
    let report: serde_json::Value = serde_json::from_str(&doctor).map_err(|e| format!("{e}\n{doctor}"))?;
    let checks = report["checks"].as_array().cloned().unwrap_or_default();
    let failed = checks
        .iter()
        .find(|check| check["level"] == "failure" || check["id"] == "own-name" && check["level"] != "ok");
    equal("a check of the doctor", failed.map(ToString::to_string), None)?;
    // Waiting for AAAA would take two seconds or more.
    equal("it waited for AAAA", seen > usual + Duration::from_secs(1), false)
}

/// The file may name the domain controller by an address; `domain.servers` may not.
fn by_alias(lab: &Lab) -> Check {
    lab.run(&["dns", "add", "ldap", "10.73.0.10"]).ok()?;
    lab.host_sh(&format!("cp -p {SSSD} /root/sssd.conf")).ok()?;
    let named = |name: &str| -> Check {
        let position = lab.log_position()?;
        let change = format!("sed '/^ad_domain/a ad_server = {name}' /root/sssd.conf >{SSSD}");
        start_after(lab, || lab.host_sh(&format!("{FORGET}; {change}")).ok().map(drop))?;
        equal("a login", john_at(lab, "motion", &["authenticate"]).0.code.as_str(), "PAM_AUTHINFO_UNAVAIL")?;
        let says = format!("{name} is only an alias or an address of ad.acme.com: name ad.acme.com instead");
        let line = lab.wait_for_log(&position, &["event=login", &says])?;
        equal("setspn is no cure for it", line.contains("setspn"), false)?;
        let doctor = lab.host("root", &["motion-ad", "doctor"], "").stdout;
        contains("the doctor", &doctor, &says)?;
        equal("the doctor's cure", doctor.contains("setspn"), false)
    };
    let seen = ["ldap.acme.com", "10.73.0.10"].into_iter().try_for_each(named);
    start_after(lab, || lab.host_sh(&format!("{FORGET}; cp -p /root/sssd.conf {SSSD}")).ok().map(drop))?;
    lab.run(&["dns", "remove", "ldap"]).ok()?;
    let position = lab.log_position()?;
    lab.configure("[domain]\nservers = [\"10.73.0.10\"]\n")?;
    let refused = lab.wait_for_log(
        &position,
        &["config.toml, line 4: ", "10.73.0.10", "is an address; expected a DNS name"],
    );
    lab.configure("")?;
    wait(Duration::from_secs(20), || john(lab).map(drop))?;
    seen.and(refused.map(drop))
}

fn by_winbind(lab: &Lab) -> Check {
    const SMB: &str = "/etc/samba/smb.conf";
    const GLOBAL: &str = "[global]\nworkgroup = ACME\nsecurity = ads\nrealm = ACME.COM\n";
    let position = lab.log_position()?;
    lab.host_sh(&format!(
        "mv {SSSD} /root/sssd.conf; cp -p {SMB} /root/smb.conf 2>/dev/null; mkdir -p /etc/samba"
    ))
    .ok()?;
    lab.write(SMB, GLOBAL)?;
    let seen = start_after(lab, || lab.configure("")).and_then(|()| {
        equal("a login", john_at(lab, "motion", &["authenticate"]).0.code.as_str(), "PAM_SERVICE_ERR")?;
        let words = ["event=login", SMB, "joined by winbind", "[domain] and name = \\\"acme.com\\\""];
        lab.wait_for_log(&position, &words)?;
        lab.configure("[domain]\nname = \"acme.com\"\n")?;
        comes_and_stays_out(lab)
    });
    lab.host_sh(&format!(
        "mv /root/sssd.conf {SSSD}; if [ -e /root/smb.conf ]; then mv /root/smb.conf {SMB}; else rm {SMB}; fi"
    ))
    .ok()?;
    lab.configure("")?;
    wait(Duration::from_secs(10), || john(lab).map(drop))?;
    seen
}

fn stranger(lab: &Lab) -> Check {
    let position = lab.log_position()?;
    let john = person("john");
    let command = ["pamtester", "motion", john.sam, "authenticate"];
    lab.host("nobody", &command, &format!("{}\n", john.password));
    wait(Duration::from_secs(10), || {
        let lines = lab.our_lines_since(&position)?.join("\n");
        let who = "the user nobody (uid 65534, program pamtester) is neither root nor in broker.users";
        let set = "name it in `users` of the section [broker] in /etc/motion-ad/config.toml";
        for part in [" motion-ad-broker[", "pam_motion_ad(motion:auth)"] {
            let line = lines
                .lines()
                .find(|line| line.contains(part))
                .ok_or_else(|| format!("no {part}:\n{lines}"))?;
            contains(part, line, who)?;
            contains(part, line, set)?;
        }
        Ok(())
    })
}

fn comes_and_stays_out(lab: &Lab) -> Check {
    wait(Duration::from_secs(10), || john(lab).map(drop))?;
    let wendy = person("wendy");
    equal("a wrong password", authenticate(lab, wendy.sam, "not hers").code.as_str(), "PAM_AUTH_ERR")?;
    lab.run(&["cast", "reset", "wendy"]).ok().map(drop)
}

/// The unit file as distrobuilder's generator writes it.
const LXC: &str = "mkdir -p /run/systemd/system/service.d && printf \
    '[Service]\\nProcSubset=all\\nProtectProc=default\\n\
    ProtectControlGroups=no\\nProtectKernelTunables=no\\nNoNewPrivileges=no\\nLoadCredential=\\n' \
    >/run/systemd/system/service.d/zzz-lxc-service.conf && systemctl daemon-reload && systemctl restart \
    motion-ad.service";
const NO_LXC: &str =
    "rm -rf /run/systemd/system/service.d; systemctl daemon-reload; systemctl restart motion-ad.service";

fn without_credentials(lab: &Lab) -> Check {
    lab.host_sh(LXC).ok()?;
    let seen = comes_and_stays_out(lab);
    lab.host_sh(NO_LXC).ok()?;
    seen
}

fn withheld(lab: &Lab) -> Check {
    const LATER: &str = "mkdir -p /run/systemd/system/motion-ad.service.d && printf \
        '[Service]\\nLoadCredential=\\n' >/run/systemd/system/motion-ad.service.d/zzzzzz.conf && systemctl \
        daemon-reload && systemctl restart motion-ad.service";
    const BACK: &str = "rm -rf /run/systemd/system/motion-ad.service.d; systemctl daemon-reload; \
        systemctl restart motion-ad.service";
    let position = lab.log_position()?;
    lab.host_sh(LATER).ok()?;
    let seen = lab
        .wait_for_log(&position, &["problem=", "did not hand it over", "LoadCredential="])
        .and_then(|_| {
            let first = lab.broker()?;
            std::thread::sleep(Duration::from_secs(5));
            equal("the broker's process after five seconds", lab.broker()?, first)
        });
    lab.host_sh(BACK).ok()?;
    wait(Duration::from_secs(10), || john(lab).map(drop))?;
    seen
}

/// Puts a key of another account before those of the host (MIT's file format 0x502).
fn second_account(lab: &Lab, (name, realm): (&str, &str)) -> Check {
    let own = fs::read(lab.path(KEYTAB)).map_err(|e| format!("{KEYTAB}: {e}"))?;
    let counted = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let mut entry = 1_u16.to_be_bytes().to_vec();
    entry.extend(counted(realm));
    entry.extend(counted(name));
    // The name type, the time, the key version, AES-256, and a key of 32 bytes.
    entry.extend([0, 0, 0, 1, 0, 0, 0, 0, 9, 0, 18, 0, 32]);
    entry.extend([7; 32]);
    let mut both = vec![5, 2];
    both.extend((entry.len() as u32).to_be_bytes());
    both.extend(entry);
    both.extend(own.get(2..).unwrap_or_default());
    let write = |bytes: &[u8]| fs::write(lab.path(KEYTAB), bytes).map_err(|e| format!("{KEYTAB}: {e}"));
    write(&both)?;
    let seen = comes_and_stays_out(lab);
    write(&own)?;
    wait(Duration::from_secs(10), || john(lab).map(drop))?;
    seen
}

/// The computer account has another name than the host, and AD knows the host by that of the account.
fn other_name(lab: &Lab) -> Check {
    const JOIN: &[&str] = &["realm", "join", "--computer-name", "VOICE01", "-U", "Administrator", "acme.com"];
    lab.run(&["leave"]).ok()?;
    let joined = lab.host("root", JOIN, person("administrator").password).ok();
    let seen = joined.and_then(|_| wait(Duration::from_secs(20), || john(lab).map(drop))).and_then(|()| {
        [("VOICE01", "PAM_SUCCESS"), ("XCALLY", "PAM_PERM_DENIED")].into_iter().try_for_each(
            |(name, code)| {
                let change = format!(
                    "dn: CN=walt.elsewhere,{PEOPLE}\nchangetype: modify\nreplace: userWorkstations\n\
                 userWorkstations: {name}\n"
                );
                ldap(lab, "ldapmodify", &change).ok()?;
                let answer = pam(lab, "motion", person("walt").sam, "", &["acct_mgmt"]);
                equal(name, answer.code.as_str(), code)
            },
        )
    });
    lab.run(&["leave"]).ok()?;
    lab.run(&["join"]).ok()?;
    lab.run(&["cast", "restore", "walt"]).ok()?;
    wait(Duration::from_secs(20), || john(lab).map(drop))?;
    seen
}

fn keytab_elsewhere(lab: &Lab) -> Check {
    const MOVED: &str = "/etc/sssd/acme.keytab";
    let position = lab.log_position()?;
    lab.host_sh(&format!(
        "cp -p {SSSD} /root/sssd.conf && mv {KEYTAB} {MOVED} && sed -i '/^ad_domain/a krb5_keytab = {MOVED}' \
         {SSSD}"
    ))
    .ok()?;
    let line = lab.wait_for_log(&position, &["problem=", MOVED])?;
    let command = line.split('`').nth(1).ok_or("the log names no command")?.replace("\\\\", "\\");
    lab.host_sh(&command).ok()?;
    let seen = comes_and_stays_out(lab).and_then(|()| examined_elsewhere(lab, MOVED));
    lab.host_sh(&format!(
        "chmod 0600 {MOVED}; mv {MOVED} {KEYTAB}; cp -p /root/sssd.conf {SSSD}; rm -r \
         /etc/systemd/system/motion-ad.service.d; systemctl daemon-reload; systemctl restart \
         motion-ad.service"
    ))
    .ok()?;
    wait(Duration::from_secs(10), || john(lab).map(drop))?;
    contains("the command", &command, &format!("keytab:{MOVED}"))?;
    seen
}

/// Checks that the doctor reads the keytab at `path`, and that its command names that file.
fn examined_elsewhere(lab: &Lab, path: &str) -> Check {
    let examined = || -> Result<Vec<serde_json::Value>, String> {
        let doctor = lab.host("root", &["motion-ad", "doctor", "--json"], "").stdout;
        let report: serde_json::Value =
            serde_json::from_str(&doctor).map_err(|e| format!("{e}\n{doctor}"))?;
        Ok(report["checks"].as_array().cloned().unwrap_or_default())
    };
    let checks = examined()?;
    let of = |checks: &[serde_json::Value], id: &str| {
        checks.iter().find(|check| check["id"] == id).cloned().ok_or_else(|| format!("no check {id}"))
    };
    for id in ["keytab", "keytab-mode", "keytab-encryption", "machine-key", "kvno"] {
        let check = of(&checks, id)?;
        equal(id, check["level"].as_str(), Some("ok")).map_err(|e| format!("{e}\n{check}"))?;
    }
    lab.host_sh(&format!("chmod 0644 {path}")).ok()?;
    let mode = of(&examined()?, "keytab-mode")?;
    contains("keytab-mode", mode["seen"].as_str().unwrap_or_default(), &format!("{path} has mode 0644"))?;
    let command = mode["fix"][0]["command"].as_str().unwrap_or_default();
    equal("its command", command, format!("chown root:root {path} && chmod 0600 {path}").as_str())?;
    lab.host_sh(command).ok()?;
    let mode = of(&examined()?, "keytab-mode")?;
    equal("keytab-mode after it", mode["level"].as_str(), Some("ok"))
}

/// Removes the domain controllers that a broker that starts would begin with.
pub const FORGET: &str = "rm -f /var/lib/motion-ad/last-*.json";

fn other_dns(lab: &Lab) -> Check {
    let (broker, position) = (lab.broker()?, lab.log_position()?);
    lab.host_sh("cp /etc/resolv.conf /root/resolv.conf && echo 'nameserver 10.73.0.99' >/etc/resolv.conf")
        .ok()?;
    let noticed = lab.wait_for_log(&position, &["event=dns", "changed=/etc/resolv.conf"]);
    let seen = (0..3).try_for_each(|_| john(lab).map(drop));
    // Nor does a broker that starts then know less.
    let started = restart(lab).and_then(|()| wait(Duration::from_secs(10), || john(lab).map(drop)));
    lab.host_sh("cat /root/resolv.conf >/etc/resolv.conf").ok()?;
    noticed?;
    seen?;
    started?;
    let restarted = lab.log_since(&position)?.iter().any(|line| line.contains("event=restart"));
    equal("it restarted by itself", restarted, false)?;
    equal("it is another one after the restart by hand", lab.broker()? == broker, false)
}

fn hosts_alone(lab: &Lab) -> Check {
    lab.configure("[domain]\nservers = [\"ad.acme.com\"]\n")?;
    lab.host_sh(
        "cp /etc/hosts /root/hosts && cp /etc/resolv.conf /root/resolv.conf && echo 'nameserver 10.73.0.99' \
         >/etc/resolv.conf && echo '10.73.0.98 ad.acme.com' >>/etc/hosts",
    )
    .ok()?;
    // What the broker knew before would do.
    lab.host_sh(&format!("systemctl stop motion-ad.service; {FORGET}")).ok()?;
    restart(lab)?;
    // A corrected line takes effect at once.
    let wrong = john(lab).is_err();
    lab.host_sh("sed -i 's/^10.73.0.98 /10.73.0.10 /' /etc/hosts").ok()?;
    let seen = comes_and_stays_out(lab);
    lab.host_sh("cat /root/hosts >/etc/hosts; cat /root/resolv.conf >/etc/resolv.conf").ok()?;
    lab.configure("")?;
    wait(Duration::from_secs(10), || john(lab).map(drop))?;
    equal("nobody comes in while the address is wrong", wrong, true)?;
    seen
}
