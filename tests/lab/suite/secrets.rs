//! No password remains: not in a log, a file or a command line, nor in the broker's memory after the login.
//!
//! The memory is read from outside, as a core dump of the running broker would contain it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cast::{everybody, person};
use crate::lab::{Lab, wait};
use crate::pam::pam;
use crate::ready::{self, ready};
use crate::report::{Check, Report, contains, equal};

/// A service whose module writes all possible messages.
const LOUD: &str = "motion-loud";
/// Folders of the host in which a password could have been written.
const PLACES: [&str; 6] = ["/var/log", "/run", "/tmp", "/var/tmp", "/var/lib/motion-ad", "/etc/motion-ad"];
/// Number of a password's first characters that identify it.
const TELLING: usize = 10;

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    ready(lab)?;
    let service = fs::read_to_string(lab.path("/etc/pam.d/motion")).map_err(|e| e.to_string())?;
    let loud = service.replace("required  pam_motion_ad.so", "required  pam_motion_ad.so debug messages");
    lab.write(&format!("/etc/pam.d/{LOUD}"), &loud)?;
    let mut passwords = BTreeSet::new();
    report.check("logins of every outcome", || logins(lab, &mut passwords));
    report.check("logins in every trouble", || troubles(lab, &mut passwords));
    report.check("the search finds what is planted", || planted(lab));
    bundles(lab, report, &passwords);
    nowhere(lab, report, &passwords);
    report.check("no password in the broker's memory", || memory(lab, &passwords));
    fs::remove_file(lab.path(&format!("/etc/pam.d/{LOUD}"))).map_err(|e| e.to_string())?;
    lab.run(&["cast", "reset"]).ok().map(drop)
}

/// Checks that no program on the host wrote one of these passwords (or John's) to a file, or shows it in its
/// arguments or environment.
pub fn nowhere(lab: &Lab, report: &mut Report, passwords: &BTreeSet<String>) {
    let needles = Needles::new(passwords);
    println!(
        "         {} passwords in {} spellings",
        passwords.len(),
        needles.0.values().map(Vec::len).sum::<usize>()
    );
    report.check("no password in the journal", || {
        let journal = lab.host_sh("journalctl -q --no-pager -o export").ok()?;
        contains("the journal", &journal, "event=login user=john.doe")?;
        clean("the journal", &needles.within(journal.as_bytes()))
    });
    for place in PLACES {
        report.check(&format!("no password below {place}"), || {
            let found = needles.below(&lab.live_path(place)?)?;
            clean(place, &found)
        });
    }
    report.check("no password in a command line or an environment", || {
        for pid in processes(lab)? {
            for file in ["cmdline", "environ"] {
                let path = format!("/proc/{pid}/{file}");
                // An ended process has nothing to read.
                let text = fs::read(&path).unwrap_or_default();
                clean(&path, &needles.within(&text))?;
            }
        }
        Ok(())
    });
}

/// Logs in and records the password. Other chapters check the result; this one requires only that there is
/// one.
fn login(lab: &Lab, user: &str, password: &str, used: &mut BTreeSet<String>) -> Result<String, String> {
    used.insert(password.to_owned());
    let answer = pam(lab, LOUD, user, password, &["authenticate", "acct_mgmt"]);
    if answer.code == "?" { Err(format!("{user}: {}", answer.output)) } else { Ok(answer.code) }
}

fn logins(lab: &Lab, used: &mut BTreeSet<String>) -> Check {
    let mut codes = BTreeMap::new();
    for person in everybody() {
        let code = login(lab, person.sam, person.password, used)?;
        *codes.entry(code).or_insert(0) += 1;
    }
    for (user, password) in [
        ("john.doe", "Wr0ng-and-w0nderful"),
        ("wendy.wrong", "\"Wr0ng\\and\u{20ac}scaped\""),
        ("dora.disabled", "Wr0ng-for-Dora"),
        ("nobody.at.all", "F0r-nobody-in-particular"),
        ("root", "R00ts-own-passw0rd"),
        ("no such name@other.example", "F0r-another-domain"),
        ("john.doe", &format!("T00-long-{}", "x".repeat(1100))),
    ] {
        *codes.entry(login(lab, user, password, used)?).or_insert(0) += 1;
    }
    println!("         {codes:?}");
    let expected = [
        "PAM_ACCT_EXPIRED",
        "PAM_AUTH_ERR",
        "PAM_MAXTRIES",
        "PAM_NEW_AUTHTOK_REQD",
        "PAM_PERM_DENIED",
        "PAM_SUCCESS",
        "PAM_USER_UNKNOWN",
    ];
    equal("codes", codes.keys().map(String::as_str).collect::<Vec<_>>(), expected.to_vec())
}

