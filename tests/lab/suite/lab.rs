//! The lab as the suite uses it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::report::Check;
use crate::row::Method;

/// Where the package is, from the repository's root.
const PACKAGES: &str = "target/debian";

/// Where this program is on a host that runs it.
const PROGRAM: &str = "/usr/local/bin/suite";

/// A lab that is up, as it is seen from one of its hosts. Dropping it takes it down.
pub struct Lab {
    name: String,
    script: PathBuf,
    size: Size,
    /// The host's name.
    host: &'static str,
    /// The host's root, as this machine sees it.
    root: PathBuf,
    /// Whether logins are configured to go by Kerberos.
    kerberos: AtomicBool,
    /// Takes the lab down when its standard input ends, which it does however this process ends.
    keeper: Option<Child>,
}

/// How many machines there are of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub dcs: usize,
    pub hosts: usize,
    /// Whether the domain has 50,000 people more. Such a lab has a name of its own, so that it can be up beside another.
    pub crowd: bool,
    /// Whether the hosts have the applications of other people.
    pub clients: bool,
}

/// A command that ran.
#[derive(Clone, Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Standard output of a command that must succeed.
    pub fn ok(self) -> Result<String, String> {
        match self.code {
            0 => Ok(self.stdout),
            code => Err(format!("exit code {code}\n{}{}", self.stdout, self.stderr)),
        }
    }
}

/// What AD counts about a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    pub bad_passwords: u32,
    pub locked: bool,
}

