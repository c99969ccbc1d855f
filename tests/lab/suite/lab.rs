//! Interface of the suite to the lab.

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

/// Folder of the package, relative to the repository.
const PACKAGES: &str = "target/debian";

/// Path of this program on a host.
const PROGRAM: &str = "/usr/local/bin/suite";

/// A running lab, seen from one of its hosts. Dropping it takes the lab down.
pub struct Lab {
    name: String,
    script: PathBuf,
    size: Size,
    /// Name of the host.
    host: &'static str,
    /// Root folder of the host on this machine.
    root: PathBuf,
    /// True if logins are configured to use Kerberos.
    kerberos: AtomicBool,
    /// A process that takes the lab down when its standard input closes, however this process ends.
    keeper: Option<Child>,
}

/// A Debian release, which the lab takes from the same variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Debian 12: Samba 4.17, SSSD 2.8, Redis 7.
    Bookworm,
    /// Debian 13: Samba 4.22, SSSD 2.10, Redis 8.
    Trixie,
}

impl Release {
    fn of(variable: &str) -> Self {
        match std::env::var(variable).as_deref() {
            Ok("trixie") => Release::Trixie,
            _ => Release::Bookworm,
        }
    }
}

/// Returns the folder of the checkout that this program was built in. Cargo names this crate's folder at run
/// time, and a copied checkout has a copied program that was compiled for another folder.
pub fn repository() -> PathBuf {
    let above = |path: PathBuf| {
        path.ancestors().find(|folder| folder.join("tests/lab/lab").exists()).map(Path::to_owned)
    };
    let by_cargo = || std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).and_then(above);
    let beside = || std::env::current_exe().ok().and_then(above);
    by_cargo().or_else(beside).unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../..").into())
}

/// Number of machines of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub dcs: usize,
    pub hosts: usize,
    /// Adds 50,000 users to the domain. Such a lab has a different name, so that it can run next to another
    /// one.
    pub crowd: bool,
    /// Installs the third-party applications on the hosts.
    pub clients: bool,
}

/// Result of a command.
#[derive(Clone, Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Returns the standard output of a command that must succeed.
    pub fn ok(self) -> Result<String, String> {
        match self.code {
            0 => Ok(self.stdout),
            code => Err(format!("exit code {code}\n{}{}", self.stdout, self.stderr)),
        }
    }
}

/// AD's counters of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    pub bad_passwords: u32,
    pub locked: bool,
}

impl Lab {
    /// Starts the lab, without joining a host or installing the package.
    pub fn up(size: Size) -> Result<Self, String> {
        let script = repository().join("tests/lab/lab");
        let name = std::env::var("LAB_NAME").unwrap_or_else(|_| "suite".to_owned());
        let name = if size.crowd { name + "crowd" } else { name };
        let kerberos = AtomicBool::new(false);
        let mut lab = Lab { name, script, size, host: "host", root: PathBuf::new(), kerberos, keeper: None };
        // A killed run may have left a lab behind.
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

    /// Returns the same lab seen from its second host, if there is one.
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

    /// Returns the Debian release of the domain controllers.
    pub fn dc_release(&self) -> Release {
        Release::of("LAB_DC_SUITE")
    }

    /// Returns the Debian release of the hosts.
    pub fn host_release(&self) -> Release {
        Release::of("LAB_HOST_SUITE")
    }

    /// Returns true if the domain has a functional level that knows authentication policies and silos.
    pub fn has_policies(&self) -> bool {
        let level = std::env::var("LAB_FUNCTION_LEVEL").unwrap_or_default();
        self.dc_release() == Release::Trixie && (level.is_empty() || level == "2016")
    }

    /// Returns the domain controllers' names in the lab.
    pub fn dcs(&self) -> &'static [&'static str] {
        if self.size.dcs < 2 { &["dc"] } else { &["dc", "dc2"] }
    }