fn troubles(lab: &Lab, used: &mut BTreeSet<String>) -> Check {
    let unavailable = |code: String| equal("the code", code.as_str(), "PAM_AUTHINFO_UNAVAIL");
    let john = person("john");
    let trouble = |breaks: &dyn Fn() -> Check,
                   repairs: &dyn Fn() -> Check,
                   password: &str,
                   used: &mut BTreeSet<String>| {
        breaks()?;
        // A password that AD never receives is tested like one that it does.
        let seen = login(lab, john.sam, password, used);
        // Search now, because some repairs restart the broker.
        let searched = memory(lab, used);
        repairs()?;
        unavailable(seen?)?;
        searched?;
        wait(Duration::from_secs(20), || ready::john(lab).map(drop))
    };
    let run = |arguments: &[&str]| lab.run(arguments).ok().map(drop);
    let cut = || run(&["net", "cut", "dc"]);
    let heal = || run(&["net", "heal", "dc"]);
    trouble(&cut, &heal, "N0t-answered-by-the-DC", used)?;
    trouble(&|| run(&["dc", "stop"]), &|| run(&["dc", "start"]), "R3fused-by-the-DC", used)?;
    let other = || -> Check {
        let other = lab.run(&["ca", "--other"]).ok()?;
        fs::copy(other.trim(), lab.path("/etc/motion-ad/ca.pem")).map(drop).map_err(|e| e.to_string())
    };
    trouble(&other, &|| lab.configure(""), "Br0ken-off-by-TLS", used)?;
    lab.host_sh("systemctl stop motion-ad.socket motion-ad.service").ok()?;
    let seen = login(lab, john.sam, "N0body-listens-to-this", used);
    lab.host_sh("systemctl start motion-ad.socket").ok()?;
    unavailable(seen?)?;
    // Repeat all logins, so that the broker that is searched has processed them.
    logins(lab, used)
}

/// Checks that the search finds a password that was planted.
fn planted(lab: &Lab) -> Check {
    let password = "Pl4nted-to-be-found";
    let needles = Needles::new(&[password.to_owned(), "Pl4nted \"in\\quotes\"".to_owned()].into());
    let found = |what: &str, places: &[String]| {
        if places.is_empty() { Err(format!("{what}: what was planted was not found")) } else { Ok(()) }
    };
    let in_log = "logger -t planted 'Pl4nted-to-be-found' 'Pl4nted \\\"in\\\\quotes\\\"'";
    lab.host_sh(in_log).ok()?;
    let journal = wait(Duration::from_secs(5), || {
        let journal = lab.host_sh("journalctl -q --no-pager -o export -t planted").ok()?;
        contains("the journal", &journal, "planted").map(|()| journal)
    })?;
    equal("spellings in the journal", needles.within(journal.as_bytes()).len(), 2)?;

    let utf16: Vec<u8> = password.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let file = lab.live_path("/run/planted")?;
    fs::write(&file, utf16).map_err(|e| e.to_string())?;
    let below = needles.below(&lab.live_path("/run")?);
    fs::remove_file(&file).map_err(|e| e.to_string())?;
    found("/run", &below?)?;

    // A process that holds a password: a shell that has read it and waits.
    std::thread::scope(|scope| {
        let script = "read -r planted; : >/run/planted; while [ -e /run/planted ]; do sleep 0.1; done";
        let holder = scope.spawn(|| lab.host("root", &["sh", "-c", script], &format!("{password}\n")));
        let searched = wait(Duration::from_secs(5), || fs::metadata(&file).map_err(|e| e.to_string()))
            .and_then(|_| {
                let holds = |pid: &u32| {
                    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().contains("planted")
                };
                let holders = processes(lab)?.into_iter().filter(holds);
                let found = holders.filter_map(|pid| needles.in_memory(pid).ok());
                Ok(found.flat_map(|(_, found)| found).collect::<Vec<_>>())
            });
        let _ = fs::remove_file(&file);
        holder.join().map_err(|_| "the holder's thread ended")?.ok()?;
        found("a process", &searched?)
    })
}

