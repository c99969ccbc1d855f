//! The results of the realm join on this host: `sssd.conf`, `krb5.conf` and the keytab.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tokio::task::spawn_blocking;

use super::commands;
use super::commands::{Command, Place};
use super::edit::Edit;
use super::facts::Facts;
use super::finding::Finding;
use crate::config::{ConfigError, Join, JoinError, KEYTAB, Problem};
use crate::kerberos::KerberosError;
use crate::kerberos::krb5::{Keytab, default_realm};
use crate::name::fold;

const KRB5_CONF: &str = "/etc/krb5.conf";
/// Commands that join again: with the usual keytab, and with another one.
pub(super) const JOIN_AGAIN: [&Command; 2] = [&commands::ADCLI_JOIN, &commands::ADCLI_JOIN_ELSEWHERE];
/// The same for those that renew the keys.
const RENEW_KEYS: [&Command; 2] = [&commands::ADCLI_UPDATE, &commands::ADCLI_UPDATE_ELSEWHERE];

/// Encryption types by their number (RFC 3961, 8; RFC 3962; RFC 8009; RFC 4757).
const ENCRYPTION: &[(i32, &str)] = &[
    (1, "DES-CRC"),
    (3, "DES-MD5"),
    (16, "3DES"),
    (17, "AES-128"),
    (18, "AES-256"),
    (19, "AES-128-SHA-2"),
    (20, "AES-256-SHA-2"),
    (23, "RC4"),
];
/// Encryption types that are still secure.
const GOOD: [i32; 4] = [17, 18, 19, 20];

pub(super) async fn joined(facts: &Facts) -> Finding {
    let path = facts.options().sssd.clone();
    let shown = path.display().to_string();
    let read = spawn_blocking(move || Join::load(&path, None)).await;
    let named = facts.settings().await.error.is_none();
    match read {
        Ok(Ok(Join { domain: Some(domain), servers, .. })) => {
            let servers = if servers.is_empty() {
                String::new()
            } else {
                format!(", ad_server {}", servers.join(", "))
            };
            Finding::ok(format!("joined to {domain}{servers}"))
        }
        // Then the broker needs nothing from sssd.conf.
        Ok(Ok(_)) if named => Finding::ok(format!("{shown} names no AD domain, config.toml does")),
        Ok(Ok(_)) => not_named(facts, &shown).await,
        Ok(Err(JoinError::Denied(_))) => match facts.config().await {
            Some(config) => {
                Finding::ok(format!("only root may read {shown}; the domain is {}", config.domain.name))
            }
            None => Finding::skipped(format!("needs root: {shown}")),
        },
        Ok(Err(JoinError::Broken(problem))) => broken(&problem),
        Err(e) => Finding::skipped(e.to_string()),
    }
}

/// Reports that neither sssd.conf nor config.toml names the domain. If the keytab does, only that name is
/// missing from config.toml.
async fn not_named(facts: &Facts, shown: &str) -> Finding {
    let what = match facts.options().sssd.exists() {
        true => format!("{shown} names no AD domain"),
        false => format!("{shown} is missing"),
    };
    let host = nix::unistd::gethostname().unwrap_or_default();
    let keytab = facts.keytab().await.as_ref().ok();
    let machine = keytab.and_then(|keytab| keytab.machine(None, &host.to_string_lossy()));
    let Some((machine, realm)) =
        machine.and_then(|machine| machine.rsplit_once('@')).filter(|(name, _)| name.ends_with('$'))
    else {
        return Finding::failure(format!("{what}: this host is not joined"))
            .command(&commands::REALM_JOIN, &facts.domain().await);
    };
    let domain = realm.to_lowercase();
    let finding = Finding::failure(format!(
        "{what}, but the keytab has the key of {machine} in {realm}: this host is joined, and only \
         domain.name is missing from config.toml"
    ));
    let options = facts.options();
    let text = fs::read_to_string(&options.config).unwrap_or_default();
    let finding = match Edit::domain(&options.config, &text, &domain, &options.sssd) {
        Some(edit) => finding.edit(edit),
        None => finding.advise(Place::Here, format!("set domain.name to {domain} in config.toml")),
    };
    finding.advise(
        Place::Here,
        format!("if SSSD is still needed here, for instance for ssh, restore {shown} from a backup"),
    )
}

