//! Every check: its name, subject and dependencies, and the function that runs it.
//!
//! The help, the manual, `--explain` and the tests are generated from this table.

use super::facts::Facts;
use super::finding::{Finding, Level};
use super::{
    bridge, broker, configuration, controllers, join, login, machine, module, network, objects, observe, pam,
    sessions, xcally,
};
use crate::net::BoxFuture;

/// A group of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The package's parts on this host, and the application's PAM service.
    Package,
    /// This host as a member of the domain.
    Host,
    /// Each domain controller.
    Controllers,
    /// The configuration, and the objects in AD that it names.
    Configuration,
    /// The application.
    Xcally,
    /// All parts together.
    Login,
}

impl Group {
    /// All groups, in the order of the table.
    pub const ALL: [Group; 6] =
        [Group::Package, Group::Host, Group::Controllers, Group::Configuration, Group::Xcally, Group::Login];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Group::Package => "package and PAM",
            Group::Host => "host",
            Group::Controllers => "domain controllers",
            Group::Configuration => "configuration",
            Group::Xcally => "XCALLY",
            Group::Login => "login",
        }
    }
}

/// One check.
pub struct Check {
    /// Its name.
    pub id: &'static str,
    /// Its group.
    pub group: Group,
    /// Its subject, in a few words.
    pub title: &'static str,
    /// The reason for it, and what to do if it fails.
    pub text: &'static str,
    /// Runs only on request, without the common time limit.
    pub on_demand: bool,
    /// The checks that must not have failed before it can run.
    needs: Needs,
    pub(super) run: for<'a> fn(&'a Facts) -> BoxFuture<'a, Finding>,
}

enum Needs {
    /// Those with these names.
    Checks(&'static [&'static str]),
    /// All before it in the table.
    All,
}

impl Check {
    /// Returns true if this check waits for `other`, and is skipped if that one failed.
    pub(super) fn needs(&self, other: &Check) -> bool {
        match self.needs {
            Needs::Checks(ids) => ids.contains(&other.id),
            Needs::All => place(other) < place(self),
        }
    }

    /// Returns the finding of this check if the result of `id` keeps it from running, else `None`.
    pub(super) fn hindrance(&self, id: &'static str, found: &Finding) -> Option<Finding> {
        match (found.level, found.because) {
            (Level::Ok | Level::Warning, _) => None,
            (Level::Failure, _) => Some(Finding::because(id)),
            (Level::Skipped, Some(cause)) => Some(Finding::because(cause)),
            // A check of the whole runs even if others were skipped.
            (Level::Skipped, None) if matches!(self.needs, Needs::All) => None,
            (Level::Skipped, None) => Some(Finding::skipped(found.seen.clone())),
        }
    }

    /// Returns the check with this name.
    pub fn find(id: &str) -> Option<&'static Check> {
        CHECKS.iter().find(|check| check.id == id)
    }
}

fn place(check: &Check) -> usize {
    CHECKS.iter().position(|known| known.id == check.id).unwrap_or(CHECKS.len())
}

/// A check that always runs.
const fn check(
    group: Group,
    id: &'static str,
    title: &'static str,
    needs: &'static [&'static str],
    text: &'static str,
    run: for<'a> fn(&'a Facts) -> BoxFuture<'a, Finding>,
) -> Check {
    Check { id, group, title, text, on_demand: false, needs: Needs::Checks(needs), run }
}

use Group::{Configuration, Controllers, Host, Login, Package, Xcally};

