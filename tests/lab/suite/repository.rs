//! The apt repository of a release: a host installs the package from it over HTTP, and goes to the next
//! version and back while users log in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use tempfile::TempDir;

use crate::lab::{Lab, Ran, repository, wait};
use crate::package::{newer, units, version};
use crate::ready::{john, ready, while_john_logs_in};
use crate::report::{Check, Report, contains, equal};

/// Files of the host that know the repository.
const SOURCE: &str = "/etc/apt/sources.list.d/motion-ad.sources";
const KEY: &str = "/etc/apt/keyrings/motion-ad.asc";

/// Version of the package that stands for the release before, unless `MOTION_AD_BEFORE` names one.
const BEFORE: &str = "0.0.1";

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    ready(lab)?;
    let site = Site::up(lab)?;
    let next = version(lab)?;
    let before = match std::env::var_os("MOTION_AD_BEFORE") {
        Some(path) => PathBuf::from(path),
        None => newer(lab, BEFORE)?,
    };
    report.check("a host without the package installs it by apt, over HTTP", || {
        lab.run(&["purge"]).ok()?;
        site.publish(&before)?;
        site.introduce(lab)?;
        update(lab).ok()?;
        apt(lab, &["install", "libpam-motion-ad"]).ok()?;
        units(lab, "active", "enabled")?;
        equal("the next version is installed", version(lab)? == next, false)?;
        lab.configure("")?;
        ready(lab)
    });
    let old = version(lab)?;
    report.check("it upgrades while users log in: none fails", || {
        site.publish(&lab.package()?)?;
        moves(lab, "libpam-motion-ad", &next)
    });
    report.check("it goes back to the version before while users log in: none fails", || {
        moves(lab, &format!("libpam-motion-ad={old}"), &old)
    });
    report.check("a package that was changed on the way is not installed", || {
        let name = lab.package()?.file_name().unwrap_or_default().to_owned();
        let path = site.folder().join("pool").join(name);
        let mut bytes = fs::read(&path).map_err(|e| e.to_string())?;
        *bytes.last_mut().ok_or("an empty package")? ^= 1;
        fs::write(&path, bytes).map_err(|e| e.to_string())?;
        lab.host_sh("rm -f /var/cache/apt/archives/libpam-motion-ad_*").ok()?;
        let ran = apt(lab, &["install", "libpam-motion-ad"]);
        equal("apt succeeds", ran.code == 0, false)?;
        contains("apt", &ran.stderr, "Hash Sum mismatch")?;
        equal("version", version(lab)?, old.clone())
    });
    report.check("a repository that another key signed is not used", || {
        let other = Signer::new()?;
        other.publish(&site.folder(), &lab.package()?)?;
        let ran = update(lab);
        equal("apt succeeds", ran.code == 0, false)?;
        // apt of Debian 12 verifies with gpgv, apt of Debian 13 with sqv.
        let missing = if ran.stderr.contains("/sqv ") { "Missing key" } else { "NO_PUBKEY" };
        contains("apt", &ran.stderr, missing)
    });
    report.check("without it the package works on", || {
        lab.host_sh(&format!("rm {SOURCE} {KEY}; rm -f /var/lib/apt/lists/fake.acme.com_*")).ok()?;
        lab.run(&["install"]).ok()?;
        lab.configure("")?;
        ready(lab)?;
        john(lab).map(drop)
    });
    Ok(())
}

/// Installs this version while users log in.
fn moves(lab: &Lab, package: &str, to: &str) -> Check {
    ready(lab)?;
    let (logins, slowest) = while_john_logs_in(lab, || {
        update(lab).ok()?;
        apt(lab, &["--allow-downgrades", "install", package]).ok().map(drop)
    })?;
    println!("         {logins} logins, the slowest {:.2} s", slowest.as_secs_f64());
    equal("version", version(lab)?.as_str(), to)?;
    units(lab, "active", "enabled")
}