fn broken(problem: &Problem) -> Finding {
    Finding::failure(problem.to_string()).advise(
        Place::Here,
        format!(
            "keep a copy of {} and correct the line; sssd.conf(5) says what it may hold",
            problem.file.display()
        ),
    )
}

/// Advice on krb5.conf, which belongs to every program that uses Kerberos.
fn krb5_advice(what: &str) -> String {
    format!("keep a copy of {KRB5_CONF}, and {what}")
}

pub(super) async fn krb5_conf(facts: &Facts) -> Finding {
    let names =
        |domain: &str| format!("set default_realm = {} in its section [libdefaults]", domain.to_uppercase());
    match fs::metadata(facts.path(KRB5_CONF)) {
        Ok(found) if found.mode() & 0o004 == 0 => {
            let mode = found.mode() & 0o777;
            return Finding::failure(format!("{KRB5_CONF} has mode {mode:04o}: the broker may not read it"))
                .advise(Place::Here, "give it the mode 0644 that Debian has: it holds no secret");
        }
        Ok(_) => {}
        // libkrb5 works without it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let domain = facts.domain().await.to_uppercase();
            return Finding::warning(format!("{KRB5_CONF} is missing")).advise(
                Place::Here,
                format!("restore it from a backup; default_realm = {domain} in [libdefaults] is enough"),
            );
        }
        Err(e) => return Finding::failure(format!("{KRB5_CONF}: {e}")),
    }
    let realm = match spawn_blocking(default_realm).await {
        Ok(Ok(realm)) => realm,
        Ok(Err(e)) => {
            return Finding::failure(format!("{KRB5_CONF}: {e}"))
                .advise(Place::Here, krb5_advice(&names(&facts.domain().await)));
        }
        Err(e) => return Finding::skipped(e.to_string()),
    };
    match facts.config().await {
        Some(config) if config.domain.realm != realm => Finding::warning(format!(
            "the default realm of {KRB5_CONF} is {realm}, the domain's is {}",
            config.domain.realm
        ))
        .advise(Place::Here, krb5_advice(&names(&config.domain.realm))),
        _ => Finding::ok(format!("the default realm is {realm}")),
    }
}

/// The computer account of `realm` in the keytab, as the broker chooses it: its name ends in `$`.
pub(super) fn machine_of<'a>(keytab: &'a Keytab, realm: &str) -> Option<&'a str> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let chosen = keytab.machine(Some(realm), &host.to_string_lossy());
    chosen.filter(|name| name.rsplit_once('@').is_some_and(|(name, _)| name.ends_with('$')))
}

/// The versions of the machine's keys, newest first.
pub(super) fn versions(keytab: &Keytab, principal: &str) -> Vec<u32> {
    let own = keytab.entries.iter().filter(|entry| entry.principal == principal);
    let mut versions: Vec<_> = own.map(|entry| entry.version).collect();
    versions.sort_unstable();
    versions.dedup();
    versions.reverse();
    versions
}

