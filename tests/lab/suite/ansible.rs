//! The Ansible role of `packaging/ansible`, run on the host itself.

use std::fs;
use std::process::Command;

use crate::lab::{Lab, Ran, repository};
use crate::ready::ready;
use crate::report::{Check, Report, contains, equal};

/// Where the host has the role and its playbook.
const FOLDER: &str = "/root/ansible";
const CONFIG: &str = "/etc/motion-ad/config.toml";
const ENV: &str = "/var/opt/motion2/.env";
/// An application's `.env` with an administrator of AD.
const BEFORE: &str = "# XCALLY\nXC_ACTIVEDIRECTORY_URL=ldap://ad.acme.com\n\
    XC_ACTIVEDIRECTORY_BASE_DN=DC=acme,DC=com\n\
    XC_ACTIVEDIRECTORY_ADMIN=Administrator@acme.com\nXC_ACTIVEDIRECTORY_PASSWORD=of-an-administrator\n\
    XC_ACTIVEDIRECTORY_DOMAIN=acme.com\n";

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    ready(lab)?;
    let deb = lab.package()?;
    let name = deb.file_name().unwrap_or_default().to_string_lossy().into_owned();
    copy(lab)?;
    fs::copy(&deb, lab.path(&format!("{FOLDER}/{name}"))).map_err(|e| e.to_string())?;
    let ca = lab.run(&["ca"]).ok()?;
    fs::copy(ca.trim(), lab.path(&format!("{FOLDER}/ca.pem"))).map_err(|e| e.to_string())?;
    let read = || fs::read_to_string(lab.path(CONFIG)).map_err(|e| e.to_string());
    let config = read()?;
    let package = format!("\"motion_ad_deb\": \"{name}\"");
    let text = |config: &str| serde_json::Value::from(config).to_string();
    let all = format!(
        "{package}, \"motion_ad_ca_file\": \"ca.pem\", \"motion_ad_config\": {}, \
            \"motion_ad_check_users\": [\"john.doe\"]",
        text(&config)
    );
    report.check("ansible-lint finds nothing", || {
        let lint = "HOME=/root ansible-lint --nocolor --offline motion_ad playbook.yml 2>&1";
        let ran = lab.host_sh(&format!("cd {FOLDER} && {lint}"));
        contains("ansible-lint", &ran.stdout, "0 failure(s), 0 warning(s)")
    });
    report.check("a host without the package: it is installed and configured, and users log in", || {
        lab.run(&["purge"]).ok()?;
        played(&play(lab, &all, &[]).ok()?, true)?;
        equal(CONFIG, read()?, config.clone())?;
        ready(lab)
    });
    report.check("once more: nothing changes", || played(&play(lab, &all, &[]).ok()?, false));
    report.check("check mode says what would change, and changes nothing", || {
        let other =
            format!("{package}, \"motion_ad_config\": {}", text(&format!("{config}# another line\n")));
        let said = play(lab, &other, &["--check", "--diff"]).ok()?;
        contains("the difference", &said, "+# another line")?;
        played(&said, true)?;
        equal(CONFIG, read()?, config.clone())
    });
    report.check("a configuration that the broker cannot use is not written", || {
        let broken =
            format!("{package}, \"motion_ad_config\": {}", text("[login]\nmethod = \"telepathy\"\n"));
        let ran = play(lab, &broken, &[]);
        equal("the play succeeds", ran.code == 0, false)?;
        contains("the play", &ran.stdout, "telepathy")?;
        equal(CONFIG, read()?, config.clone())?;
        ready(lab)
    });
    report.check("a host that is not joined gets no package, and the play says what to do", || {
        let ran = play(lab, &format!("{package}, \"motion_ad_keytab\": \"/nowhere\""), &[]);
        equal("the play succeeds", ran.code == 0, false)?;
        contains("the play", &ran.stdout, "There is no /nowhere: join the host to its domain first")
    });
    report.check("a user who may not log in ends the play", || {
        let ran = play(lab, &format!("{package}, \"motion_ad_check_users\": [\"dora.disabled\"]"), &[]);
        equal("the play succeeds", ran.code == 0, false)
    });
    report.check("the bridge, twice, and back: .env is as it was", || bridge(lab, &package));
    lab.host_sh(&format!(
        "rm -rf {FOLDER} {ENV} /root/.ansible /root/.cache/ansible* /root/{name}; rm -f {CONFIG}.*~"
    ))
    .ok()?;
    lab.configure("")?;
    ready(lab)
}

/// Enables and disables the bridge. XCALLY's `.env` belongs to its user.
fn bridge(lab: &Lab, package: &str) -> Check {
    lab.write(ENV, BEFORE)?;
    lab.host_sh(&format!("chown motion:motion {ENV} && chmod 600 {ENV}")).ok()?;
    let with = |state: &str| format!("{package}, \"motion_ad_bridge\": \"{state}\"");
    let read = || fs::read_to_string(lab.path(ENV)).map_err(|e| e.to_string());
    let said = play(lab, &with("enabled"), &["--diff"]).ok()?;
    played(&said, true)?;
    equal("the administrator's password is shown", said.contains("of-an-administrator"), false)?;
    contains(ENV, &read()?, "XC_ACTIVEDIRECTORY_URL='ldap://127.0.0.1:3890'")?;
    lab.host_sh("systemctl is-active motion-ad-ldap.socket").ok()?;
    played(&play(lab, &with("enabled"), &[]).ok()?, false)?;
    played(&play(lab, &with("disabled"), &[]).ok()?, true)?;
    equal(ENV, read()?.as_str(), BEFORE)?;
    equal("mode and owner", lab.host_sh(&format!("stat -c %a:%U {ENV}")).ok()?.trim(), "600:motion")?;
    equal("the socket is active", lab.host_sh("systemctl is-active motion-ad-ldap.socket").code == 0, false)?;
    played(&play(lab, &with("disabled"), &[]).ok()?, false)
}

/// Copies the role to the host.
fn copy(lab: &Lab) -> Check {
    let role = repository().join("packaging/ansible");
    let to = lab.path(FOLDER);
    let done = Command::new("cp").arg("-rT").arg(&role).arg(&to).status().map_err(|e| e.to_string())?;
    equal("cp succeeds", done.success(), true)
}

/// Plays the role with these variables (JSON without its braces).
fn play(lab: &Lab, variables: &str, more: &[&str]) -> Ran {
    let book = "[{\"hosts\": \"all\", \"roles\": [\"motion_ad\"]}]";
    let path = format!("{FOLDER}/lab.yml");
    if let Err(error) = lab.write(&path, book) {
        return Ran { code: -1, stdout: String::new(), stderr: error };
    }
    let extra = format!("{{{variables}}}");
    let command = [
        "env",
        "HOME=/root",
        "LC_ALL=C.UTF-8",
        "ANSIBLE_NOCOLOR=1",
        &format!("ANSIBLE_ROLES_PATH={FOLDER}"),
        "ansible-playbook",
        "--inventory=localhost,",
        "--connection=local",
        "--extra-vars",
        &extra,
        &path,
    ];
    lab.host("root", &[&command[..], more].concat(), "")
}

/// Checks that a play succeeded, and whether it changed anything.
fn played(said: &str, changed: bool) -> Check {
    contains("the play", said, "failed=0")?;
    equal("nothing has changed", said.contains("changed=0 "), !changed).map_err(|e| format!("{e}\n{said}"))
}