/// Searches the broker's memory for the passwords of finished logins.
fn memory(lab: &Lab, passwords: &BTreeSet<String>) -> Check {
    // The broker remembers names.
    not_in_memory(lab, lab.broker()?, passwords, "john.doe")
}

/// Checks that the memory of the host's process `pid` contains none of these passwords. It must contain
/// `name`: otherwise the wrong memory was read.
pub fn not_in_memory(lab: &Lab, pid: u32, passwords: &BTreeSet<String>, name: &str) -> Check {
    let pid = outer_pid(lab, pid)?;
    // A mapping that ends while it is read makes the search begin again.
    let search = |needles: &Needles| wait(Duration::from_secs(10), || needles.in_memory(pid));
    let (size, found) = search(&Needles::new(passwords))?;
    println!("         {:.1} MB of memory searched", size as f64 / 1e6);
    let name = search(&Needles::new(&[name.to_owned()].into()))?.1;
    equal("the user's name was found", name.is_empty(), false)?;
    clean("the memory", &found)
}

/// Folder of the host for bundles and for the files that hold planted secrets.
const BUNDLES: &str = "/var/tmp/bundles";
/// A drop-in of the broker's unit with a secret.
const DROP_IN: &str = "/etc/systemd/system/motion-ad.service.d/planted.conf";
/// Secrets in files that a bundle contains: in the configuration, in the join's file, in the unit.
const PLANTED: [&str; 3] = ["R3dis-in-a-url", "B1nd-secret-of-sssd", "Un1t-secret-in-a-variable"];

/// Searches the archives of `doctor --bundle` for every password, for planted secrets and for the machine's
/// keys.
fn bundles(lab: &Lab, report: &mut Report, passwords: &BTreeSet<String>) {
    let secrets: BTreeSet<_> = passwords.iter().cloned().chain(PLANTED.map(str::to_owned)).collect();
    let needles = Needles::new(&secrets);
    report.check("bundle: one archive, readable for root alone, with every part", || {
        let [url, bind, variable] = PLANTED;
        lab.host_sh(&format!(
            "rm -rf {BUNDLES}; mkdir -m 700 {BUNDLES} && cd {BUNDLES} && cp /etc/motion-ad/*.* . && cp \
             /etc/sssd/sssd.conf . &&
             echo '# store = \"rediss://motion:{url}@redis1/0\"' >>config.toml && echo '# \
ldap_default_authtok = {bind}' >>sssd.conf &&
             mkdir -p $(dirname {DROP_IN}) && printf '[Service]\\nEnvironment=REDIS_PASSWORD={variable}\\n' \
>{DROP_IN}"
        ))
        .ok()?;
        // The search finds what is planted where it is not masked.
        let found = needles.below(&lab.live_path(BUNDLES)?)?;
        equal("planted secrets that are found in the files", found.len(), 2)?;
        let said = bundle(lab, "whole", &[])?;
        contains("what it said", &said, "readable only for you")?;
        let whole = format!("{BUNDLES}/whole.tar.gz");
        equal("its mode", lab.host_sh(&format!("stat -c %a:%U {whole}")).ok()?.trim(), "600:root")?;
        for (file, part) in [
            ("README.txt", "log.txt"),
            ("doctor.txt", "config-file"),
            ("doctor.json", "\"level\""),
            ("status.json", "\"well\": true"),
            ("config-show.txt", "domain.name"),
            ("dns.txt", "ad.acme.com"),
            ("certificates.txt", "issuer"),
            ("units.txt", "[Service]"),
            ("packages.txt", "libpam-motion-ad"),
            ("log.txt", "event=login user=john.doe"),
            ("files/etc/pam.d/motion", "pam_motion_ad.so"),
            ("files/var/tmp/bundles/sssd.conf", "(masked)"),
        ] {
            let text = fs::read_to_string(parts(lab, "whole")?.join(file)).map_err(|e| {
                format!(
                    "{file}: \
                {e}"
                )
            })?;
            contains(file, &text, part)?;
        }
        Ok(())
    });
    report.check("bundle: no password, no planted secret and no key in it", || {
        clean("the bundle", &needles.below(&parts(lab, "whole")?)?)?;
        let keys = lab.host_sh("klist -k -K -e | grep -o '0x[0-9a-f]*' | sort -u").ok()?;
        let keys: Vec<_> = keys.lines().filter_map(|key| key.strip_prefix("0x")).collect();
        equal("keys of the machine are known", keys.is_empty(), false)?;
        let all = lab.host_sh(&format!("grep -rl -e {} {BUNDLES}/whole", keys.join(" -e ")));
        equal("files that hold a key", all.stdout.as_str(), "")
    });
    report.check("bundle: no file is overwritten, and no link followed", || {
        let before = lab.host_sh(&format!("sha256sum {BUNDLES}/whole.tar.gz")).ok()?;
        lab.host_sh(&format!("ln -s {BUNDLES}/elsewhere {BUNDLES}/link.tar.gz")).ok()?;
        for name in ["whole", "link"] {
            let file = format!("{BUNDLES}/{name}.tar.gz");
            let ran = lab.host("root", &["motion-ad", "doctor", "--bundle", &file], "");
            equal("exit code", ran.code, 3)?;
            contains("standard error", &ran.stderr, "exists already: name another file")?;
        }
        equal("the target of the link", lab.host_sh(&format!("test -e {BUNDLES}/elsewhere")).code, 1)?;
        equal("the file", lab.host_sh(&format!("sha256sum {BUNDLES}/whole.tar.gz")).ok()?, before)
    });
    report.check("bundle --pseudonyms: no name of a user in it, and no secret", || {
        bundle(lab, "nameless", &["--pseudonyms"])?;
        let folder = parts(lab, "nameless")?;
        clean("the bundle", &needles.below(&folder)?)?;
        let log = fs::read_to_string(folder.join("log.txt")).map_err(|e| e.to_string())?;
        contains("the log", &log, "event=login user=pseudonym-")?;
        let unpacked = format!("{BUNDLES}/nameless");
        // Every text about administrators has the word, too.
        for person in everybody().iter().filter(|person| person.sam != "Administrator") {
            let found = lab.host("root", &["grep", "-rliwF", "-e", person.sam, &unpacked], "");
            equal(person.sam, found.stdout.as_str(), "")?;
        }
        Ok(())
    });
    let _ = lab.host_sh(&format!("rm -rf {BUNDLES} {DROP_IN}"));
}

