//! Every command that the doctor prints for the administrator. `fix.rs` has those of `doctor --fix`.
//!
//! A check cannot print a command that is not in this table. The tests at the end check all of it: no command
//! changes a file that another program owns, and none removes a rule.

use serde::Serialize;

/// The place where the administrator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On this host, as root.
    Here,
    /// On a domain controller that runs Windows, in PowerShell as a domain administrator.
    Windows,
    /// On a domain controller that runs Samba, as root.
    Samba,
    /// On the host of the Redis server.
    Redis,
    /// In the network between this host and another one.
    Network,
    /// In Active Directory, by its own tools.
    Directory,
    /// By the user.
    User,
}

/// Purpose of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fixes the cause.
    Step,
    /// Only shows something.
    Look,
}

/// A command for the administrator.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// The place to run it.
    pub place: Place,
    /// Its purpose.
    pub kind: Kind,
    /// Shell text. `{}` stands for one parameter, which is quoted; `{2}` for its part after a line feed.
    template: &'static str,
}

impl Command {
    /// Returns the command with its parameter.
    pub fn with(&self, parameter: &str) -> String {
        let (first, second) = parameter.split_once('\n').unwrap_or((parameter, ""));
        // `{2}` first, because a parameter may itself contain a placeholder.
        let (head, tail) = self.template.split_once("{2}").unwrap_or((self.template, ""));
        let second = if head.len() < self.template.len() { quote(second) } else { String::new() };
        format!("{}{second}{}", head.replace("{}", &quote(first)), tail.replace("{}", &quote(first)))
    }
}