/// Adds a command of adcli that writes the machine's keys to `keytab`: in any other file, they are of no use
/// to the broker, and those that it has would become worthless.
pub(super) fn with_adcli(
    finding: Finding,
    [usual, elsewhere]: [&'static Command; 2],
    domain: &str,
    keytab: &Path,
) -> Finding {
    match keytab == Path::new(KEYTAB) {
        true => finding.command(usual, domain),
        false => finding.command(elsewhere, &format!("{domain}\n{}", keytab.display())),
    }
}

/// Returns true if this user may not read the sssd.conf that may name another keytab than the usual one.
fn is_sssd_denied(facts: &Facts) -> bool {
    matches!(Join::load(&facts.options().sssd, None), Err(JoinError::Denied(_)))
}

pub(super) async fn keytab(facts: &Facts) -> Finding {
    let (domain, path) = (facts.domain().await, facts.keytab_file());
    let joining = |finding| with_adcli(finding, JOIN_AGAIN, &domain, &path);
    let keytab = match facts.keytab().await {
        Ok(keytab) => keytab,
        Err(KerberosError::KeytabUnreadable { .. }) if !facts.is_root() => {
            return Finding::skipped("needs root");
        }
        Err(_) if is_sssd_denied(facts) => return Finding::skipped("needs root: sssd.conf"),
        Err(e) => return joining(Finding::failure(e.to_string())),
    };
    let Some(machine) = machine_of(keytab, &domain) else {
        return joining(Finding::failure(format!("{} holds no key of a computer account", keytab.name)));
    };
    let realm = machine.rsplit_once('@').map(|(_, realm)| realm).unwrap_or_default();
    if let Some(config) = facts.config().await
        && fold(realm) != fold(&config.domain.realm)
    {
        let seen = format!("{} is of another realm than {}", machine, config.domain.realm);
        return joining(Finding::failure(seen));
    }
    let name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(joined) = joined_as(keytab, &name) {
        return Finding::warning(format!("this host is called {name}, and was joined as {joined}")).advise(
            Place::Here,
            format!(
                "give it the name {joined} again, or join it under the new one; a copy of another host \
                     needs its own join"
            ),
        );
    }
    let versions = versions(keytab, machine).iter().map(u32::to_string).collect::<Vec<_>>();
    Finding::ok(format!("{machine}, key version {}", versions.join(", ")))
}

/// Returns the name in the keytab's `host/NAME`, if no such entry has this host's present `name`. The name of
/// the computer account may differ on purpose.
fn joined_as<'a>(keytab: &'a Keytab, name: &str) -> Option<&'a str> {
    let label = |name: &str| fold(name.split('.').next().unwrap_or_default());
    let hosts = keytab.entries.iter().filter_map(|entry| {
        let host = entry.principal.strip_prefix("host/")?;
        Some(host.split_once('@').map_or(host, |(host, _)| host))
    });
    let hosts: Vec<_> = hosts.collect();
    let is_known = hosts.iter().any(|host| label(host) == label(name));
    hosts.into_iter().max_by_key(|host| host.len()).filter(|_| !is_known)
}

pub(super) async fn keytab_mode(facts: &Facts) -> Finding {
    let keytab = facts.keytab_file();
    let shown = keytab.display();
    match fs::metadata(facts.path(&keytab)) {
        Ok(found) if found.uid() != 0 || found.mode() & 0o077 != 0 => {
            let mode = found.mode() & 0o777;
            Finding::failure(format!(
                "{shown} has mode {mode:04o} and belongs to uid {}: a program that can read it can act as \
                 this host in AD",
                found.uid()
            ))
            .command(&commands::KEYTAB_MODE, &shown.to_string())
        }
        Ok(_) => Finding::ok("root's alone"),
        Err(e) => Finding::failure(format!("{shown}: {e}")),
    }
}

pub(super) async fn encryption(facts: &Facts) -> Finding {
    let (Ok(keytab), domain) = (facts.keytab().await, facts.domain().await) else {
        return Finding::because("keytab");
    };
    judge_encryption(keytab, &domain, &facts.keytab_file())
}

fn judge_encryption(keytab: &Keytab, domain: &str, path: &Path) -> Finding {
    let Some(machine) = machine_of(keytab, domain) else { return Finding::because("keytab") };
    let newest = versions(keytab, machine).first().copied().unwrap_or_default();
    let own = keytab.entries.iter().filter(|entry| entry.principal == machine && entry.version == newest);
    let types: Vec<_> = own.map(|entry| entry.encryption).collect();
    let name = |number: &i32| {
        let known = ENCRYPTION.iter().find(|(known, _)| known == number);
        known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
    };
    let names = types.iter().map(name).collect::<Vec<_>>().join(", ");
    if types.iter().any(|number| GOOD.contains(number)) {
        return Finding::ok(names);
    }
    // RC4: hardened domain controllers issue no ticket for it.
    let seen = format!("the newest key of {machine} is {names} only");
    let finding = match types.contains(&23) {
        true => Finding::warning(seen),
        false => Finding::failure(seen),
    };
    with_adcli(finding, RENEW_KEYS, domain, path)
}

