//! The clock, and the machine's access to AD: its key, the key's version, its sealed connection.

use super::commands::Place as At;
use super::commands::{self, Command};
use super::facts::{Bound, Facts, unit};
use super::finding::{Finding, Level, Part};
use super::join::{JOIN_AGAIN, machine_of, versions, with_adcli};
use crate::directory::machine::{MachineError, Place, Scope, Search};
use crate::kerberos::KerberosError;

/// Clock difference above which a warning is due, in seconds. Kerberos fails above 300.
const DRIFT: u64 = 60;
/// Attribute that counts the machine's passwords.
const KEY_VERSION: &str = "msDS-KeyVersionNumber";

/// Time services in the order of the search, each with the command that sets the clock at once.
static TIME_SERVICES: [(&str, &Command); 4] = [
    ("chrony.service", &commands::CHRONY),
    ("systemd-timesyncd.service", &commands::TIMESYNCD),
    ("ntpsec.service", &commands::NTPSEC),
    ("ntp.service", &commands::NTP),
];

/// Compares this host's clock with each domain controller's.
pub(super) async fn clock(facts: &Facts) -> Finding {
    let answering = facts.answering().await;
    let skews = answering.iter().filter_map(|survey| survey.root.as_ref().ok()?.skew.as_ref());
    let parts = skews.map(|skew| {
        let seconds = skew.ahead.unsigned_abs();
        let level = match () {
            () if skew.is_too_much() => Level::Failure,
            () if seconds > DRIFT => Level::Warning,
            () => Level::Ok,
        };
        let seen = match skew.ahead {
            0 => "the same time".to_owned(),
            1.. => format!("this host is {seconds} s ahead"),
            _ => format!("this host is {seconds} s behind"),
        };
        Part { subject: skew.kdc.clone(), level, seen }
    });
    let finding = Finding::of_parts(parts.collect());
    match finding.level {
        Level::Ok => finding,
        Level::Skipped => Finding::skipped("no domain controller tells the time"),
        // If others agree with this host, that domain controller's clock is wrong: see dc-time.
        Level::Warning if finding.parts.iter().any(|part| part.level == Level::Ok) => {
            Finding { level: Level::Ok, ..finding }
        }
        _ => set_clock(finding).await,
    }
}

/// Adds the command that sets this host's clock.
async fn set_clock(finding: Finding) -> Finding {
    for (service, command) in TIME_SERVICES {
        if unit(service).await.is_ok_and(|unit| unit.get("LoadState").is_some_and(|state| state == "loaded"))
        {
            return finding.command(command, "");
        }
    }
    finding.advise(At::Here, "install a time service, systemd-timesyncd or chrony: none is here")
}

/// Checks for a domain controller with a clock that differs from the others'.
pub(super) async fn dc_time(facts: &Facts) -> Finding {
    let clock = clock(facts).await;
    match clock.parts.iter().find(|part| part.level != Level::Ok) {
        Some(part) => Finding::warning(format!(
            "{}: {}, but it agrees with another domain controller",
            part.subject, part.seen
        ))
        .there(&commands::CLOCK_WINDOWS, &commands::CLOCK_SAMBA, ""),
        None => Finding::ok(clock.seen),
    }
}

/// Checks that the KDC accepts the key. Tries it only once, because a wrong key counts as a wrong password.
pub(super) async fn key(facts: &Facts) -> Finding {
    let Some(ad) = facts.ad().await else { return Finding::because("join") };
    if facts.dns_silence().await.is_some() {
        return Finding::because("resolver");
    }
    let domain = facts.domain().await;
    let error = match ad.kerberos.credential(facts.deadline()).await {
        Ok(credential) => {
            let left = credential.remaining().as_secs() / 60;
            return Finding::ok(format!("a ticket for {}, valid for {left} min", credential.principal()));
        }
        Err(error) => error,
    };
    let finding = Finding::failure(error.to_string());
    match error {
        KerberosError::KeyRejected { .. }
        | KerberosError::AccountUnknown(_)
        | KerberosError::NoCommonEncryption(_)
        | KerberosError::KeytabMissing(_)
        | KerberosError::KeytabEmpty(_)
        | KerberosError::NoMachinePrincipal { .. } => {
            with_adcli(finding, JOIN_AGAIN, &domain, &facts.keytab_file())
        }
        KerberosError::AccountRevoked(principal) => {
            let account = principal.split('@').next().unwrap_or_default();
            finding.there(&commands::ENABLE_WINDOWS, &commands::ENABLE_SAMBA, account)
        }
        KerberosError::ClockSkew(_) | KerberosError::Clocks => set_clock(finding).await,
        _ => finding,
    }
}