/// Every check, in display order.
#[rustfmt::skip]
pub const CHECKS: &[Check] = &[
    check(Package, "root", "the doctor's own user", &[],
        "Only root may read the keytab and sssd.conf, and run checks as the application's user. Without root the \
         checks that need it are skipped.",
        |facts| Box::pin(broker::root(facts))),
    check(Package, "broker-user", "the broker's own user", &[],
        "The broker runs as the system user motion-ad, which the package makes. Without it the unit does not start.",
        |facts| Box::pin(broker::account(facts))),
    check(Package, "socket-unit", "motion-ad.socket", &[],
        "systemd listens for logins and holds them while the broker restarts. If this unit is masked, \
         disabled or failed, no user can log in.",
        |facts| Box::pin(broker::socket_unit(facts))),
    check(Package, "service-unit", "motion-ad.service", &[],
        "The broker itself. If it is stopped, the next login starts it. If it failed, the doctor shows the \
         last lines of its log, and the administrator's own settings for the unit by file and line.",
        |facts| Box::pin(broker::service_unit(facts))),
    check(Package, "socket-file", "the socket's file", &["socket-unit"],
        "Every process may connect, and the broker learns its user from the kernel. Owner and mode must be \
         those of the unit in force.",
        |facts| Box::pin(broker::socket_file(facts))),
    check(Package, "broker", "the broker answers", &["broker-user", "service-unit", "socket-file"],
        "One request to the broker, answered within four seconds.",
        |facts| Box::pin(broker::answers(facts))),
    check(Package, "version", "one version everywhere", &["broker"],
        "The package, this helper and the running broker have the same version. A broker that was not \
         restarted after an upgrade refuses the new module.",
        |facts| Box::pin(broker::version(facts))),
    check(Package, "pam-service", "/etc/pam.d/motion", &[],
        "The application's PAM service with everything that it includes, read as libpam reads it. A line \
         that libpam cannot understand, or a file that it cannot include, rejects every user. Only root may \
         change the service.",
        |facts| Box::pin(pam::service(facts))),
    check(Package, "pam-lines", "the module's lines", &["pam-service"],
        "An auth line and an account line call pam_motion_ad.so. If the service has no line of a kind, \
         libpam takes those of /etc/pam.d/other. Where the LDAP bridge has a service of its own (bridge.service), this check \
         and the others of PAM services judge that one, too.",
        |facts| Box::pin(pam::lines(facts))),
    check(Package, "pam-arguments", "the module's arguments", &["pam-lines"],
        "A known argument with a broken value refuses every login, an unknown one is ignored. See pam_motion_ad(8).",
        |facts| Box::pin(pam::arguments(facts))),
    check(Package, "pam-order", "which users get access", &["pam-lines"],
        "The lines are evaluated as libpam does. Users whom AD rejects must not get access, and users whom \
         AD accepts must. No password may be tried twice in AD, and no local password before AD is queried.",
        |facts| Box::pin(pam::order(facts))),
    check(Package, "pam-observe", "logins that are only observed", &["pam-service"],
        "Lines with the argument observe, in every PAM service of this host: other lines decide about these \
         logins. A line whose control enforces its answer admits no user. A line that is ignored without the \
         argument is reported nowhere else. A service in which every line is ignored admits no user.",
        |facts| Box::pin(observe::lines(facts))),
    check(Package, "pam-sss", "pam_sss next to the module", &["pam-lines"],
        "realm join makes SSSD apply group policies to every login (access_provider = ad), and SSSD refuses \
         PAM services that it has no mapping for. If pam_sss is among the account lines, ad_gpo_map_permit \
         must name motion.",
        |facts| Box::pin(pam::sssd(facts))),
    check(Package, "module-file", "the module's file", &["pam-lines"],
        "libpam looks for the module in its own folder unless the line names another. Applications must be \
         able to read it, and only root may change it.",
        |facts| Box::pin(module::file(facts))),
    check(Package, "module-loads", "the module can be loaded", &["module-file"],
        "The doctor loads it as libpam does, as the application's user, in a separate process.",
        |facts| Box::pin(module::loads(facts))),
    check(Package, "package-files", "the package's files", &["module-file"],
        "Every file is as it was packed, except those that administrators may change. Run the command in the folder \
         where the package is.",
        |facts| Box::pin(module::package(facts))),
    check(Package, "module-loaded", "the module in running applications", &[],
        "An application keeps the module that it loaded first, also after an upgrade, until it is restarted.",
        |facts| Box::pin(module::loaded(facts))),
    check(Package, "denials", "AppArmor and SELinux", &[],
        "What AppArmor or SELinux denied motion-ad within a day, by the kernel's log.",
        |facts| Box::pin(module::denials(facts))),

    check(Host, "join", "the realm join", &[],
        "sssd.conf, which realm join writes, names the domain. motion-ad needs no other setting than that.",
        |facts| Box::pin(join::joined(facts))),
    check(Host, "krb5-conf", "krb5.conf", &[],
        "libkrb5's own configuration, which the broker must be able to read.",
        |facts| Box::pin(join::krb5_conf(facts))),
    check(Host, "keytab", "the keytab", &[],
        "/etc/krb5.keytab, or the file that krb5_keytab in sssd.conf names, holds the machine's keys. The broker \
         needs them for everything that it reads in AD. Joining again asks for an administrator's password, and gives the computer account a new \
         password and this host its keys.",
        |facts| Box::pin(join::keytab(facts))),
    check(Host, "keytab-mode", "who may read the keytab", &["keytab"],
        "A program that can read the machine's keys can act as this host in AD, and can make this host accept a forged \
         domain controller.",
        |facts| Box::pin(join::keytab_mode(facts))),
    check(Host, "keytab-encryption", "the keys' encryption", &["keytab"],
        "AES. Hardened domain controllers give no ticket for RC4, and none gives one for DES.",
        |facts| Box::pin(join::encryption(facts))),
    check(Host, "resolver", "the DNS servers", &["join"],
        "The doctor queries each server of /etc/resolv.conf for the domain. A dead server delays every \
         first look-up; a server that does not know the domain makes look-ups fail now and then. If another \
         program writes resolv.conf (NetworkManager, systemd-resolved, DHCP), change its setting instead.",
        |facts| Box::pin(network::resolver(facts))),
    check(Host, "srv-ldap", "SRV records of domain controllers", &["join", "resolver"],
        "_ldap._tcp.dc._msdcs of the domain, by which the broker finds the domain controllers; not needed where \
         domain.servers names them. Domain controllers register these records.",
        |facts| Box::pin(network::srv_ldap(facts))),
    check(Host, "srv-kerberos", "SRV records of KDCs", &["join", "resolver"],
        "_kerberos._tcp of the domain: SSSD, adcli and kinit use it, the broker does not.",
        |facts| Box::pin(network::srv_kerberos(facts))),
    check(Host, "srv-gc", "SRV records of global catalogues", &["join", "resolver"],
        "_ldap._tcp.gc._msdcs of the forest: users of its other domains are found there.",
        |facts| Box::pin(network::srv_gc(facts))),
    check(Host, "addresses", "addresses of domain controllers", &["join"],
        "Each domain controller that DNS or domain.servers names has an address. If DNS does not answer, \
         the other checks use the addresses that the broker knew last.",
        |facts| Box::pin(network::addresses(facts))),
    check(Host, "own-name", "this host's own name", &["addresses"],
        "This host's name has an address, and its address that name. The broker does not need it; other programs of the \
         join do.",
        |facts| Box::pin(network::own_name(facts))),
    check(Host, "clock", "the clock", &["dc-ldap"],
        "This host's clock compared with each domain controller's. If they differ by five minutes or more, Kerberos \
         refuses everything.",
        |facts| Box::pin(machine::clock(facts))),
    check(Host, "machine-key", "AD accepts the machine's key", &["keytab", "krb5-conf", "clock", "dc-kdc"],
        "The doctor requests a ticket for the computer account once, because a wrong key counts as a wrong \
         password. The KDC refuses it if the account was reset or deleted in AD, or if this host is a copy \
         of another one.",
        |facts| Box::pin(machine::key(facts))),
    check(Host, "kvno", "the version of the machine's key", &["machine-key", "dc-machine"],
        "The keytab holds the version of the key that AD has (msDS-KeyVersionNumber). Logins that are checked by Kerberos \
         fail otherwise: a KDC proves itself with that key.",
        |facts| Box::pin(machine::version(facts))),

    check(Controllers, "dc-ldap", "port 389", &["addresses"],
        "Every domain controller answers on port 389. The broker skips one that does not, and so do the \
         other checks of this group.",
        |facts| Box::pin(controllers::ldap(facts))),
    check(Controllers, "dc-fit", "fit for logins", &["dc-ldap"],
        "The broker skips read-only domain controllers, those that have not replicated since they started, \
         and those of another domain.",
        |facts| Box::pin(controllers::fit(facts))),
    check(Controllers, "dc-kdc", "port 88", &["dc-ldap"],
        "Without a ticket nothing can be read in AD.",
        |facts| Box::pin(controllers::kdc(facts))),
    check(Controllers, "dc-ldaps", "port 636", &["dc-ldap"],
        "Passwords are checked over TLS on port 636, or by StartTLS on port 389 where tls.mode allows that.",
        |facts| Box::pin(controllers::ldaps(facts))),
    check(Controllers, "dc-kpasswd", "port 464", &["dc-ldap"],
        "Expired passwords are changed there.",
        |facts| Box::pin(controllers::kpasswd(facts))),
    check(Controllers, "dc-gc", "port 3268", &["dc-ldap"],
        "The global catalogue, where users of the forest's other domains are found.",
        |facts| Box::pin(controllers::catalogue(facts))),
    check(Controllers, "dc-tls", "the certificate", &["ca-file", "clock", "dc-ldaps"],
        "The doctor starts TLS as a login does, and verifies the certificate by the roots in force: it must \
         be for the domain controller's name, valid now, not revoked, and lead to a root that tls.ca_file, \
         the system or the forest trusts. If that fails on every domain controller, passwords are checked \
         by Kerberos, if login.method allows it.",
        |facts| Box::pin(controllers::tls(facts))),
    check(Controllers, "dc-expiry", "how long it is good", &["dc-tls"],
        "A certificate that ends within thirty days.",
        |facts| Box::pin(controllers::expiry(facts))),
    check(Controllers, "dc-machine", "the machine's connection", &["machine-key", "dc-ldap"],
        "The computer account binds to each domain controller on port 389, sealed by Kerberos: names, accounts and groups \
         are read there.",
        |facts| Box::pin(machine::bind(facts))),
    check(Controllers, "dc-listed", "AD's own list", &["dc-machine"],
        "Every host that DNS names as a domain controller is on AD's own list of them. A password goes to no other host, \
         unless domain.servers names it.",
        |facts| Box::pin(controllers::listed(facts))),
    check(Controllers, "dc-signing", "signing", &["dc-machine"],
        "Whether the domain controllers require signing (LDAP server signing requirements). motion-ad \
         always seals; other programs may send passwords in the clear to domain controllers that do not \
         require it.",
        |facts| Box::pin(machine::signing(facts))),
    check(Controllers, "dc-time", "their clocks", &["clock"],
        "A domain controller whose clock differs from this host's, while another one agrees with it.",
        |facts| Box::pin(machine::dc_time(facts))),

    check(Configuration, "config-file", "config.toml", &[],
        "An unknown key, an invalid value and a contradiction to the join deny every login. The fix \
         corrects a misspelt key and merges a table that is opened twice; it never removes a rule. See \
         motion-ad.toml(5).",
        |facts| Box::pin(configuration::file(facts))),
    check(Configuration, "config-readable", "the broker may read its files", &["config-file", "broker-user"],
        "config.toml, the name map and tls.ca_file, as the user motion-ad, whose unit hides /home, /root and /tmp. If this \
         host uses the LDAP bridge, its certificate and key, too, as the user motion-ad-ldap.",
        |facts| Box::pin(configuration::readable(facts))),
    check(Configuration, "names-map", "the name map", &["config-file"],
        "A line that cannot be understood, or that contradicts another one, denies every login: if the line \
         were skipped, a user might be logged in as another user. See names.map(5).",
        |facts| Box::pin(configuration::map(facts))),
    check(Configuration, "ca-file", "trusted roots", &["config-file", "config-readable"],
        "tls.ca_file holds certificates that are valid now; without it the system's store and the forest's roots \
         count.",
        |facts| Box::pin(controllers::roots(facts))),
    check(Configuration, "base-dn", "domain.base_dn", &["config-file", "dc-machine"],
        "Only accounts below it are found, so it must exist.",
        |facts| Box::pin(objects::base(facts))),
    check(Configuration, "restrictions", "what this host may read of accounts", &["base-dn"],
        "logonHours and userWorkstations are absent if an account has no such restriction, and also if this host may \
         not read them (the property set Logon Information). AD checks them itself at a bind; after a Kerberos ticket, \
         and for acct_mgmt alone, the broker does. The command lets the computers of the domain read them.",
        |facts| Box::pin(objects::restrictions(facts))),
    check(Configuration, "groups", "groups", &["config-file", "dc-machine"],
        "Those of login.allow_groups, login.deny_groups and sessions.exempt_groups, by name or SID. One that AD does not know \
         denies every login, or every session. The doctor shows similar names. It makes no group in AD; if \
         you remove the group from a list, every user may get access.",
        |facts| Box::pin(objects::groups(facts))),
    check(Configuration, "map-targets", "accounts of the name map", &["names-map", "base-dn"],
        "The account that a line of the name map leads to exists, and is the only one of its name.",
        |facts| Box::pin(objects::targets(facts))),
    check(Configuration, "names-of-two", "names of two accounts", &["names-map", "base-dn"],
        "A name is the userPrincipalName of one account and the sAMAccountName of another. Typed without a domain it is \
         refused until a line of the name map decides: `name = user@domain` or `name = DOMAIN\\user`.",
        |facts| Box::pin(objects::clashes(facts))),
    check(Configuration, "sessions", "the register of sessions", &["config-file", "config-readable", "broker"],
        "The register of logged-in users: a file of this host, or a Redis that several servers share. Run \
         the command on the host of the Redis.",
        |facts| Box::pin(sessions::register(facts))),
    check(Configuration, "broker-users", "broker.users", &["config-file"],
        "Every user in broker.users exists on this host.",
        |facts| Box::pin(configuration::users(facts))),

    check(Xcally, "motion2", "XCALLY Motion", &[],
        "/var/opt/motion2, where XCALLY Motion lives.",
        |facts| Box::pin(xcally::home(facts))),
    check(Xcally, "motion-user", "the application's user", &[],
        "The owner of /var/opt/motion2, usually motion. Without that folder, the user motion, or else the first of \
         broker.users.",
        |facts| Box::pin(xcally::user(facts))),
    check(Xcally, "camera", "Debian's camera daemon", &[],
        "Debian's package motion watches cameras. It runs as a user of the same name, which the broker would answer.",
        |facts| Box::pin(xcally::camera(facts))),
    check(Xcally, "pam-readable", "the application may read its PAM service", &["motion-user", "pam-service"],
        "Checked as the application's user. libpam does not find a service that this user cannot read.",
        |facts| Box::pin(pam::readable(facts))),
    check(Xcally, "reach", "the application reaches the broker", &["broker", "motion-user"],
        "The doctor connects as the application's user to the broker, which answers root and broker.users.",
        |facts| Box::pin(xcally::reach(facts))),
    check(Xcally, "bridge-line", "XCALLY's line for the LDAP bridge", &[],
        "If XC_ACTIVEDIRECTORY_URL names this host, the port must be the bridge's, and name and secret in \
         .env must be those in /etc/motion-ad/ldap-admin.",
        |facts| Box::pin(bridge::line(facts))),
    check(Xcally, "bridge-socket", "the LDAP bridge answers", &["config-readable", "bridge-line"],
        "If XCALLY's .env names the LDAP bridge, or its socket is enabled, the doctor binds there as the \
         application's user, without a password, which the bridge must refuse. systemd accepts connections also \
         for a bridge that cannot start.",
        |facts| Box::pin(bridge::socket(facts))),
    check(Xcally, "env-password", "an AD password in .env", &[],
        "XCALLY's own integration keeps an AD administrator's password in /var/opt/motion2/.env. After XCALLY no \
         longer uses it, remove it, and change it in AD: a user who has read it could still use it.",
        |facts| Box::pin(xcally::password(facts))),
    check(Xcally, "env-mode", "the mode of .env", &[],
        "The file holds XCALLY's secrets.",
        |facts| Box::pin(xcally::mode(facts))),

    Check {
        id: "broker-state",
        group: Login,
        title: "the broker reports no problem",
        text: "Problems that the broker itself reports, if no other check has found one.",
        on_demand: false,
        needs: Needs::All,
        run: |facts| Box::pin(broker::state(facts)),
    },
    Check {
        id: "login",
        group: Login,
        title: "one real login",
        text: "With --login NAME, the doctor logs this user in once, as the application would: through PAM, or \
               with --bridge through the LDAP bridge, as the application's user. A wrong password counts in \
               AD, as it does at the login page.",
        on_demand: true,
        needs: Needs::Checks(&["broker", "pam-lines", "pam-readable", "reach", "module-loads"]),
        run: |facts| Box::pin(login::login(facts)),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_says_what_it_is_about() {
        let mut ids = BTreeSet::new();
        for check in CHECKS {
            assert!(ids.insert(check.id), "{}", check.id);
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(check.id.chars().all(plain), "{}", check.id);
            assert!(!check.title.is_empty() && check.text.ends_with('.'), "{}", check.id);
            assert!(!check.title.ends_with('.'), "{}", check.id);
        }
    }

    #[test]
    fn groups_stand_together_and_in_order() {
        let mut groups: Vec<_> = CHECKS.iter().map(|check| check.group).collect();
        groups.dedup();
        assert_eq!(groups, Group::ALL);
    }

    #[test]
    fn what_depends_on_a_failure_names_its_cause() {
        let (kvno, state) = (Check::find("kvno").unwrap(), Check::find("broker-state").unwrap());
        let skipped = Finding::because("keytab");
        assert_eq!(kvno.hindrance("machine-key", &skipped).unwrap().because, Some("keytab"));
        assert_eq!(kvno.hindrance("keytab", &Finding::failure("gone")), Some(skipped));
        assert_eq!(kvno.hindrance("keytab", &Finding::warning("old")), None);
        let plain = Finding::skipped("needs root");
        assert_eq!(kvno.hindrance("keytab", &plain), Some(plain.clone()));
        assert_eq!(state.hindrance("keytab", &plain), None);
    }

    /// A check that depends on itself would wait for ever.
    #[test]
    fn what_a_check_needs_exists_and_comes_to_an_end() {
        for check in CHECKS {
            if let Needs::Checks(ids) = check.needs {
                for id in ids {
                    assert!(Check::find(id).is_some(), "{} needs {id}", check.id);
                }
            }
        }
        let mut done: BTreeSet<&str> = BTreeSet::new();
        while done.len() < CHECKS.len() {
            let next = CHECKS.iter().find(|check| {
                let waits = CHECKS.iter().any(|other| check.needs(other) && !done.contains(other.id));
                !done.contains(check.id) && !waits
            });
            done.insert(next.expect("the checks wait for each other").id);
        }
    }
}