/// Defines each command, and the list of all of them.
macro_rules! commands {
    ($($(#[$text:meta])* $name:ident: $kind:ident, $place:ident, $template:literal;)*) => {
        $($(#[$text])* pub(crate) static $name: Command =
            Command { place: Place::$place, kind: Kind::$kind, template: $template };)*
        /// All commands.
        /// Quotes `text` as one word of a shell.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
        pub(super) static ALL: &[&Command] = &[$(&$name),*];
    };
}

commands! {
    /// Runs the doctor as root, which sees more than a user.
    AS_ROOT: Look, Here, "sudo motion-ad doctor";
    /// Reinstalls the package, in the folder of its file.
    REINSTALL: Step, Here, "apt-get install -y --reinstall ./libpam-motion-ad_*.deb";
    /// Shows the units with the administrator's own settings.
    SHOW_UNIT: Look, Here, "systemctl cat motion-ad.socket motion-ad.service";
    /// Shows the broker's log.
    SHOW_LOG: Look, Here, "journalctl -u motion-ad.service -n 20";
    /// Shows the broker's state.
    SHOW_STATUS: Look, Here, "motion-ad status";
    /// Shows what AppArmor and SELinux denied.
    SHOW_DENIALS: Look, Here, "journalctl -k --since=-1d -g '(apparmor=\"DENIED\"|avc: +denied).*motion-ad'";
    /// Shows a PAM service.
    SHOW_SERVICE: Look, Here, "cat {}";
    /// Makes XCALLY's `.env` name the LDAP bridge, with this host's secret; prompts before.
    SETUP_BRIDGE: Step, Here, "motion-ad setup --bridge --apply";
    /// Enables the LDAP bridge.
    ENABLE_BRIDGE: Step, Here, "systemctl enable --now motion-ad-ldap.socket";
    /// Shows the log of the LDAP bridge.
    SHOW_BRIDGE: Look, Here, "journalctl -u motion-ad-ldap.service -n 20";
    /// Restarts an application, which then loads the current module.
    RESTART_APPLICATION: Step, Here, "systemctl restart {}";

    /// Joins the domain for the first time.
    REALM_JOIN: Step, Here, "realm join -v -U Administrator {}";
    /// Gives the computer account a new password and this host its keys; prompts for an administrator.
    ADCLI_JOIN: Step, Here, "adcli join --login-user=Administrator --domain={}";
    /// The same with keys in a keytab of another name.
    ADCLI_JOIN_ELSEWHERE: Step, Here, "adcli join --login-user=Administrator --domain={} --host-keytab={2}";
    /// Gives the computer account a new password, authenticated by the machine's own.
    ADCLI_UPDATE: Step, Here, "adcli update --computer-password-lifetime=0 --domain={}";
    /// The same with keys in a keytab of another name.
    ADCLI_UPDATE_ELSEWHERE: Step, Here,
        "adcli update --computer-password-lifetime=0 --domain={} --host-keytab={2}";
    /// Restricts the machine's keytab to root.
    KEYTAB_MODE: Step, Here, "chown root:root {} && chmod 0600 {}";
    /// Sets the clock with chrony.
    CHRONY: Step, Here, "systemctl restart chrony.service && chronyc makestep";
    /// Sets the clock with systemd-timesyncd.
    TIMESYNCD: Step, Here,
        "systemctl enable systemd-timesyncd.service && systemctl restart systemd-timesyncd.service";
    /// Sets the clock with ntpsec.
    NTPSEC: Step, Here, "systemctl restart ntpsec.service";
    /// Sets the clock with ntp.
    NTP: Step, Here, "systemctl restart ntp.service";
    /// Shows the DNS servers that this host uses.
    SHOW_DNS: Look, Here, "cat /etc/resolv.conf";
    /// Shows the route to a host.
    SHOW_WAY: Look, Here, "ip route get {}";

    /// Registers a Windows domain controller in DNS.
    REGISTER_WINDOWS: Step, Windows, "nltest /dsregdns";
    /// Registers a Samba domain controller in DNS.
    REGISTER_SAMBA: Step, Samba, "samba_dnsupdate --use-samba-tool";
    /// Registers a domain controller's addresses in DNS.
    ADDRESSES_WINDOWS: Step, Windows, "ipconfig /registerdns";
    /// Shows the hosts that DNS names as domain controllers.
    RECORDS_WINDOWS: Look, Windows, "Get-DnsServerResourceRecord -ZoneName {} -Name _ldap._tcp.dc -RRType \
                                     Srv";
    /// The same on Samba.
    RECORDS_SAMBA: Look, Samba, "samba-tool dns query localhost {} _ldap._tcp.dc SRV -P";
    /// Shows the firewall rules of a domain controller.
    FIREWALL_WINDOWS: Look, Windows,
        "Get-NetFirewallRule -DisplayGroup 'Active Directory Domain Services' | Format-Table DisplayName, \
         Enabled, Action";
    /// Shows the listening programs on a domain controller's ports.
    PORTS_SAMBA: Look, Samba, "ss -ltnp";
    /// Shows the state of the replication between domain controllers.
    REPLICATION_WINDOWS: Look, Windows, "repadmin /replsummary";
    /// The same on Samba.
    REPLICATION_SAMBA: Look, Samba, "samba-tool drs showrepl";
    /// Requests a certificate from the enterprise certificate authority.
    CERTIFICATE_WINDOWS: Step, Windows, "certutil -pulse; Restart-Service kdc";
    /// Shows the files of a Samba domain controller's certificate.
    CERTIFICATE_SAMBA: Look, Samba, "testparm -sv 2>&1 | grep -i 'tls .*file'";
    /// Sets a domain controller's clock.
    CLOCK_WINDOWS: Step, Windows, "w32tm /resync /rediscover";
    /// The same on Samba.
    CLOCK_SAMBA: Step, Samba, "systemctl restart chrony.service && chronyc makestep";
    /// Enables the computer account.
    ENABLE_WINDOWS: Step, Windows, "Enable-ADAccount -Identity {}";
    /// The same on Samba.
    ENABLE_SAMBA: Step, Samba, "samba-tool user enable {}";
    /// Shows the service principal names of a domain controller.
    SPN_WINDOWS: Look, Windows, "setspn -L {}";
    /// Registers the service principal names of a Samba domain controller.
    SPN_SAMBA: Step, Samba, "samba_spnupdate";
    /// Shows a domain controller's log.
    LOG_WINDOWS: Look, Windows, "Get-WinEvent -LogName 'Directory Service' -MaxEvents 20";
    /// The same on Samba.
    LOG_SAMBA: Look, Samba, "journalctl -u samba-ad-dc.service -n 50";
    /// Shows a group.
    GROUP_WINDOWS: Look, Windows, "Get-ADGroup -Identity {}";
    /// The same on Samba.
    GROUP_SAMBA: Look, Samba, "samba-tool group show {}";

    /// Allows the domain's computers to read logonHours and userWorkstations (the property set User-Logon).
    READ_WINDOWS: Step, Windows, "dsacls {} /I:S /G {2}";
    /// The same on Samba. DC is SDDL for Domain Computers; the GUIDs are those of User-Logon and of users.
    READ_SAMBA: Step, Samba, "samba-tool dsacl set --objectdn={} \
        --sddl='(OA;CIIO;RP;5f202010-79a5-11d0-9020-00c04fc2d4cf;bf967aba-0de6-11d0-a285-00aa003049e2;DC)'";

    /// Shows whether the Redis answers.
    SHOW_REDIS: Look, Redis, "redis-cli ping";
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::fix::{BOTH, OwnPath, Run, Unit, Verb};
    use super::*;

    /// The foreign file that a command may show. The keytab is a parameter, in the join's own commands.
    const NAMED: &str = "/etc/resolv.conf";
    /// Programs that only show something.
    const SHOWING: [&str; 17] = [
        "Get-DnsServerResourceRecord",
        "cat",
        "ip",
        "journalctl",
        "motion-ad",
        "sudo",
        "ss",
        "testparm",
        "grep",
        "repadmin",
        "setspn",
        "redis-cli",
        "Get-NetFirewallRule",
        "Format-Table",
        "Get-WinEvent",
        "Get-ADGroup",
        "samba-tool",
    ];
    /// Words of commands that widen access, remove a rule, or create something in AD.
    const FORBIDDEN: [&str; 21] = [
        "sed",
        "perl",
        "awk",
        "tee",
        "mv",
        "cp",
        "rm",
        "ln",
        "touch",
        "truncate",
        "printf",
        "echo",
        "install",
        "dd",
        "useradd",
        "usermod",
        "revert",
        "create-group",
        "New-ADGroup",
        "remove",
        "purge",
    ];

    /// Returns every printable command with its purpose.
    fn printed() -> Vec<(Kind, String)> {
        let person = ALL.iter().map(|command| (command.kind, command.with("x; rm -rf /etc/pam.d #'\n$(id)")));
        let path = || OwnPath::new(Path::new("/etc/motion-ad/ca.pem")).unwrap();
        let verbs = [Verb::Start, Verb::Restart, Verb::Enable, Verb::EnableNow, Verb::Unmask];
        let units: [&'static [Unit]; 3] = [BOTH, &[Unit::Socket], &[Unit::Service]];
        let mut runs: Vec<_> =
            verbs.iter().flat_map(|verb| units.map(|units| Run::Units(*verb, units))).collect();
        runs.extend([
            Run::MakeUser,
            Run::Access { path: path(), owner: Some("root:motion-ad".into()), mode: 0o640 },
            Run::ReplaceSocket(path()),
        ]);
        // A new kind of `Run` does not compile here until it is listed.
        for run in &runs {
            match run {
                Run::Units(..) | Run::MakeUser | Run::Access { .. } | Run::ReplaceSocket(_) => {}
            }
        }
        person.chain(runs.iter().map(|run| (Kind::Step, run.shown()))).collect()
    }

    /// Splits a command into words; quoted text is part of one word.
    fn words(command: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let (mut quoted, mut characters) = (false, command.chars());
        while let Some(c) = characters.next() {
            match c {
                '\'' => quoted = !quoted,
                // Only `quote` writes a backslash, before a quote.
                '\\' if !quoted => words.last_mut().unwrap().extend(characters.next()),
                c if c.is_whitespace() && !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        assert!(!quoted, "{command}");
        words.retain(|word| !word.is_empty());
        words
    }

    fn is_allowed(kind: Kind, path: &str) -> bool {
        let ours = OwnPath::new(Path::new(path)).is_some();
        ours || (NAMED == path && kind == Kind::Look)
    }

    #[test]
    fn no_command_touches_what_is_not_ours_or_takes_a_rule_away() {
        for (kind, command) in printed() {
            for word in words(&command) {
                // A malicious parameter stays one word.
                if word.contains("rm -rf") {
                    continue;
                }
                let path = word.rsplit('=').next().unwrap_or_default();
                let is_option =
                    ["/I:S", "/G", "/dsregdns", "/registerdns", "/replsummary", "/resync", "/rediscover"];
                assert!(
                    !path.starts_with('/') || is_option.contains(&path) || is_allowed(kind, path),
                    "{command}"
                );
                assert!(!word.starts_with('>') && !word.contains(">>"), "{command}");
                let is_socket = command.starts_with("rm -f /etc/motion-ad/ca.pem ");
                assert!(!FORBIDDEN.contains(&word.as_str()) || is_socket || word == "install", "{command}");
            }
            let installs = command.contains(" install ");
            assert!(
                !installs || command == "apt-get install -y --reinstall ./libpam-motion-ad_*.deb",
                "{command}"
            );
        }
    }

    #[test]
    fn what_is_called_a_look_only_shows_something() {
        for command in ALL.iter().filter(|command| command.kind == Kind::Look) {
            let text = command.with("x");
            for simple in text.split(" | ") {
                let program = simple.split_whitespace().next().unwrap();
                let is_cat = simple.starts_with("systemctl cat ");
                assert!(SHOWING.contains(&program) || is_cat, "{text}");
            }
            assert!(
                !text.contains("samba-tool user") && !text.contains("&&") && !text.contains(';'),
                "{text}"
            );
        }
    }

    #[test]
    fn a_parameter_is_one_word() {
        assert_eq!(ADCLI_JOIN.with("a b"), "adcli join --login-user=Administrator --domain='a b'");
        assert_eq!(
            ADCLI_UPDATE_ELSEWHERE.with("a.b\n/etc/a b.keytab"),
            "adcli update --computer-password-lifetime=0 --domain=a.b --host-keytab='/etc/a b.keytab'"
        );
        assert_eq!(KEYTAB_MODE.with("/a b"), "chown root:root '/a b' && chmod 0600 '/a b'");
        assert_eq!(words(&SHOW_WAY.with("it's; reboot")), ["ip", "route", "get", "it's; reboot"]);
    }

    /// A command outside this table and `fix.rs` would escape the tests above.
    #[test]
    fn no_other_file_of_the_doctor_writes_a_command() {
        const MARKS: [&str; 21] = [
            "sed -",
            "printf '",
            " >/",
            ">>/",
            "rm -",
            "chmod ",
            "chown ",
            "mv ",
            "cp -",
            "touch ",
            "systemctl re",
            "systemctl st",
            "systemctl en",
            "systemctl un",
            "systemctl dis",
            "adcli join",
            "adcli update",
            "apt-get ",
            "samba-tool ",
            "useradd ",
            "tee ",
        ];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/doctor");
        let mut files = vec![folder];
        let mut seen = 0;
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            if ["commands.rs", "fix.rs"].iter().any(|name| path.ends_with(name)) {
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for text in line.split('"').skip(1).step_by(2) {
                    let mark = MARKS.iter().find(|mark| text.contains(**mark));
                    assert_eq!(mark, None, "{}: {line}", path.display());
                }
            }
            seen += 1;
        }
        assert!(seen > 15, "{seen}");
    }

    #[test]
    fn a_word_stays_one_word_for_a_shell() {
        for (text, word) in [
            ("/etc/krb5.keytab", "/etc/krb5.keytab"),
            ("XCALLY Agents", "'XCALLY Agents'"),
            ("it's", r"'it'\''s'"),
            ("$(reboot)", "'$(reboot)'"),
            ("XCALLY$", "'XCALLY$'"),
            ("", "''"),
        ] {
            assert_eq!(quote(text), word);
        }
    }
}
