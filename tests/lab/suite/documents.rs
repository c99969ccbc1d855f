//! Runs every command of README.md and docs/*.md on the host, from top to bottom as a reader would.
//! `blocks.rs` of `tests/support` explains the annotations of the blocks.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use motion_ad_support::blocks::{Block, blocks, documents};

use crate::cast::everybody;
use crate::lab::{Lab, Ran, repository};
use crate::ready::ready;
use crate::report::{Check, Report, contains};
use crate::watching;

/// Folder of the files that a document assumes.
const HOME: &str = "/root";
/// Path of the block that runs.
const SCRIPT: &str = "/var/tmp/documents-block";
/// Maximum duration of a command in seconds.
const LONGEST: &str = "120";

/// Names in XCALLY: a list, and a CSV file.
const NAMES: &str = "john.doe\njd\nwendy.wrong\n";
const USERS: &str = "id;username\n1;john.doe\n2;nobody.here\n";

/// Files that documents change, and that are restored after each.
const CHANGED: [&str; 5] = [
    "/etc/pam.d/motion",
    "/etc/motion-ad/config.toml",
    "/etc/motion-ad/names.map",
    "/etc/sssd/sssd.conf",
    "/var/opt/motion2/.env",
];
/// Command that removes the files that documents create.
const LEFT: &str = "rm -rf /etc/motion-ad/local.passwd /etc/motion-ad/redis* /etc/motion-ad/config.toml.bak \
    /etc/pam.d/motion-desk /etc/pam.d/motion-italian /etc/pam.d/motion-bridge \
    /var/lib/motion-faillock /root/sssd.conf.before* /root/xcally.env.before* /root/redis* \
    /root/names.txt /root/users.csv /root/*.deb /root/case.tar.gz";
/// Users whose passwords the documents change.
const RESTORED: [&str; 2] = ["john.doe", "max.mustchange"];

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    let root = repository();
    let mut run = 0;
    for document in documents(&root)? {
        let blocks = blocks(&root, &document)?;
        // A document without commands and files changes nothing on the host.
        if !blocks.iter().any(|block| block.language == "sh" || block.file.is_some()) {
            continue;
        }
        report.note(&document);
        let before = before(lab)?;
        for block in &blocks {
            run += usize::from(block.language == "sh" && block.unrun.is_none());
            one(lab, report, block);
        }
        after(lab, &before)?;
    }
    report.check(&format!("{run} blocks of commands were run"), || {
        if run > 20 { Ok(()) } else { Err("that cannot be all".to_owned()) }
    });
    Ok(())
}

fn one(lab: &Lab, report: &mut Report, block: &Block) {
    let first = block.text.lines().next().unwrap_or_default();
    let name = format!("{}: {first:.60}", block.place);
    match (block.language.as_str(), &block.file, &block.unrun) {
        (_, Some(file), _) => report.check(&name, || write(lab, file, block)),
        ("sh", None, Some(reason)) => report.note(&format!("{}: not run: {reason}", block.place)),
        ("sh", None, None) => report.check(&name, || commands(lab, block)),
        _ => {}
    }
}

/// Prepares the state that every document assumes: a joined host, the package, its configuration, and the
/// mentioned files.
fn before(lab: &Lab) -> Result<Vec<(&'static str, String)>, String> {
    lab.run(&["cast", "reset"]).ok()?;
    lab.write(&format!("{HOME}/names.txt"), NAMES)?;
    lab.write(&format!("{HOME}/users.csv"), USERS)?;
    let package = lab.package()?;
    let name = package.file_name().ok_or("the package has no name")?;
    copy(&package, &lab.path(HOME).join(name))?;
    let read = |path: &'static str| {
        let text = fs::read_to_string(lab.path(path)).map_err(|e| format!("{path}: {e}"))?;
        Ok::<_, String>((path, text))
    };
    CHANGED.into_iter().map(read).collect()
}