/// Returns true if there is no configuration because the host is not joined.
pub(super) fn is_not_joined(error: &ConfigError) -> bool {
    matches!(error, ConfigError::NotJoined)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::finding::Level;
    use super::super::{Options, Shown};
    use super::*;
    use crate::kerberos::krb5::KeytabEntry;

    /// Principal, version and encryption type of a key.
    type Entry = (&'static str, u32, i32);

    fn keytab(entries: &[Entry]) -> Keytab {
        let entry = |&(principal, version, encryption): &Entry| KeytabEntry {
            principal: principal.into(),
            version,
            encryption,
        };
        Keytab { name: "/etc/krb5.keytab".into(), entries: entries.iter().map(entry).collect() }
    }

    #[test]
    fn the_newest_keys_decide_whether_encryption_is_good() {
        let machine = "XCALLY$@ACME.COM";
        let cases: [(&[Entry], Level, &str); 4] = [
            (&[(machine, 2, 18), (machine, 2, 23), (machine, 1, 1)], Level::Ok, "AES-256, RC4"),
            (&[(machine, 2, 23), (machine, 1, 18)], Level::Warning, "RC4 only"),
            (&[(machine, 2, 1), (machine, 2, 3)], Level::Failure, "DES-CRC, DES-MD5 only"),
            (&[("host/x@ACME.COM", 2, 18)], Level::Skipped, ""),
        ];
        for (entries, level, seen) in cases {
            let finding = judge_encryption(&keytab(entries), "acme.com", Path::new(KEYTAB));
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.seen.contains(seen), "{finding:?}");
        }
    }

    /// The commands that a finding prints.
    fn printed(finding: Finding) -> Vec<String> {
        finding.fix.into_iter().filter_map(|fix| Shown::from(fix).command).collect()
    }

    #[tokio::test]
    async fn a_keytab_elsewhere_is_the_one_that_commands_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let joined = "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ad\n";
        fs::write(file("sssd.conf"), format!("{joined}krb5_keytab = /etc/sssd/acme.keytab\n")).unwrap();
        let facts = || {
            let (config, sssd) = (file("config.toml"), file("sssd.conf"));
            let options = Options { config, sssd, socket: file("broker.sock"), login: None };
            Facts::at_root(options, folder.path())
        };
        let missing = super::keytab(&facts()).await;
        assert!(missing.seen.contains("/etc/sssd/acme.keytab does not exist"), "{missing:?}");
        let join = "adcli join --login-user=Administrator --domain=acme.com \
                    --host-keytab=/etc/sssd/acme.keytab";
        assert_eq!(printed(missing), [join]);

        fs::create_dir_all(file("etc/sssd")).unwrap();
        let held = file("etc/sssd/acme.keytab");
        fs::write(&held, b"\x05\x02").unwrap();
        fs::set_permissions(&held, fs::Permissions::from_mode(0o644)).unwrap();
        let mode = keytab_mode(&facts()).await;
        assert_eq!(mode.level, Level::Failure);
        let restrict = "chown root:root /etc/sssd/acme.keytab && chmod 0600 /etc/sssd/acme.keytab";
        assert_eq!(printed(mode), [restrict]);

        let weak = keytab(&[("XCALLY$@ACME.COM", 2, 23)]);
        let renewed = judge_encryption(&weak, "acme.com", Path::new("/etc/sssd/acme.keytab"));
        let update = "adcli update --computer-password-lifetime=0 --domain=acme.com \
                      --host-keytab=/etc/sssd/acme.keytab";
        assert_eq!(printed(renewed), [update]);
        let renewed = judge_encryption(&weak, "acme.com", Path::new(KEYTAB));
        assert_eq!(printed(renewed), ["adcli update --computer-password-lifetime=0 --domain=acme.com"]);
    }

    #[test]
    fn a_host_that_was_renamed_since_its_join_is_named() {
        let entries = [
            ("VOICE01$@ACME.COM", 2, 18),
            ("host/XCALLY@ACME.COM", 2, 18),
            ("host/xcally.acme.com@ACME.COM", 2, 18),
        ];
        let held = keytab(&entries);
        for (name, expected) in [
            ("xcally", None),
            ("Xcally.acme.com", None),
            ("xcally-2", Some("xcally.acme.com")),
            ("localhost", Some("xcally.acme.com")),
        ] {
            assert_eq!(joined_as(&held, name), expected, "{name}");
        }
        assert_eq!(joined_as(&keytab(&entries[..1]), "other"), None);
    }

    #[test]
    fn versions_come_newest_first_and_once() {
        let machine = "XCALLY$@ACME.COM";
        let held =
            keytab(&[("host/x@ACME.COM", 9, 18), (machine, 2, 18), (machine, 3, 18), (machine, 3, 17)]);
        assert_eq!(machine_of(&held, "acme.com"), Some(machine));
        assert_eq!(versions(&held, machine), [3, 2]);
    }
}