impl Lab {
    /// Brings the lab up, without joining a host or installing anything.
    pub fn up(size: Size) -> Result<Self, String> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = repository.join("tests/lab/lab");
        let name = std::env::var("LAB_NAME").unwrap_or_else(|_| "suite".to_owned());
        let name = if size.crowd { name + "crowd" } else { name };
        let kerberos = AtomicBool::new(false);
        let mut lab = Lab { name, script, size, host: "host", root: PathBuf::new(), kerberos, keeper: None };
        // What a killed run left would not be fresh.
        lab.run(&["down"]).ok()?;
        if std::env::var_os("MOTION_AD_KEEP_LAB").is_none() {
            lab.keeper = Some(lab.keeper()?);
        }
        let (dcs, hosts) = (size.dcs.to_string(), size.hosts.to_string());
        let mut up = vec!["up", "--no-join", "--dcs", &dcs, "--hosts", &hosts];
        up.extend(size.crowd.then_some("--crowd"));
        up.extend(size.clients.then_some("--clients"));
        lab.run(&up).ok()?;
        lab.root = PathBuf::from(lab.run(&["path", lab.host]).ok()?.trim());
        Ok(lab)
    }

    /// The same lab as it is seen from its second host, where it has one.
    pub fn second(&self) -> Result<Option<Self>, String> {
        if self.size.hosts < 2 {
            return Ok(None);
        }
        let host = "host2";
        let root = PathBuf::from(self.run(&["path", host]).ok()?.trim());
        let (name, script) = (self.name.clone(), self.script.clone());
        let kerberos = AtomicBool::new(self.method() == Method::Kerberos);
        Ok(Some(Lab { name, script, size: self.size, host, root, kerberos, keeper: None }))
    }

    /// The domain controllers' names in the lab.
    pub fn dcs(&self) -> &'static [&'static str] {
        if self.size.dcs < 2 { &["dc"] } else { &["dc", "dc2"] }
    }

    /// The host's name in the lab.
    pub fn host_name(&self) -> &'static str {
        self.host
    }

    fn keeper(&self) -> Result<Child, String> {
        let mut command = Command::new("sh");
        command.args(["-c", "cat >/dev/null; exec \"$0\" down >/dev/null 2>&1"]).arg(&self.script);
        command.env("LAB_NAME", &self.name).stdin(Stdio::piped());
        // Of its own group, so that Ctrl-C at the terminal does not end it too.
        command.process_group(0).spawn().map_err(|e| format!("sh: {e}"))
    }

    /// Runs a command of the lab; its progress goes to this process's standard error.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.script);
        command.args(arguments).env("LAB_NAME", &self.name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let capture = arguments.first() == Some(&"exec");
        command.stderr(if capture { Stdio::piped() } else { Stdio::inherit() });
        let ran = command.spawn().and_then(|mut child| {
            if let Some(mut stdin) = child.stdin.take() {
                // A command that does not read its input ends before it is written.
                let _ = stdin.write_all(input.as_bytes());
            }
            child.wait_with_output()
        });
        match ran {
            Ok(output) => Ran {
                code: output.status.code().unwrap_or(-1),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            },
            Err(e) => {
                Ran { code: -1, stdout: String::new(), stderr: format!("{}: {e}", self.script.display()) }
            }
        }
    }

    /// Runs a command on the host as `user` with `input` as its standard input.
    pub fn host(&self, user: &str, command: &[&str], input: &str) -> Ran {
        let mut arguments = vec!["exec", self.host, "-u", user, "--"];
        arguments.extend(command);
        self.run_with(&arguments, input)
    }

    /// The path of this program on the host.
    pub fn program(&self) -> Result<&'static str, String> {
        let to = self.path(PROGRAM);
        if !to.exists() {
            let from = std::env::current_exe().map_err(|e| e.to_string())?;
            fs::copy(from, to).map_err(|e| format!("{PROGRAM}: {e}"))?;
        }
        Ok(PROGRAM)
    }

    /// Starts a command on the host as `user` that goes on beside the suite: its standard input and output are pipes.
    pub fn host_child(&self, user: &str, command: &[&str]) -> Result<Child, String> {
        let mut arguments = vec!["exec", self.host, "-u", user, "--"];
        arguments.extend(command);
        self.child(&arguments)
    }

    /// Starts a command of the lab that goes on beside the suite: its standard input and output are pipes.
    pub fn child(&self, arguments: &[&str]) -> Result<Child, String> {
        self.command(arguments).spawn().map_err(|e| format!("{}: {e}", self.script.display()))
    }

    /// Runs a shell script on the host as root.
    pub fn host_sh(&self, script: &str) -> Ran {
        self.host("root", &["sh", "-c", script], "")
    }

    /// Runs a command on the domain controller.
    pub fn dc(&self, command: &[&str]) -> Ran {
        self.dc_with(command, "")
    }

    /// The same with `input` as its standard input.
    pub fn dc_with(&self, command: &[&str], input: &str) -> Ran {
        let mut arguments = vec!["exec", "dc", "--"];
        arguments.extend(command);
        self.run_with(&arguments, input)
    }

    /// A path of the host, as this machine sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Replaces a file of the host.
    pub fn write(&self, path: &str, text: &str) -> Check {
        fs::write(self.path(path), text).map_err(|e| format!("{path}: {e}"))
    }

    /// What checks passwords.
    pub fn method(&self) -> Method {
        if self.kerberos.load(Ordering::Relaxed) { Method::Kerberos } else { Method::Ldap }
    }

    /// Has every configuration from here on say what checks passwords; for LDAP, the default finds it.
    pub fn set_method(&self, method: Method) {
        self.kerberos.store(method == Method::Kerberos, Ordering::Relaxed);
    }

    /// Writes the host's `config.toml`: the DC's CA, the method, and `more`, whose sections come after `[tls]`. The
    /// method is never left to the broker, which would take the other one where the first fails.
    pub fn configure(&self, more: &str) -> Check {
        let login = format!("[login]\nmethod = \"{}\"\n", self.method().name());
        let more = match more.contains("[login]\n") {
            true => more.replacen("[login]\n", &login, 1),
            false => format!("{more}{login}"),
        };
        let ca = self.run(&["ca"]).ok()?;
        fs::copy(ca.trim(), self.path("/etc/motion-ad/ca.pem")).map_err(|e| format!("{ca}: {e}"))?;
        self.write(
            "/etc/motion-ad/config.toml",
            &format!("[tls]\nca_file = \"/etc/motion-ad/ca.pem\"\n{more}"),
        )
    }

    /// What the lab's own commands printed so far, apt's output among it.
    pub fn commands_log(&self) -> Result<String, String> {
        let run = self.root.ancestors().nth(2).ok_or("the lab has no root")?;
        fs::read_to_string(run.join("lab.log")).map_err(|e| format!("lab.log: {e}"))
    }

    /// The package under test.
    pub fn package(&self) -> Result<PathBuf, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(PACKAGES);
        let found = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let is_package = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("libpam-motion-ad_") && name.ends_with(".deb")
        };
        let paths = found.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        paths.filter(is_package).max().ok_or_else(|| "no package: `make deb` builds it".to_owned())
    }

    /// What AD counts about the person with this sAMAccountName.
    pub fn counters(&self, sam: &str) -> Result<Counters, String> {
        let text = self.run(&["cast", "show", sam]).ok()?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            line.ok_or_else(|| format!("no {key} in {text}"))
        };
        let bad_passwords = value("badPwdCount")?.trim().parse().map_err(|e| format!("badPwdCount: {e}"))?;
        Ok(Counters { bad_passwords, locked: value("lockoutTime")?.trim() != "0" })
    }

    /// What AD counts about everybody, by sAMAccountName.
    pub fn everybodys_counters(&self) -> Result<BTreeMap<String, Counters>, String> {
        let text = self.run(&["cast", "show"]).ok()?;
        let person = |line: &str| match line.split('\t').collect::<Vec<_>>()[..] {
            [sam, count, lock] => {
                let bad_passwords = count.parse().map_err(|e| format!("badPwdCount: {e}: {line}"))?;
                Ok((sam.to_owned(), Counters { bad_passwords, locked: lock != "0" }))
            }
            _ => Err(format!("expected three cells: {line}")),
        };
        text.lines().map(person).collect()
    }

    /// The sum of the wrong passwords that the domain controllers have counted, by sAMAccountName.
    pub fn counted_everywhere(&self) -> Result<BTreeMap<String, u32>, String> {
        let text = self.run(&["cast", "show", "--all"]).ok()?;
        let mut sums = BTreeMap::new();
        for line in text.lines() {
            let [sam, _dc, count, _lock] = line.split('\t').collect::<Vec<_>>()[..] else {
                return Err(format!("expected four cells: {line}"));
            };
            let count: u32 = count.parse().map_err(|e| format!("badPwdCount: {e}: {line}"))?;
            *sums.entry(sam.to_owned()).or_default() += count;
        }
        Ok(sums)
    }

    /// A place in the broker's log.
    pub fn log_position(&self) -> Result<LogPosition, String> {
        let text = self.host_sh("journalctl --show-cursor -n 0 -o cat").ok()?;
        let cursor = text.lines().find_map(|line| line.strip_prefix("-- cursor: "));
        Ok(LogPosition(cursor.ok_or("journalctl printed no cursor")?.to_owned()))
    }

    /// The broker's lines since `position`.
    pub fn log_since(&self, position: &LogPosition) -> Result<Vec<String>, String> {
        let tag = " motion-ad-broker[";
        let of_broker = |line: &String| Some(line.split_once(tag)?.1.split_once("]: ")?.1.to_owned());
        Ok(self.journal_since(position)?.iter().filter_map(of_broker).collect())
    }

    /// Every line of the host's journal since `position`. journalctl gets no filter: together with one,
    /// `--after-cursor` (systemd 252) leaves out the first line that matches.
    fn journal_since(&self, position: &LogPosition) -> Result<Vec<String>, String> {
        let after = format!("--after-cursor={}", position.0);
        let all = self.host("root", &["journalctl", "-q", "-o", "short", &after], "").ok()?;
        Ok(all.lines().map(str::to_owned).collect())
    }

    /// What our module and our broker wrote since `position`: each line of theirs, whoever loaded the module.
    pub fn our_lines_since(&self, position: &LogPosition) -> Result<Vec<String>, String> {
        let ours = |line: &String| line.contains("motion-ad-broker[") || line.contains("pam_motion_ad(");
        Ok(self.journal_since(position)?.into_iter().filter(ours).collect())
    }

    /// The pid of the host's systemd, as this machine sees it.
    pub fn host_pid(&self) -> Result<u32, String> {
        let pid = self.run(&["pid", self.host]).ok()?;
        pid.trim().parse().map_err(|e| format!("lab pid {}: {e}", self.host))
    }

    /// The host's root as its processes see it, with what is mounted there: `/run`, `/tmp`.
    pub fn live_path(&self, path: &str) -> Result<PathBuf, String> {
        Ok(PathBuf::from(format!("/proc/{}/root{path}", self.host_pid()?)))
    }

    /// The broker's pid, as the host sees it.
    pub fn broker(&self) -> Result<u32, String> {
        let pid = self.host_sh("systemctl show -P MainPID motion-ad.service").ok()?;
        match pid.trim().parse() {
            Ok(0) => Err("the broker does not run".to_owned()),
            Ok(pid) => Ok(pid),
            Err(e) => Err(format!("{pid:?}: {e}")),
        }
    }

    /// The broker's first line since `position` that holds every one of `parts`; waits for it for a moment, because
    /// the log is written beside the login.
    pub fn wait_for_log(&self, position: &LogPosition, parts: &[&str]) -> Result<String, String> {
        let mut lines = Vec::new();
        wait(Duration::from_secs(10), || {
            lines = self.log_since(position)?;
            let found = lines.iter().find(|line| parts.iter().all(|part| line.contains(part)));
            found
                .cloned()
                .ok_or_else(|| format!("expected a log line with {parts:?} among:\n{}", lines.join("\n")))
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// A cursor of the host's journal.
#[derive(Clone, Debug)]
pub struct LogPosition(String);

/// Tries again until `attempt` succeeds or the time is over; then its last error.
pub fn wait<T>(time: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if begun.elapsed() >= time => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