/// Reads only the list of this repository, because the host has no way to Debian's.
fn update(lab: &Lab) -> Ran {
    let only = format!("Dir::Etc::SourceList={SOURCE}");
    let rest =
        ["-o", "Dir::Etc::SourceParts=-", "-o", "APT::Get::List-Cleanup=0", "--error-on=any", "update"];
    apt(lab, &[&["-o", only.as_str()][..], &rest].concat())
}

fn apt(lab: &Lab, arguments: &[&str]) -> Ran {
    let keep = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"];
    let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "--no-install-recommends"];
    lab.host("root", &[&apt[..], &keep, arguments].concat(), "")
}

/// A web server that has nothing but the repository.
struct Site<'a> {
    lab: &'a Lab,
    signer: Signer,
    served: TempDir,
    server: Child,
}

impl<'a> Site<'a> {
    fn up(lab: &'a Lab) -> Result<Self, String> {
        lab.run(&["fake", "up"]).ok()?;
        let signer = Signer::new()?;
        let served = tempfile::tempdir().map_err(|e| e.to_string())?;
        let address = lab.run(&["addr", "fake"]).ok()?;
        let serve = format!(
            "exec python3 -m http.server 80 --bind {} --directory {} >/dev/null 2>&1",
            address.trim(),
            served.path().display()
        );
        let server = lab.child(&["fake", "run", "--", "sh", "-c", &serve])?;
        let site = Site { lab, signer, served, server };
        wait(Duration::from_secs(10), || {
            lab.host_sh("curl -fsS -o /dev/null http://fake.acme.com/").ok().map(drop)
        })?;
        Ok(site)
    }

    fn folder(&self) -> PathBuf {
        self.served.path().join("apt")
    }

    fn publish(&self, deb: &Path) -> Check {
        self.signer.publish(&self.folder(), deb)
    }

    /// Writes what an administrator writes.
    fn introduce(&self, lab: &Lab) -> Check {
        let key = fs::read_to_string(self.folder().join("motion-ad.asc")).map_err(|e| e.to_string())?;
        lab.host_sh("mkdir -p /etc/apt/keyrings").ok()?;
        lab.write(KEY, &key)?;
        let suite = lab.host_sh(". /etc/os-release && echo $VERSION_CODENAME").ok()?;
        let uri = "http://fake.acme.com/apt";
        lab.write(
            SOURCE,
            &format!(
                "Types: deb\nURIs: {uri}\nSuites: {}\nComponents: main\nSigned-By: {KEY}\n",
                suite.trim()
            ),
        )
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = self.lab.run(&["fake", "down"]);
    }
}

/// A throw-away key.
struct Signer {
    home: TempDir,
}

impl Signer {
    fn new() -> Result<Self, String> {
        let home = tempfile::tempdir().map_err(|e| e.to_string())?;
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).map_err(|e| e.to_string())?;
        let signer = Signer { home };
        let key = ["--quick-generate-key", "throw-away", "ed25519", "sign", "1d"];
        signer.run(Command::new("gpg").args(["--batch", "--quiet", "--passphrase", ""]).args(key))?;
        Ok(signer)
    }

    fn publish(&self, folder: &Path, deb: &Path) -> Check {
        let script = repository().join("packaging/repository");
        self.run(Command::new(script).arg(folder).arg(deb).env("RELEASE_KEY", "throw-away"))
    }

    fn run(&self, command: &mut Command) -> Check {
        let ran =
            command.env("GNUPGHOME", self.home.path()).output().map_err(|e| format!("{command:?}: {e}"))?;
        let text = String::from_utf8_lossy(&ran.stderr);
        if ran.status.success() { Ok(()) } else { Err(format!("{command:?}: {}\n{text}", ran.status)) }
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // gpg starts an agent that would outlive this program.
        let _ = self.run(Command::new("gpgconf").args(["--kill", "all"]));
    }
}