fn after(lab: &Lab, before: &[(&'static str, String)]) -> Check {
    lab.run(&["join"]).ok()?;
    if !lab.path("/usr/libexec/motion-ad/motion-ad-broker").exists() {
        lab.run(&["install", &lab.package()?.display().to_string()]).ok()?;
    }
    for (path, text) in before {
        if fs::read_to_string(lab.path(path)).ok().as_ref() != Some(text) {
            lab.write(path, text)?;
            if path.contains("sssd") {
                // The documents may have reached systemd's limit of restarts.
                lab.host_sh("systemctl reset-failed sssd; systemctl restart sssd").ok()?;
            }
        }
    }
    lab.run(&["redis", "down"]).ok()?;
    watching::no_agent(lab);
    for sam in RESTORED {
        lab.run(&["cast", "restore", sam]).ok()?;
    }
    lab.host_sh(&format!("{LEFT}; rm -f {SCRIPT}; systemctl start motion-ad.socket")).ok()?;
    lab.configure("")?;
    ready(lab)
}

fn copy(from: &Path, to: &Path) -> Check {
    fs::copy(from, to).map(drop).map_err(|e| format!("{}: {e}", to.display()))
}

/// Prepares the state that a block names.
fn prepare(lab: &Lab, state: &str) -> Check {
    match state {
        "left" => lab.run(&["leave"]).ok().map(drop),
        "ready" => ready(lab),
        "prometheus" => watching::agent(lab),
        "redis" => {
            let printed = lab.run(&["redis", "up", "--tls"]).ok()?;
            let [_, password, ca] = printed.lines().collect::<Vec<_>>()[..] else {
                return Err(format!("lab redis up said {printed:?}"));
            };
            copy(Path::new(password), &lab.path(&format!("{HOME}/redis.password")))?;
            copy(Path::new(ca), &lab.path(&format!("{HOME}/redis-ca.pem")))
        }
        _ => Err(format!("nobody knows the state {state}")),
    }
}

fn write(lab: &Lab, file: &str, block: &Block) -> Check {
    match block.language.as_str() {
        // The configuration must keep the lab's own CA.
        "toml" => lab.configure(&block.text).and_then(|()| ready(lab)),
        _ => lab.write(file, &block.text),
    }
}

fn commands(lab: &Lab, block: &Block) -> Check {
    if !block.host {
        return Err(
            "it says neither where it is run nor why it is not: `sh host` or `sh unrun=\"…\"`".to_owned()
        );
    }
    if let Some(state) = &block.state {
        prepare(lab, state)?;
    }
    let codes = if block.exit.is_empty() { vec![0] } else { block.exit.clone() };
    let allowed: Vec<_> = codes.iter().map(ToString::to_string).collect();
    let script = format!(
        "cd; set -u -o pipefail\n\
         trap 'code=$?; case \" {} \" in *\" $code \"*) ;; *) echo \"exit code $code: $BASH_COMMAND\" >&2; \
         exit 99 ;; esac' ERR\n{}",
        allowed.join(" "),
        block.text
    );
    lab.write(SCRIPT, &script)?;
    let user = block.user.as_deref().unwrap_or("root");
    let lines: Vec<_> = block.typed.iter().map(|word| typed(word)).collect();
    let ran = match block.tty {
        true => on_a_terminal(lab, user, &lines)?,
        false => {
            let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
            lab.host(user, &["timeout", LONGEST, "bash", SCRIPT], &input)
        }
    };
    let said = ran.stdout + &ran.stderr;
    if !codes.contains(&ran.code) {
        return Err(format!("exit code {}, expected {codes:?}\n{said}", ran.code));
    }
    block.says.as_deref().map_or(Ok(()), |text| contains("it", &said, text))
}

/// Returns the text of a typed line: the password of the user with this key, or the word itself.
fn typed(word: &str) -> String {
    let person = everybody().into_iter().find(|person| person.key == word);
    person.map_or(word, |person| person.password).to_owned()
}

/// Types each line at a password prompt, because a program may discard text that was typed before.
fn on_a_terminal(lab: &Lab, user: &str, lines: &[String]) -> Result<Ran, String> {
    let command = format!("bash {SCRIPT}");
    let script = ["script", "--quiet", "--return", "--command", &command, "/dev/null"];
    let mut child = lab.host_child(user, &[&["timeout", "--foreground", LONGEST], &script[..]].concat())?;
    let (mut stdin, mut stdout) =
        (child.stdin.take().ok_or("no standard input")?, child.stdout.take().ok_or("no standard output")?);
    let (mut text, mut lines, mut buffer) = (String::new(), lines.iter(), [0; 4096]);
    loop {
        let length = stdout.read(&mut buffer).map_err(|e| e.to_string())?;
        if length == 0 {
            break;
        }
        text += &String::from_utf8_lossy(&buffer[..length]);
        let last = text.rsplit('\n').next().unwrap_or_default();
        if last.contains("assword")
            && last.ends_with(": ")
            && let Some(line) = lines.next()
        {
            writeln!(stdin, "{line}").map_err(|e| e.to_string())?;
            // The next prompt is on a new line.
            text += "\n";
        }
    }
    drop(stdin);
    let code = child.wait().map_err(|e| e.to_string())?.code().unwrap_or(-1);
    match lines.next() {
        Some(_) => Err(format!("not everything was asked for:\n{text}")),
        None => Ok(Ran { code, stdout: text, stderr: String::new() }),
    }
}