    /// Returns the host's name in the lab.
    pub fn host_name(&self) -> &'static str {
        self.host
    }

    fn keeper(&self) -> Result<Child, String> {
        let mut command = Command::new("sh");
        command.args(["-c", "cat >/dev/null; exec \"$0\" down >/dev/null 2>&1"]).arg(&self.script);
        command.env("LAB_NAME", &self.name).stdin(Stdio::piped());
        // A separate process group, so that Ctrl-C at the terminal does not end it.
        command.process_group(0).spawn().map_err(|e| format!("sh: {e}"))
    }

    /// Runs a command of the lab. Its progress goes to standard error.
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
                // A command that reads no input may end before this write.
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

    /// Runs a command on the host as `user`, with `input` as its standard input.
    pub fn host(&self, user: &str, command: &[&str], input: &str) -> Ran {
        let mut arguments = vec!["exec", self.host, "-u", user, "--"];
        arguments.extend(command);
        self.run_with(&arguments, input)
    }

    /// Returns the path of this program on the host. Copies it there if necessary.
    pub fn program(&self) -> Result<&'static str, String> {
        let to = self.path(PROGRAM);
        if !to.exists() {
            let from = std::env::current_exe().map_err(|e| e.to_string())?;
            fs::copy(from, to).map_err(|e| format!("{PROGRAM}: {e}"))?;
        }
        Ok(PROGRAM)
    }

    /// Starts a background command on the host as `user`, with pipes as standard input and output.
    pub fn host_child(&self, user: &str, command: &[&str]) -> Result<Child, String> {
        let mut arguments = vec!["exec", self.host, "-u", user, "--"];
        arguments.extend(command);
        self.child(&arguments)
    }

    /// Starts a background command of the lab, with pipes as standard input and output.
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

    /// Runs a command on the domain controller, with `input` as its standard input.
    pub fn dc_with(&self, command: &[&str], input: &str) -> Ran {
        let mut arguments = vec!["exec", "dc", "--"];
        arguments.extend(command);
        self.run_with(&arguments, input)
    }

    /// Returns a path of the host as this machine sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Replaces a file of the host.
    pub fn write(&self, path: &str, text: &str) -> Check {
        fs::write(self.path(path), text).map_err(|e| format!("{path}: {e}"))
    }

    /// Returns the method that checks passwords.
    pub fn method(&self) -> Method {
        if self.kerberos.load(Ordering::Relaxed) { Method::Kerberos } else { Method::Ldap }
    }

    /// Sets the method for every later configuration.
    pub fn set_method(&self, method: Method) {
        self.kerberos.store(method == Method::Kerberos, Ordering::Relaxed);
    }

    /// Writes the host's `config.toml`: the DC's CA, the method, and `more`, whose sections come after
    /// `[tls]`. The method is always explicit, because the broker would otherwise use the other one if the
    /// first fails.
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

    /// Returns the output of the lab's own commands until now, including apt's.
    pub fn commands_log(&self) -> Result<String, String> {
        let run = self.root.ancestors().nth(2).ok_or("the lab has no root")?;
        fs::read_to_string(run.join("lab.log")).map_err(|e| format!("lab.log: {e}"))
    }

    /// Returns the package under test.
    pub fn package(&self) -> Result<PathBuf, String> {
        let folder = repository().join(PACKAGES);
        let found = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let is_package = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("libpam-motion-ad_") && name.ends_with(".deb")
        };
        let paths = found.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        paths.filter(is_package).max().ok_or_else(|| "no package: `make deb` builds it".to_owned())
    }

    /// Returns AD's counters for this sAMAccountName.
    pub fn counters(&self, sam: &str) -> Result<Counters, String> {
        let text = self.run(&["cast", "show", sam]).ok()?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            line.ok_or_else(|| format!("no {key} in {text}"))
        };
        let bad_passwords = value("badPwdCount")?.trim().parse().map_err(|e| format!("badPwdCount: {e}"))?;
        Ok(Counters { bad_passwords, locked: value("lockoutTime")?.trim() != "0" })
    }

    /// Returns AD's counters of all accounts, by sAMAccountName.
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

    /// Returns the wrong passwords counted by all domain controllers together, by sAMAccountName.
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

    /// Returns the current position in the host's journal.
    pub fn log_position(&self) -> Result<LogPosition, String> {
        let text = self.host_sh("journalctl --show-cursor -n 0 -o cat").ok()?;
        let cursor = text.lines().find_map(|line| line.strip_prefix("-- cursor: "));
        Ok(LogPosition(cursor.ok_or("journalctl printed no cursor")?.to_owned()))
    }

    /// Returns the broker's lines since `position`.
    pub fn log_since(&self, position: &LogPosition) -> Result<Vec<String>, String> {
        let tag = " motion-ad-broker[";
        let of_broker = |line: &String| Some(line.split_once(tag)?.1.split_once("]: ")?.1.to_owned());
        Ok(self.journal_since(position)?.iter().filter_map(of_broker).collect())
    }

    /// Returns every line of the host's journal since `position`. journalctl runs without a filter, because
    /// systemd 252 drops the first matching line if a filter is combined with `--after-cursor`.
    pub fn journal_since(&self, position: &LogPosition) -> Result<Vec<String>, String> {
        let after = format!("--after-cursor={}", position.0);
        let all = self.host("root", &["journalctl", "-q", "-o", "short", &after], "").ok()?;
        Ok(all.lines().map(str::to_owned).collect())
    }

    /// Returns the lines of the module and the broker since `position`, whichever process loaded the module.
    pub fn our_lines_since(&self, position: &LogPosition) -> Result<Vec<String>, String> {
        let ours = |line: &String| line.contains("motion-ad-broker[") || line.contains("pam_motion_ad(");
        Ok(self.journal_since(position)?.into_iter().filter(ours).collect())
    }

    /// Returns the pid of the host's systemd as this machine sees it.
    pub fn host_pid(&self) -> Result<u32, String> {
        let pid = self.run(&["pid", self.host]).ok()?;
        pid.trim().parse().map_err(|e| format!("lab pid {}: {e}", self.host))
    }

    /// Returns a path as the host's processes see it, with their mounts such as `/run` and `/tmp`.
    pub fn live_path(&self, path: &str) -> Result<PathBuf, String> {
        Ok(PathBuf::from(format!("/proc/{}/root{path}", self.host_pid()?)))
    }

    /// Returns the broker's pid as the host sees it.
    pub fn broker(&self) -> Result<u32, String> {
        let pid = self.host_sh("systemctl show -P MainPID motion-ad.service").ok()?;
        match pid.trim().parse() {
            Ok(0) => Err("the broker does not run".to_owned()),
            Ok(pid) => Ok(pid),
            Err(e) => Err(format!("{pid:?}: {e}")),
        }
    }

    /// Returns the broker's first line since `position` that contains all `parts`. Waits up to 10 s, because
    /// the broker writes the log concurrently.
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

/// Greatest factor by which a wait for a state of the lab is longer on a busy machine.
const BUSIEST: f64 = 4.0;

/// A cursor in the host's journal.
#[derive(Clone, Debug)]
pub struct LogPosition(String);

/// Retries until `attempt` succeeds or the time is over, and on a busy machine for longer. Then returns the
/// last error.
pub fn wait<T>(time: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if begun.elapsed() >= time * waiting_for_a_core() => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Number of tasks that share each core now, at most [`BUSIEST`]: so much slower is all that runs on this
/// machine.
fn waiting_for_a_core() -> u32 {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let running: f64 = load.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    (running / cores as f64).ceil().clamp(1.0, BUSIEST) as u32
}