/// Makes a bundle and unpacks it. Returns what the command said.
fn bundle(lab: &Lab, name: &str, options: &[&str]) -> Result<String, String> {
    let (config, sssd) = (format!("{BUNDLES}/config.toml"), format!("{BUNDLES}/sssd.conf"));
    let file = format!("{BUNDLES}/{name}.tar.gz");
    let mut command = vec!["motion-ad", "--config", &config, "--sssd", &sssd, "doctor", "--bundle", &file];
    command.extend(options);
    let said = lab.host("root", &command, "").ok()?;
    lab.host_sh(&format!("mkdir {BUNDLES}/{name} && tar -C {BUNDLES}/{name} -xzf {file}")).ok()?;
    Ok(said)
}

/// Returns the folder of an unpacked bundle.
fn parts(lab: &Lab, name: &str) -> Result<PathBuf, String> {
    lab.live_path(&format!("{BUNDLES}/{name}/motion-ad-bundle"))
}

fn clean(place: &str, found: &[String]) -> Check {
    if found.is_empty() {
        Ok(())
    } else {
        Err(format!("{place}: {} finds\n{}", found.len(), found.join("\n")))
    }
}

/// Returns the host's processes, by their pids on this machine.
fn processes(lab: &Lab) -> Result<Vec<u32>, String> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let host = namespace(lab.host_pid()?);
    let pids = fs::read_dir("/proc")
        .map_err(|e| e.to_string())?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| namespace(*pid) == host).collect())
}

/// Returns the pid on this machine of the host's process `pid`.
pub fn outer_pid(lab: &Lab, pid: u32) -> Result<u32, String> {
    let inner = |outer: &u32| -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{outer}/status")).ok()?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))?
            .split_whitespace()
            .next_back()?
            .parse()
            .ok()
    };
    processes(lab)?
        .into_iter()
        .find(|outer| inner(outer) == Some(pid))
        .ok_or_else(|| format!("no process {pid}"))
}

/// Encodings of passwords, by their first two bytes.
#[derive(Clone)]
struct Needles(BTreeMap<[u8; 2], Vec<(Vec<u8>, String)>>);

impl Needles {
    fn new(passwords: &BTreeSet<String>) -> Self {
        let mut needles = Needles(BTreeMap::new());
        for password in passwords {
            for (bytes, spelling) in spellings(password) {
                if let [a, b, ..] = bytes[..] {
                    let name = format!("{password:?} as {spelling}");
                    needles.0.entry([a, b]).or_default().push((bytes, name));
                }
            }
        }
        needles
    }