/// Checks that the keytab has the key version that AD has: a KDC proves itself with that key.
pub(super) async fn version(facts: &Facts) -> Finding {
    let (Some(ad), Some(config), Ok(keytab)) = (facts.ad().await, facts.config().await, facts.keytab().await)
    else {
        return Finding::because("keytab");
    };
    let Some(machine) = machine_of(keytab, &config.domain.realm) else { return Finding::because("keytab") };
    let account = machine.split('@').next().unwrap_or_default();
    let search = Search {
        place: Place::Own,
        base: config.domain.root(),
        scope: Scope::Subtree,
        filter: format!("(&(objectClass=computer)(sAMAccountName={}))", ldap3::ldap_escape(account)),
        attributes: vec![KEY_VERSION.to_owned()],
        limit: 1,
    };
    let entries = match ad.machine.search(&search, facts.deadline()).await {
        Ok(entries) => entries,
        // dc-machine reports that problem; a key that logins work with is no failure.
        Err(e) => return Finding::skipped(format!("AD could not be read for it: {e}")),
    };
    let theirs = entries.first().and_then(|entry| entry.integer(KEY_VERSION).ok().flatten());
    let Some(theirs) = theirs.and_then(|version| u32::try_from(version).ok()) else {
        return Finding::skipped(format!("AD does not tell {KEY_VERSION} of {account}"));
    };
    let held = versions(keytab, machine);
    match held.contains(&theirs) {
        true => Finding::ok(format!("version {theirs}, in AD and in the keytab")),
        false => {
            let held = held.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let seen = format!("AD has version {theirs} of the key of {account}, the keytab {held}");
            with_adcli(Finding::failure(seen), JOIN_AGAIN, &config.domain.name, &facts.keytab_file())
        }
    }
}

/// Checks the connection that reads the directory, to each domain controller.
pub(super) async fn bind(facts: &Facts) -> Finding {
    let machines = facts.machines().await;
    let parts = machines.iter().map(|Bound { host, error, .. }| match error {
        None => Part { subject: host.clone(), level: Level::Ok, seen: "bound and sealed".to_owned() },
        Some(e) => Part { subject: host.clone(), level: Level::Failure, seen: e.to_string() },
    });
    let finding = Finding::of_parts(parts.collect());
    if finding.level <= Level::Skipped {
        return finding;
    }
    let is_alias = |bound: &Bound| {
        bound
            .error
            .as_ref()
            .is_some_and(|error| error.to_string().contains("is only an alias or an address of"))
    };
    if machines.iter().any(is_alias) {
        // The administrator must correct the configured name: no command on the domain controller helps.
        return finding;
    }
    let lacks_spn = machines.iter().find(|bound| {
        matches!(&bound.error, Some(MachineError::Unreachable(cause)) if cause.contains("knows no service"))
    });
    match lacks_spn {
        Some(Bound { host, .. }) => {
            let domain = facts.domain().await;
            let short = host.split('.').next().unwrap_or_default().to_uppercase();
            finding
                .command(&commands::SPN_WINDOWS, &short)
                .advise(
                    At::Windows,
                    format!("where ldap/{host}/{domain} is missing, add it to that account (setspn -S)"),
                )
                .command(&commands::SPN_SAMBA, "")
        }
        None => finding.there(&commands::LOG_WINDOWS, &commands::LOG_SAMBA, ""),
    }
}

/// Reports whether the domain controllers require signing. Our connections are always sealed.
pub(super) async fn signing(facts: &Facts) -> Finding {
    let parts = facts.machines().await.iter().filter_map(|bound| {
        let seen = match bound.signed? {
            true => "requires signing from all clients",
            false => "accepts unsigned connections from other clients",
        };
        Some(Part { subject: bound.host.clone(), level: Level::Ok, seen: seen.to_owned() })
    });
    Finding::of_parts(parts.collect())
}