    /// Returns the encodings found in `text`, each once.
    fn within(&self, text: &[u8]) -> Vec<String> {
        let mut first = vec![false; 1 << 16];
        self.0.keys().for_each(|key| first[usize::from(u16::from_le_bytes(*key))] = true);
        let mut found = BTreeMap::new();
        for at in 0..text.len().saturating_sub(1) {
            let key = [text[at], text[at + 1]];
            if !first[usize::from(u16::from_le_bytes(key))] {
                continue;
            }
            for (bytes, name) in self.0.get(&key).into_iter().flatten() {
                if text[at..].starts_with(bytes) {
                    found.entry(name).or_insert(at);
                }
            }
        }
        found.into_iter().map(|(name, at)| format!("{name} at {at:#x}, {}", around(text, at))).collect()
    }

    /// Same as [`Needles::within`], for every regular file of a folder.
    fn below(&self, folder: &Path) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                // Temporary folders can disappear.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(format!("{}: {e}", folder.display())),
            };
            for entry in entries.filter_map(Result::ok) {
                let path: PathBuf = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(path),
                    Ok(kind) if kind.is_file() => {
                        let text = fs::read(&path).unwrap_or_default();
                        found.extend(
                            self.within(&text).into_iter().map(|f| format!("{}: {f}", path.display())),
                        );
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    /// Same, for the memory of a process. Also returns the number of bytes read.
    fn in_memory(&self, pid: u32) -> Result<(usize, Vec<String>), String> {
        let error = |e: std::io::Error| format!("the memory of {pid}: {e}");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(error)?;
        let mut memory = File::open(format!("/proc/{pid}/mem")).map_err(error)?;
        let (mut size, mut found) = (0, Vec::new());
        // All writable memory: heap, stacks, and the data of the program and its libraries.
        for line in
            maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw")))
        {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let address = |text| u64::from_str_radix(text, 16).map_err(|e| format!("{line}: {e}"));
            let (from, to) = range.ok_or_else(|| format!("a mapping without a range: {line}"))?;
            let (from, to) = (address(from)?, address(to)?);
            let mut text = vec![0; usize::try_from(to - from).map_err(|e| e.to_string())?];
            memory.seek(SeekFrom::Start(from)).map_err(error)?;
            memory.read_exact(&mut text).map_err(error)?;
            size += text.len();
            found.extend(self.within(&text).into_iter().map(|f| format!("{line}: {f}")));
        }
        Ok((size, found))
    }
}

/// Returns the encodings in which the start of a password may have been written.
fn spellings(password: &str) -> BTreeMap<Vec<u8>, &'static str> {
    let begin: String = password.chars().take(TELLING).collect();
    let json = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let ascii = |text: &str| -> String {
        let escape = |c: char| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
        json(text).chars().map(escape).collect()
    };
    let every_byte = |form: fn(u8) -> String| begin.bytes().map(form).collect::<String>().into_bytes();
    let all = [
        ("UTF-8", begin.clone().into_bytes()),
        ("UTF-16", begin.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("JSON", json(&begin).into_bytes()),
        ("JSON in ASCII", ascii(&begin).into_bytes()),
        ("Rust's Debug", format!("{begin:?}").trim_matches('"').as_bytes().to_vec()),
        ("a list of numbers", every_byte(|byte| format!("{byte}, "))),
        ("hexadecimal digits", every_byte(|byte| format!("{byte:02x}"))),
        // As in RFC 4515, or in a log of BER.
        ("escaped bytes", every_byte(|byte| format!("\\{byte:02x}"))),
        ("base64", base64(begin.as_bytes())),
        // After a name and a colon, as HTTP sends both.
        ("base64, from its second byte", base64(begin.as_bytes().get(1..).unwrap_or_default())),
        ("base64, from its third byte", base64(begin.as_bytes().get(2..).unwrap_or_default())),
    ];
    // Many encodings of an ordinary password are equal. The first name is then used for all.
    all.into_iter().rev().map(|(name, bytes)| (bytes, name)).collect()
}

/// Encodes only whole groups of three bytes, so that the following text makes no difference.
pub fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| DIGITS[bits >> shift & 63])
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

/// Returns the text around a match, for the report.
fn around(text: &[u8], at: usize) -> String {
    let part = &text[at.saturating_sub(60)..(at + 60).min(text.len())];
    part.escape_ascii().to_string()
}
