//! `motion-ad doctor` on a host that is broken in many ways, one after the other. Each time the doctor first
//! reports the right check. `--fix --yes` repairs it and changes no other program's files, or changes nothing
//! if an administrator must decide. Afterwards all checks pass, the right users log in, and the others are
//! rejected.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::bridge;
use crate::cast::person;
use crate::lab::{Lab, Ran, Release, wait};
use crate::ready::{john, restart};
use crate::report::{Check, Report, contains, equal};

/// Maximum duration of the whole run in seconds, whichever servers are dead.
const WHOLE: f64 = 10.0;
/// Delay of a slow domain controller's packets in each direction, in milliseconds. The machine account's
/// connection and its first search take about twelve round trips: more than two seconds, and less than a
/// login's five.
const LATE: &str = "100";
/// Maximum time until a broker restarts, or until a domain controller is detected as working again.
const SETTLED: Duration = Duration::from_secs(40);
/// A local user with its password.
const LOCAL: &str = "lara";
const LOCAL_PASSWORD: &str = "L4ra-is-local";
/// Folder on the host where `lab install` leaves the package.
const PACKAGES: &str = "/var/cache/motion-ad-lab";
/// Gives only the doctor a different clock, through libfaketime and /etc/faketimerc. The lab's machines share
/// the kernel's clock, and none may set it.
const OWN_CLOCK: &str = "LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1) DONT_FAKE_MONOTONIC=1 ";

/// A step that breaks or repairs something.
#[derive(Clone, Copy)]
enum Step {
    /// A shell script on the host, as root.
    Host(&'static str),
    /// A shell script on the domain controller.
    Dc(&'static str),
    /// A command of the lab that changes the domain or the network.
    Lab(&'static [&'static str]),
    /// Writes `config.toml` with the lab's CA and this text.
    Configure(&'static str),
}
use Step::{Configure, Dc, Host};

/// The way in which the host is repaired.
#[derive(Clone, Copy)]
enum Cure {
    /// `motion-ad doctor --fix --yes` applies its plan, and changes only this package's files in /etc.
    Fixed,
    /// The printed step is run on the host as printed.
    Here,
    /// Same, with the administrator's password on standard input.
    WithPassword,
    /// The printed step for Samba is run on the domain controller as printed.
    OnController,
    /// The printed advice is text. `--fix --yes` changes nothing, and these steps repair the host.
    ByHand(&'static [Step]),
}
use Cure::{ByHand, Fixed, Here, OnController, WithPassword};

struct Row {
    name: &'static str,
    breaks: &'static [Step],
    /// The check that the doctor reports first, and its level.
    first: &'static str,
    level: &'static str,
    /// Part of the text that it reports.
    seen: &'static str,
    cure: Cure,
    /// Users that log in afterwards or are rejected, for rows that concern the PAM service or the
    /// configuration.
    users: Users,
    /// Steps that clean up what the cure does not cover.
    after: &'static [Step],
    /// Environment that the doctor's command line begins with.
    environment: &'static str,
    /// True if the row is part of the main suite.
    is_short: bool,
}

/// The logins that are tried after the cure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Users {
    /// No login is tried.
    Untried,
    /// john is accepted; a disabled user, a local user and root are rejected.
    OfAd,
    /// Same, and a user outside the group is rejected.
    OfGroup,
}

const fn row(
    name: &'static str,
    breaks: &'static [Step],
    first: &'static str,
    seen: &'static str,
    cure: Cure,
) -> Row {
    let (users, after, environment) = (Users::Untried, &[], "");
    Row { name, breaks, first, level: "failure", seen, cure, users, after, environment, is_short: false }
}

impl Row {
    const fn warns(self) -> Row {
        Row { level: "warning", ..self }
    }

    const fn then(self, after: &'static [Step]) -> Row {
        Row { after, ..self }
    }

    const fn short(self) -> Row {
        Row { is_short: true, ..self }
    }

    const fn with(self, environment: &'static str) -> Row {
        Row { environment, ..self }
    }

    const fn tried(self, users: Users) -> Row {
        Row { users, ..self }
    }
}

/// The configuration after [`Lab::configure`] with no additional text.
const PLAIN: Step = Configure("");
/// Restores the PAM service.
const PAM: Step = Host("cp -p /root/pam-motion /etc/pam.d/motion");

/// Raises the version of every key in the keytab by five, and keeps the keys.
const OTHER_VERSION: &str = r#"perl -e '
    local $/; open F, "<:raw", "/etc/krb5.keytab"; my $d = <F>; my $p = 2;
    while ($p + 4 <= length $d) {
        my $n = unpack("l>", substr $d, $p, 4); $p += 4;
        if ($n <= 0) { $p -= $n; next }
        my $q = $p + 2;
        for (0 .. unpack("n", substr $d, $p, 2)) { $q += 2 + unpack("n", substr $d, $q, 2) }
        $q += 8; my $v = 5 + ord substr $d, $q, 1; substr($d, $q, 1) = chr $v;
        my $e = $q + 5 + unpack("n", substr $d, $q + 3, 2);
        substr($d, $e, 4) = pack("N", $v) if $p + $n - $e >= 4;
        $p += $n;
    }
    open F, ">:raw", "/etc/krb5.keytab"; print F $d; close F'"#;

/// A substitute for Debian's package of this name, which would need a hundred others. The host has no
/// network.
const CAMERA: &str = "d=$(mktemp -d) && mkdir -p $d/DEBIAN $d/etc/motion && printf 'Package: \
    motion\\nVersion: 4.5.1-2\\nArchitecture: all\\nMaintainer: lab <lab@example.org>\\nDescription: stands \
    for the camera daemon\\n' >$d/DEBIAN/control && echo /etc/motion/motion.conf >$d/DEBIAN/conffiles && \
    echo 'daemon off' >$d/etc/motion/motion.conf && dpkg-deb -b $d /var/tmp/motion.deb && dpkg -i \
    /var/tmp/motion.deb";

/// A substitute for the time service, which the lab does not run. It corrects the doctor's clock.
const TIME_SERVICE: &str = "echo +10m >/etc/faketimerc && rm -f \
    /etc/systemd/system/systemd-timesyncd.service && printf \
    '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\n\
    ExecStart=/bin/rm -f /etc/faketimerc\\n[Install]\\nWantedBy=multi-user.target\\n' \
    >/etc/systemd/system/systemd-timesyncd.service && systemctl daemon-reload";
const NO_TIME_SERVICE: &str = "systemctl disable --now systemd-timesyncd.service; \
    rm -f /etc/systemd/system/systemd-timesyncd.service /etc/faketimerc; systemctl daemon-reload";

/// Enables the LDAP bridge with a certificate whose key only root may read.
const CLOSED_KEY: &str = "cd /etc/motion-ad && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj \
    /CN=localhost -keyout ldap.key -out ldap.pem 2>/dev/null && chown root:root ldap.key && chmod 0600 \
    ldap.key && systemctl enable --now motion-ad-ldap.socket";
const BRIDGE: Step = Host("systemctl enable --now motion-ad-ldap.socket");
const NO_BRIDGE: Step = Host(
    "systemctl disable --now motion-ad-ldap.socket; systemctl stop motion-ad-ldap.service; rm -f \
     /etc/motion-ad/ldap.pem /etc/motion-ad/ldap.key /etc/pam.d/motion-bridge",
);
const OTHER_SERVICE: Step = Configure("[bridge]\nservice = \"motion-bridge\"\n");

const HEAL: Step = Step::Lab(&["net", "heal", "dc"]);
const GOOD: Step = Step::Lab(&["dc", "cert", "good"]);
const CLEAN_MAP: Step = Host("printf '# nobody\\n' >/etc/motion-ad/names.map");

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Package and PAM.
    row("socket and broker are stopped and disabled",
        &[Host("systemctl disable --now motion-ad.socket motion-ad.service")],
        "socket-unit", "motion-ad.socket is inactive", Fixed).short(),
    row("the socket is masked",
        &[Host("systemctl mask --now motion-ad.socket motion-ad.service")],
        "socket-unit", "masked", Fixed),
    row("the broker's unit has a setting of the administrator's and does not start",
        &[Host("mkdir -p /etc/systemd/system/motion-ad.service.d && printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' \
            >/etc/systemd/system/motion-ad.service.d/override.conf && systemctl daemon-reload; systemctl restart motion-ad.service; true")],
        "service-unit", "motion-ad.service.d/override.conf, line 3: ExecStart=/bin/false",
        ByHand(&[Host("sed -i '/ExecStart/d' /etc/systemd/system/motion-ad.service.d/override.conf && systemctl daemon-reload && \
            systemctl reset-failed motion-ad.service motion-ad.socket; systemctl restart motion-ad.socket motion-ad.service")]))
        .then(&[Host("rm -r /etc/systemd/system/motion-ad.service.d && systemctl daemon-reload")]),
    row("the broker hangs",
        &[Host("systemctl kill -s STOP motion-ad.service")],
        "broker", "does not answer", Fixed),
    row("the socket's mode is another",
        &[Host("chmod 0600 /run/motion-ad/broker.sock")],
        "socket-file", "has mode 0600, not 0666", Fixed).short(),
    row("the PAM service is missing",
        &[Host("rm /etc/pam.d/motion")],
        "pam-service", "No such file", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("the PAM service has a line that libpam does not understand",
        &[Host("echo 'auth perhaps pam_motion_ad.so' >>/etc/pam.d/motion")],
        "pam-service", "\"perhaps\" is no control", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("the module's auth line is missing",
        &[Host("sed -i '/^auth/d' /etc/pam.d/motion")],
        "pam-lines", "no auth line", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("the module's account line is missing, others are there",
        &[Host("sed -i 's/^account.*/account required pam_unix.so/' /etc/pam.d/motion")],
        "pam-lines", "no account line", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("an argument of the module is broken",
        &[Host("sed -i '/^auth/s/$/ timeout=5s/' /etc/pam.d/motion")],
        "pam-arguments", "timeout=5s", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("the PAM lines let everybody in",
        &[Host("sed -i 's/^auth *required/auth optional/; /^auth/a auth required pam_permit.so' /etc/pam.d/motion")],
        "pam-order", "give access to users whom AD rejects", Fixed).tried(Users::OfAd).then(&[PAM]).short(),
    row("local passwords come first",
        &[Host("sed -i '1i auth sufficient pam_unix.so' /etc/pam.d/motion")],
        "pam-order", "before AD is queried", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("common-auth is included first",
        &[Host("sed -i '1i @include common-auth' /etc/pam.d/motion")],
        "pam-order", "users cannot log in: the auth lines reject users whom AD accepts", Fixed).tried(Users::OfAd).then(&[PAM]).short(),
    row("common-account is included first",
        &[Host("sed -i '1i @include common-account' /etc/pam.d/motion")],
        "pam-order", "users cannot log in: the account lines reject users whom AD accepts", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("both are included first",
        &[Host("sed -i '1i @include common-auth\\n@include common-account' /etc/pam.d/motion")],
        "pam-order", "users cannot log in", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("sufficient, and common-auth behind it",
        &[Host("sed -i 's/^auth *required/auth sufficient/; /^auth/a @include common-auth' /etc/pam.d/motion")],
        "pam-order", "give access to users whom AD rejects", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("a jump over one line, and common-auth behind it",
        &[Host("sed -i 's/^auth *required/auth [success=1 default=ignore]/; /^auth/a @include common-auth' /etc/pam.d/motion")],
        "pam-order", "the auth lines", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("common-auth copied in, with its jumps",
        &[Host("grep '^auth' /etc/pam.d/common-auth >/etc/pam.d/motion && grep -v '^#' /root/pam-motion >>/etc/pam.d/motion")],
        "pam-order", "users cannot log in", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("common-auth as a substack",
        &[Host("sed -i '1i auth substack common-auth' /etc/pam.d/motion")],
        "pam-order", "users cannot log in", Fixed).tried(Users::OfAd).then(&[PAM]),
    row("the service is closed on purpose",
        &[Host("sed -i '1i auth requisite pam_deny.so' /etc/pam.d/motion")],
        "pam-order", "line 1 (pam_deny.so)", ByHand(&[PAM])).tried(Users::OfAd),
    row("logins are only observed, and another line decides",
        &[Host("sed -i 's/^auth .*/auth [default=ignore] pam_motion_ad.so observe\\nauth required pam_permit.so/' /etc/pam.d/motion")],
        "pam-observe", "logins at motion are only observed", ByHand(&[PAM])).warns(),
    row("logins are only observed, and no line decides",
        &[Host("sed -i 's/^auth .*/auth [default=ignore] pam_motion_ad.so observe/' /etc/pam.d/motion")],
        "pam-observe", "users cannot log in: no auth line", ByHand(&[PAM])).tried(Users::OfAd),
    row("pam_sss stands beside us, and SSSD's group policies refuse the service",
        &[Host("cp -p /etc/sssd/sssd.conf /root/sssd.conf && sed -i '/^account/a account required pam_sss.so' /etc/pam.d/motion && \
            sed -i 's/^use_fully_qualified_names = .*/use_fully_qualified_names = False/' /etc/sssd/sssd.conf && systemctl restart sssd.service")],
        "pam-sss", "SSSD refuses the service motion",
        ByHand(&[Host("sed -i '/^access_provider = ad/a ad_gpo_map_permit = +motion' /etc/sssd/sssd.conf && systemctl restart sssd.service")]))
        .then(&[PAM, Host("cp -p /root/sssd.conf /etc/sssd/sssd.conf && systemctl restart sssd.service")]),
    row("the module's file is missing",
        &[Host("rm /usr/lib/*/security/pam_motion_ad.so")],
        "module-file", "pam_motion_ad.so: No such file", Here),
    row("the module's file is damaged",
        &[Host("truncate -s 4096 /usr/lib/*/security/pam_motion_ad.so")],
        "module-loads", "cannot be loaded", Here),

    // The host.
    row("the keytab is gone",
        &[Host("rm /etc/krb5.keytab")],
        "keytab", "does not exist", WithPassword).short(),
    row("every user may read the keytab",
        &[Host("chmod 0644 /etc/krb5.keytab")],
        "keytab-mode", "mode 0644", Here),
    row("the keytab has another key version than AD",
        &[Host(OTHER_VERSION)],
        "kvno", "AD has version", WithPassword),
    row("the machine's password was reset in AD",
        &[Step::Lab(&["machine", "reset"])],
        "machine-key", "`adcli join`", WithPassword).tried(Users::OfAd),
    row("the computer account was deleted in AD",
        &[Step::Lab(&["machine", "delete"])],
        "machine-key", "does not know", WithPassword),
    row("the computer account is disabled in AD",
        &[Dc("samba-tool user disable 'XCALLY$'")],
        "machine-key", "disabled", OnController),
    row("sssd.conf is gone, and the keytab is there",
        &[Host("cp -p /etc/sssd/sssd.conf /root/sssd.conf && rm /etc/sssd/sssd.conf")],
        "join", "only domain.name is missing", Fixed).tried(Users::OfAd)
        .then(&[Host("cp -p /root/sssd.conf /etc/sssd/sssd.conf"), PLAIN]),
    row("the host is not joined",
        &[Host("rm /etc/sssd/sssd.conf /etc/krb5.keytab")],
        "join", "not joined", WithPassword),
    row("resolv.conf names another host",
        &[Host("printf 'nameserver 10.73.0.99\\n' >/etc/resolv.conf")],
        "resolver", "10.73.0.99: does not answer: network or firewall between this host and it",
        ByHand(&[Host("cp -p /root/resolv.conf /etc/resolv.conf")])),
    row("the SRV record is missing",
        &[Step::Lab(&["dns", "srv", "remove", "_ldap._tcp.dc._msdcs", "ad.acme.com", "389", "0", "100"])],
        "srv-ldap", "_ldap._tcp.dc._msdcs.acme.com", OnController).warns(),
    row("the clock is ten minutes off",
        &[Host(TIME_SERVICE)],
        "clock", "this host is 6", Here).with(OWN_CLOCK).then(&[Host(NO_TIME_SERVICE)]),

    // The domain controller.
    row("port 389 is closed",
        &[Step::Lab(&["net", "refuse", "dc", "389/tcp"])],
        "dc-ldap", "refused", ByHand(&[HEAL])),
    row("port 88 is closed",
        &[Step::Lab(&["net", "refuse", "dc", "88/tcp"])],
        "dc-kdc", "port 88", ByHand(&[HEAL])),
    row("port 636 is closed, and nothing else will do",
        &[Configure("mode = \"ldaps\"\n"), Step::Lab(&["net", "refuse", "dc", "636/tcp"])],
        "dc-ldaps", "port 636", ByHand(&[HEAL])).then(&[PLAIN]),
    row("port 636 is closed, and StartTLS takes its place",
        &[Step::Lab(&["net", "refuse", "dc", "636/tcp"])],
        "dc-ldaps", "port 636", ByHand(&[HEAL])).warns(),
    row("the certificate has ended",
        &[Step::Lab(&["dc", "cert", "expired"])],
        "dc-tls", "has ended on 2021-01-01", ByHand(&[GOOD])),
    row("the certificate is for another name",
        &[Step::Lab(&["dc", "cert", "other-name"])],
        "dc-tls", "not for ad.acme.com", ByHand(&[GOOD])),
    row("the CA is not the domain controller's",
        &[Host("cp /root/other-ca.pem /etc/motion-ad/ca.pem")],
        "dc-tls", "no trusted root", ByHand(&[PLAIN])),
    row("the CA has ended",
        &[Host("cp /root/expired-ca.pem /etc/motion-ad/ca.pem")],
        "ca-file", "has ended on", ByHand(&[PLAIN])),

    // The configuration.
    row("config.toml cannot be parsed",
        &[Host("echo nonsense >>/etc/motion-ad/config.toml")],
        "config-file", "config.toml, line 5", ByHand(&[PLAIN])).short(),
    row("config.toml has a misspelt key",
        &[Configure("[login]\nalow_groups = [\"XCALLY Agents\"]\n")],
        "config-file", "did you mean `allow_groups`?", Fixed).tried(Users::OfGroup).then(&[PLAIN]).short(),
    row("config.toml opens a table twice",
        &[Configure("[login]\nwarn_days = 3\n[pool]\nidle = 60\n[login]\nallow_groups = [\"XCALLY Agents\"]\n")],
        "config-file", "[login] is already open at line 3; move the keys there", Fixed).tried(Users::OfGroup).then(&[PLAIN]),
    row("a key stands below a header that is a comment",
        &[Configure("#[sessions]\nca_file = \"/etc/motion-ad/redis.pem\"\n")],
        "config-file", "line 4: `ca_file` stands below #[sessions], which is a comment", ByHand(&[PLAIN])),
    row("the broker may not read the CA",
        &[Host("chmod 0600 /etc/motion-ad/ca.pem")],
        "config-readable", "motion-ad may not read /etc/motion-ad/ca.pem", Fixed),
    row("the name map is malformed",
        &[Host("echo nonsense >>/etc/motion-ad/names.map")],
        "names-map", "expected `xcally-name = user@domain`", ByHand(&[CLEAN_MAP])),
    row("the name map is in Latin-1",
        &[Host("printf 'j\\366rg = john.doe@acme.com\\n' >>/etc/motion-ad/names.map")],
        "names-map", "names.map, line 2: ", ByHand(&[CLEAN_MAP])),
    row("the name map leads to nobody",
        &[Host("echo 'ghost = jon.doe@acme.com' >>/etc/motion-ad/names.map")],
        "map-targets", "AD has no account jon.doe@acme.com", ByHand(&[CLEAN_MAP])).warns(),
    row("the base DN does not exist",
        &[Configure("[domain]\nbase_dn = \"cn=Usres,dc=acme,dc=com\"\n")],
        "base-dn", "did you mean 'CN=Users,DC=acme,DC=com'", ByHand(&[PLAIN])),
    row("this host may not read logonHours and userWorkstations",
        &[Dc(HIDE_LOGON_INFORMATION)],
        "restrictions", "this host cannot read logonHours", OnController).warns(),
    row("a configured group does not exist",
        &[Configure("[login]\nallow_groups = [\"XCALLY Agenst\"]\n")],
        "groups", "did you mean 'XCALLY Agents'?; login.allow_groups in /etc/motion-ad/config.toml, line 5",
        ByHand(&[Host("sed -i 's/Agenst/Agents/' /etc/motion-ad/config.toml")])).tried(Users::OfGroup).then(&[PLAIN]).short(),
    row("a group was renamed in AD",
        &[Configure("[login]\nallow_groups = [\"XCALLY Agents\"]\n"), Dc("samba-tool group rename 'XCALLY Agents' --samaccountname='XCALLY Agents DE'")],
        "groups", "did you mean 'XCALLY Agents DE'?",
        ByHand(&[Dc("samba-tool group rename 'XCALLY Agents DE' --samaccountname='XCALLY Agents' --reset-cn")])).tried(Users::OfGroup).then(&[PLAIN]),
    row("the Redis of the register does not answer",
        &[Configure("[sessions]\nstore = \"redis://ad.acme.com\"\n")],
        "sessions", "ad.acme.com:6379: Connection refused", ByHand(&[PLAIN])),
    row("the Redis of the register does not answer, and logins do without",
        &[Configure("[sessions]\nstore = \"redis://ad.acme.com\"\non_store_failure = \"allow\"\n")],
        "sessions", "ad.acme.com:6379: Connection refused", ByHand(&[PLAIN])).warns(),
    row("broker.users names nobody of this host",
        &[Configure("[broker]\nusers = [\"motion\", \"wwwdata\"]\n")],
        "broker-users", "there is no user wwwdata; did you mean \"www-data\"?", ByHand(&[PLAIN])).warns(),

    // The LDAP bridge.
    row("the bridge may not read its key",
        &[Host(CLOSED_KEY)],
        "config-readable", "motion-ad-ldap may not read /etc/motion-ad/ldap.key", Fixed).then(&[NO_BRIDGE]),
    row("the bridge's certificate is malformed: its socket accepts connections, and no process answers",
        &[Host("echo nonsense >/etc/motion-ad/ldap.pem; cp /etc/motion-ad/ldap.pem /etc/motion-ad/ldap.key; \
            chmod 0640 /etc/motion-ad/ldap.key; chown root:motion-ad-ldap /etc/motion-ad/ldap.key"), BRIDGE],
        "bridge-socket", "no LDAP bridge answers behind its socket",
        ByHand(&[Host("rm /etc/motion-ad/ldap.pem /etc/motion-ad/ldap.key")])).then(&[NO_BRIDGE]),
    row("bridge.service names a service that is missing",
        &[OTHER_SERVICE, BRIDGE],
        "pam-service", "/etc/pam.d/motion-bridge: No such file", ByHand(&[PLAIN])).then(&[PLAIN, NO_BRIDGE]),
    row("the bridge's own service lets everybody in",
        &[Host("printf 'auth optional pam_motion_ad.so\\nauth required pam_permit.so\\naccount required pam_motion_ad.so\\n' \
            >/etc/pam.d/motion-bridge"), OTHER_SERVICE, BRIDGE],
        "pam-order", "give access to users whom AD rejects",
        ByHand(&[Host("cp -p /root/pam-motion /etc/pam.d/motion-bridge")])).then(&[PLAIN, NO_BRIDGE]),
    row("the bridge's own service has no line of ours for accounts",
        &[Host("printf 'auth optional pam_motion_ad.so\\nauth required pam_permit.so\\n' >/etc/pam.d/motion-bridge"),
            OTHER_SERVICE, BRIDGE],
        "pam-lines", "/etc/pam.d/motion-bridge has no account line at all",
        ByHand(&[Host("cp -p /root/pam-motion /etc/pam.d/motion-bridge")])).then(&[PLAIN, NO_BRIDGE]),

    // XCALLY.
    row("Debian's camera daemon is installed",
        &[Host(CAMERA)],
        "camera", "camera daemon is installed", ByHand(&[Host("dpkg --purge motion; rm -f /var/tmp/motion.deb")])),
    row("the application may not read its PAM service",
        &[Host("chmod 0600 /etc/pam.d/motion")],
        "pam-readable", "motion may not read /etc/pam.d/motion", Fixed),
    row("the application's user is missing from broker.users",
        &[Configure("[broker]\nusers = [\"nobody\"]\n")],
        "reach", "motion does not reach the broker", ByHand(&[PLAIN])),
    row("every user may read .env",
        &[Host("chmod 0644 /var/opt/motion2/.env")],
        "env-mode", "mode 0644", ByHand(&[Host("chmod 0600 /var/opt/motion2/.env")])),
];

/// Removes the access of "Pre-Windows 2000 Compatible Access" to the property set User-Logon, with every
/// other entry that lets that group read it. Other property sets stay readable. samba-tool 4.17 cannot remove
/// access.
const HIDE_LOGON_INFORMATION: &str = r#"python3 - <<'END'
import ldb, re
from samba.auth import system_session
from samba.dcerpc import security
from samba.ndr import ndr_pack, ndr_unpack
from samba.param import LoadParm
from samba.samdb import SamDB
lp = LoadParm()
lp.load_default()
db = SamDB(url="/var/lib/samba/private/sam.ldb", session_info=system_session(), lp=lp)
own = security.dom_sid(db.get_domain_sid())
found = db.search("DC=acme,DC=com", scope=ldb.SCOPE_BASE, attrs=["nTSecurityDescriptor"])[0]
sddl = ndr_unpack(security.descriptor, found["nTSecurityDescriptor"][0]).as_sddl(own)
readable = r"\(OA;[A-Z]*;(RP;5f202010[^;]*|RPLCLORC;);bf967aba[^;]*;RU\)"
changed = security.descriptor.from_sddl(re.sub(readable, "", sddl, flags=re.I), own)
message = ldb.Message()
message.dn = found.dn
message["sd"] = ldb.MessageElement(ndr_pack(changed), ldb.FLAG_MOD_REPLACE, "nTSecurityDescriptor")
db.modify(message)
END"#;

/// Left-over configuration of XCALLY's built-in AD integration, on every server.
const LEFT: Row = row(
    "an administrator's password is left in .env",
    &[],
    "env-password",
    "XC_ACTIVEDIRECTORY_PASSWORD",
    ByHand(&[Host("sed -i '/XC_ACTIVEDIRECTORY_PASSWORD/d' /var/opt/motion2/.env")]),
)
.warns();

/// Runs every row.
pub fn full(lab: &Lab, report: &mut Report) -> Check {
    run(lab, report, ROWS.iter().collect())?;
    report.check("two files and a folder that the broker may not read are opened at once", || {
        several_at_once(
            lab,
            "chmod 0600 /etc/motion-ad/config.toml /etc/motion-ad/ca.pem && chmod 0700 /etc/motion-ad",
        )
    });
    report.check("a broken argument on both lines is corrected at once", || {
        several_at_once(lab, "sed -i '/pam_motion_ad/s/$/ timeout=5s/' /etc/pam.d/motion")
    });
    take(lab, PAM)?;
    report.check(
        "a fix after which the check does not pass is undone: the file byte for byte, with owner and mode",
        || taken_back(lab),
    );
    report.check("a unit that listens elsewhere, and lines that name its socket: --fix leaves them", || {
        socket_elsewhere(lab)
    });
    report.check("each wrong key of the machine is tried once", || one_attempt(lab));
    lab.run(&["machine", "restore"]).ok()?;
    report.check(
        "packets to the domain controller vanish: done in its time, and what can go on does",
        || {
            healthy(lab, "")?;
            lab.run(&["net", "blackhole", "dc"]).ok()?;
            let found = doctor(lab, "", &[]);
            lab.run(&["net", "heal", "dc"]).ok()?;
            let found = found?;
            let seen = "10.73.0.10: does not answer: network or firewall between this host and it";
            begins_with(&found, "resolver", "failure", seen)?;
            let ldap = found.check("dc-ldap")?;
            equal("dc-ldap", ldap["level"].as_str(), Some("failure")).map_err(|e| found.explain(e))?;
            contains("dc-ldap", &ldap["seen"].to_string(), "ad.acme.com")
        },
    );
    report.check("and then all is well again", || healthy(lab, ""));
    done(lab)
}

/// Runs the rows of the main suite.
pub fn short(lab: &Lab, report: &mut Report) -> Check {
    run(lab, report, ROWS.iter().filter(|row| row.is_short).collect())?;
    done(lab)
}

/// With one of two domain controllers dead, the doctor reports a warning, and does so in time.
pub fn two(lab: &Lab, report: &mut Report) -> Check {
    prepare(lab)?;
    lab.host_sh("sed -i '/XC_ACTIVEDIRECTORY_PASSWORD/d' /var/opt/motion2/.env").ok()?;
    report.check("two domain controllers: all is well", || healthy(lab, ""));
    for (how, node, host) in [("blackhole", "dc", "ad.acme.com"), ("blackhole", "dc2", "ad2.acme.com")] {
        report.check(&format!("{host} is dead: warnings, in its time"), || {
            lab.run(&["net", how, node]).ok()?;
            let found = doctor(lab, "", &[]);
            lab.run(&["net", "heal", node]).ok()?;
            let found = found?;
            equal("level", found.value["level"].as_str(), Some("warning")).map_err(|e| found.explain(e))?;
            equal("exit code", found.code, 1)?;
            let ldap = found.check("dc-ldap")?;
            equal("dc-ldap", ldap["level"].as_str(), Some("warning")).map_err(|e| found.explain(e))?;
            contains("dc-ldap", &ldap["seen"].to_string(), host)
        });
        report.check("and then all is well again", || healthy(lab, ""));
    }
    slow_and_dead(lab, report);
    done(lab)
}

/// Checks that the broker's health is no stricter than a login: a broker that starts while one domain
/// controller is dead and the other one answers late lets users log in, so nothing may say that it does not.
fn slow_and_dead(lab: &Lab, report: &mut Report) {
    for dead in ["dc2", "dc"] {
        let slow = if dead == "dc" { "dc2" } else { "dc" };
        report.check(
            &format!("{dead} is dead and {slow} answers late: users log in, and nothing fails"),
            || {
                lab.run(&["net", "blackhole", dead]).ok()?;
                lab.run(&["net", "delay", slow, LATE]).ok()?;
                let seen = restart(lab).and_then(|()| {
                    let (login, status, found) = thread::scope(|scope| {
                        // The control: a login at the same time.
                        let login = scope.spawn(|| john(lab));
                        let status = scope.spawn(|| lab.host("root", &["motion-ad", "status"], ""));
                        let found = doctor(lab, "", &[]);
                        (login.join(), status.join(), found)
                    });
                    let (Ok(login), Ok(status), found) = (login, status, found?) else {
                        return Err("a thread ended".to_owned());
                    };
                    println!("         the login took {:.1} s", login?.as_secs_f64());
                    equal("users cannot log in", status.stdout.contains("no user can log in"), false)
                        .map_err(|e| format!("{e}\n{}", status.stdout))?;
                    let state = found.check("broker-state")?;
                    equal("broker-state fails", state["level"].as_str() == Some("failure"), false)
                        .map_err(|e| found.explain(e))
                });
                [dead, slow]
                    .into_iter()
                    .try_for_each(|node| lab.run(&["net", "heal", node]).ok().map(drop))?;
                seen
            },
        );
        report.check("and then all is well again", || healthy(lab, ""));
    }
}

fn run(lab: &Lab, report: &mut Report, rows: Vec<&Row>) -> Check {
    prepare(lab)?;
    let before = lab.everybodys_counters()?;
    check(lab, report, &LEFT);
    report.check("a healthy host: no failure, no warning", || healthy(lab, ""));
    report.check("names of two accounts are listed until the name map decides", || {
        let lists = |text: &str| {
            let ran = lab.host("root", &["motion-ad", "doctor"], "");
            contains("the doctor", &ran.stdout, text)
        };
        lists(
            "clash (userPrincipalName of CN=clash.a,OU=People,DC=acme,DC=com, sAMAccountName of CN=clash,",
        )?;
        lab.write("/etc/motion-ad/names.map", "clash = ACME\\clash\n")?;
        let decided = lists("none among ");
        lab.write("/etc/motion-ad/names.map", "# nobody\n")?;
        decided
    });
    report.check(
        "a host whose name has 127.0.1.1 in /etc/hosts, as Debian's installer leaves it: all is \
                  well",
        || {
            lab.host_sh(
                "cp /etc/hosts /root/hosts; n=$(hostname); printf '127.0.0.1 localhost\n\
                     127.0.1.1 %s.acme.com %s\n' $n $n >/etc/hosts",
            )
            .ok()?;
            let seen = healthy(lab, "");
            lab.host_sh("cat /root/hosts >/etc/hosts").ok()?;
            seen
        },
    );
    login(lab, report);
    for row in rows {
        check(lab, report, row);
    }
    report.check("no wrong password was counted but the two that were given", || {
        let mut after = lab.everybodys_counters()?;
        let wendy = person("wendy").sam;
        if let (Some(seen), Some(counted)) = (before.get(wendy), after.get_mut(wendy)) {
            equal("wendy", counted.bad_passwords, seen.bad_passwords + 2)?;
            *counted = *seen;
        }
        equal("counters", after, before.clone())
    });
    lab.run(&["cast", "reset", "wendy"]).ok().map(drop)
}

/// Creates the state that the rows return to.
fn prepare(lab: &Lab) -> Check {
    lab.configure("")?;
    lab.host_sh("printf '# nobody\\n' >/etc/motion-ad/names.map; chmod 0644 /etc/motion-ad/names.map")
        .ok()?;
    lab.host_sh("cp -p /etc/pam.d/motion /root/pam-motion; cp -p /etc/resolv.conf /root/resolv.conf").ok()?;
    lab.host_sh("cp -p /var/opt/motion2/.env /root/env").ok()?;
    lab.host_sh(&format!(
        "id {LOCAL} || useradd --create-home --shell /bin/sh {LOCAL}; echo '{LOCAL}:{LOCAL_PASSWORD}' | \
         chpasswd"
    ))
    .ok()?;
    for (argument, name) in [("--other", "other-ca.pem"), ("--expired", "expired-ca.pem")] {
        let ca = lab.run(&["ca", argument]).ok()?;
        fs::copy(ca.trim(), lab.path(&format!("/root/{name}"))).map_err(|e| format!("{ca}: {e}"))?;
    }
    Ok(())
}

fn done(lab: &Lab) -> Check {
    lab.host_sh("cp -p /root/env /var/opt/motion2/.env").ok()?;
    lab.host_sh(&format!("userdel --remove {LOCAL}; rm -rf /etc/motion-ad/backup")).ok()?;
    lab.configure("")
}

/// Breaks the host, checks the doctor's first report, applies the cure, and checks that all is well.
fn check(lab: &Lab, report: &mut Report, row: &Row) {
    report.check(row.name, || {
        let broken = row.breaks.iter().try_for_each(|step| take(lab, *step));
        let seen = broken.and_then(|()| {
            let found = doctor(lab, row.environment, &[])?;
            begins_with(&found, row.first, row.level, row.seen)?;
            println!(
                "         {}: {}",
                row.first,
                found.check(row.first)?["seen"].as_str().unwrap_or_default()
            );
            cure(lab, row, &found)
        });
        let healed = seen.and_then(|()| healthy(lab, row.environment)).and_then(|()| tried(lab, row.users));
        // In any case, the next row begins with an intact host.
        let after = row.after.iter().try_for_each(|step| take(lab, *step));
        if healed.is_err()
            && let ByHand(steps) = row.cure
        {
            steps.iter().try_for_each(|step| take(lab, *step))?;
        }
        healed?;
        after
    });
}

fn take(lab: &Lab, step: Step) -> Check {
    match step {
        Host(script) => lab.host_sh(script).ok().map(drop),
        Dc(script) => lab.dc(&["sh", "-c", script]).ok().map(drop),
        Step::Lab(arguments) => lab.run(arguments).ok().map(drop),
        Configure(more) => lab.configure(more),
    }
}

fn cure(lab: &Lab, row: &Row, found: &Found) -> Check {
    match row.cure {
        Fixed => fixed(lab, row, found),
        ByHand(steps) => {
            unfixed(lab, row)?;
            steps.iter().try_for_each(|step| take(lab, *step))
        }
        Here | WithPassword | OnController => stepped(lab, row, found),
    }
}

/// Checks that `--fix --yes` repairs it, that other programs' files do not change, and that other services
/// still decide as before.
fn fixed(lab: &Lab, row: &Row, found: &Found) -> Check {
    let kinds = found.kinds(row.first);
    if !kinds.iter().any(|kind| kind == "edit" || kind == "run") {
        return Err(found.explain(format!("no fix, but {kinds:?}")));
    }
    let (files, decisions) = (others_files(lab)?, others_decisions(lab)?);
    let ran = lab.host("root", &["motion-ad", "doctor", "--fix", "--yes"], "");
    for line in ran.stdout.lines().take_while(|line| *line != "package and PAM") {
        println!("         {line}");
    }
    contains("--fix", &ran.stdout, &format!("{}: ", row.first))
        .map_err(|e| format!("{e}\n{}", ran.stderr))?;
    equal("exit status of --fix", ran.code, 0).map_err(|e| format!("{e}\n{}{}", ran.stdout, ran.stderr))?;
    same("/etc", &files, &others_files(lab)?)?;
    same("other PAM services", &decisions, &others_decisions(lab)?)
}

/// Checks that `--fix --yes` changes no file, not even this package's, and reports that the problem remains.
fn unfixed(lab: &Lab, row: &Row) -> Check {
    let all = "find /etc /var/opt/motion2 -type f -print0 | sort -z | xargs -0 sha256sum";
    let files = lines(lab, all)?;
    let ran = lab.host("root", &["motion-ad", "doctor", "--fix", "--yes"], "");
    let expected = if row.level == "failure" { 2 } else { 1 };
    equal("exit status of --fix", ran.code, expected)
        .map_err(|e| format!("{e}\n{}{}", ran.stdout, ran.stderr))?;
    same("files", &files, &lines(lab, all)?)
}

/// Runs the printed step exactly as printed.
fn stepped(lab: &Lab, row: &Row, found: &Found) -> Check {
    let place = if matches!(row.cure, OnController) { "samba" } else { "here" };
    let fixes = found.check(row.first)?["fix"].as_array().cloned().unwrap_or_default();
    let step = fixes.iter().find(|fix| fix["kind"] == "step" && fix["place"] == place);
    let command = step
        .and_then(|step| step["command"].as_str())
        .ok_or_else(|| found.explain(format!("no step for {place}")))?;
    println!("         {command}");
    // adcli 0.9.2, of Debian 13, reads a password from a terminal alone, unless it is told otherwise.
    let from_pipe = lab.host_release() == Release::Trixie && command.starts_with("adcli join");
    let command = if from_pipe { format!("{command} --stdin-password") } else { command.to_owned() };
    // In the folder of the package, and without a terminal to prompt on.
    let script = format!("cd {PACKAGES} && export DEBIAN_FRONTEND=noninteractive && {command}");
    let shell = ["setsid", "-w", "sh", "-c", &script];
    let ran = match row.cure {
        WithPassword => lab.host("root", &shell, &format!("{}\n", person("administrator").password)),
        OnController => lab.dc(&["sh", "-c", &command]),
        _ => lab.host("root", &shell, ""),
    };
    ran.ok().map(drop).map_err(|e| format!("{command}\n{e}"))
}

fn lines(lab: &Lab, script: &str) -> Result<Vec<String>, String> {
    Ok(lab.host_sh(script).ok()?.lines().map(str::to_owned).collect())
}

/// Returns every file of /etc that does not belong to this package, with its checksum.
fn others_files(lab: &Lab) -> Result<Vec<String>, String> {
    lines(
        lab,
        "find /etc -path /etc/motion-ad -prune -o -path /etc/pam.d/motion -prune -o -type f -print0 | sort \
         -z | xargs -0 sha256sum",
    )
}

/// Returns the decisions of other PAM services for a local user and root, with the right and a wrong
/// password.
fn others_decisions(lab: &Lab) -> Result<Vec<String>, String> {
    let users = [(LOCAL, LOCAL_PASSWORD), (LOCAL, "wrong"), ("root", "wrong")];
    let tries =
        ["su", "sudo", "login", "other"].into_iter().flat_map(|service| users.map(|user| (service, user)));
    // All at once, because pam_unix waits for seconds after each wrong password.
    let decisions: Vec<String> = thread::scope(|scope| {
        let running: Vec<_> = tries
            .map(|(service, (user, password))| {
                scope.spawn(move || {
                    let command = ["pamtester", service, user, "authenticate"];
                    let ran = lab.host(LOCAL, &command, &format!("{password}\n"));
                    format!("{service} {user} {password}: {}", ran.code)
                })
            })
            .collect();
        running.into_iter().map(|one| one.join().expect("a thread of the test ends")).collect()
    });
    // Makes sure that the comparison is meaningful: the right password is accepted, and a wrong one is not.
    let right = format!("su {LOCAL} {LOCAL_PASSWORD}: 0");
    if !decisions.contains(&right) || decisions.iter().any(|line| line.contains(" wrong: 0")) {
        return Err(format!("{decisions:?}"));
    }
    Ok(decisions)
}

fn same(what: &str, before: &[String], after: &[String]) -> Check {
    let only = |one: &[String], other: &[String]| -> Vec<String> {
        one.iter().filter(|line| !other.contains(line)).cloned().collect()
    };
    let (gone, new) = (only(before, after), only(after, before));
    match gone.is_empty() && new.is_empty() {
        true => Ok(()),
        false => Err(format!("{what}: {gone:?} became {new:?}")),
    }
}

/// Logs users in as the application does.
fn tried(lab: &Lab, users: Users) -> Check {
    if users == Users::Untried {
        return Ok(());
    }
    let comes_in = |name: &str, password: &str| {
        let ran = lab.host(
            "motion",
            &["pamtester", "motion", name, "authenticate", "acct_mgmt"],
            &format!("{password}\n"),
        );
        ran.code == 0
    };
    let (john, dora, otto) = (person("john"), person("dora"), person("otto"));
    for (name, password, expected) in [
        (john.sam, john.password, true),
        (dora.sam, dora.password, false),
        (otto.sam, otto.password, users == Users::OfAd),
        (LOCAL, LOCAL_PASSWORD, false),
        ("root", "wrong", false),
    ] {
        equal(&format!("{name} is let in"), comes_in(name, password), expected)?;
    }
    Ok(())
}

/// The doctor's report.
struct Found {
    code: i32,
    value: Value,
}

impl Found {
    fn check(&self, id: &str) -> Result<&Value, String> {
        let checks = self.value["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        checks.iter().find(|check| check["id"] == id).ok_or_else(|| format!("no check {id}"))
    }

    /// Returns the kinds of fixes that the doctor offers for a check.
    fn kinds(&self, id: &str) -> Vec<String> {
        let fixes =
            self.check(id).ok().and_then(|check| check["fix"].as_array()).cloned().unwrap_or_default();
        fixes.iter().filter_map(|fix| fix["kind"].as_str()).map(str::to_owned).collect()
    }

    /// Adds every check that is not ok to an error.
    fn explain(&self, error: String) -> String {
        let checks = self.value["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let wrong = checks.iter().filter(|check| check["level"] != "ok" && check["because"].is_null());
        wrong.fold(error, |text, check| {
            format!("{text}\n{} {}: {}", check["level"], check["id"], check["seen"])
        })
    }
}

fn doctor(lab: &Lab, environment: &str, arguments: &[&str]) -> Result<Found, String> {
    let ran = examine(lab, environment, arguments, "");
    let value: Value =
        serde_json::from_str(&ran.stdout).map_err(|e| format!("{e}\n{}{}", ran.stdout, ran.stderr))?;
    let found = Found { code: ran.code, value };
    let seconds = found.value["seconds"].as_f64().ok_or("no seconds")?;
    if seconds > WHOLE {
        return Err(found.explain(format!("it took {seconds} s")));
    }
    Ok(found)
}

fn examine(lab: &Lab, environment: &str, arguments: &[&str], input: &str) -> Ran {
    let command = format!("{environment}exec motion-ad doctor --json {}", arguments.join(" "));
    lab.host("root", &["sh", "-c", &command], input)
}

fn begins_with(found: &Found, first: &str, level: &str, seen: &str) -> Check {
    equal("the check to begin with", found.value["first"].as_str(), Some(first))
        .map_err(|e| found.explain(e))?;
    equal("its level", found.value["level"].as_str(), Some(level)).map_err(|e| found.explain(e))?;
    equal("exit code", found.code, if level == "failure" { 2 } else { 1 })?;
    let check = found.check(first)?;
    contains(first, check["seen"].as_str().unwrap_or_default(), seen)
}

/// Waits until every check is ok, because a broker may just be starting.
pub fn healthy(lab: &Lab, environment: &str) -> Check {
    wait(SETTLED, || {
        let found = doctor(lab, environment, &[])?;
        equal("level", found.value["level"].as_str(), Some("ok")).map_err(|e| found.explain(e))?;
        equal("skipped", found.value["counts"]["skipped"].as_u64(), Some(0)).map_err(|e| found.explain(e))?;
        equal("exit code", found.code, 0)
    })
}

/// One real login by the doctor, in which a wrong password counts once.
fn login(lab: &Lab, report: &mut Report) {
    let logs_in_by = |way: &[&str], key: &str, password: &str| {
        let arguments = [&["--password-stdin", "--login", person(key).sam], way].concat();
        let ran = examine(lab, "", &arguments, &format!("{password}\n"));
        let value: Value = serde_json::from_str(&ran.stdout).map_err(|e| format!("{e}\n{}", ran.stderr))?;
        Ok::<_, String>(Found { code: ran.code, value })
    };
    let logs_in = |key: &str, password: &str| logs_in_by(&[], key, password);
    report.check("--login: john comes in as the application's user", || {
        let found = logs_in("john", person("john").password)?;
        equal("exit code", found.code, 0).map_err(|e| found.explain(e))?;
        let login = found.check("login")?;
        contains(
            "login",
            login["seen"].as_str().unwrap_or_default(),
            "john.doe got access, tried as the user motion",
        )
    });
    report.check("--login: a wrong password is a failure, and counts once", || {
        let before = lab.counters(person("wendy").sam)?.bad_passwords;
        let found = logs_in("wendy", "not hers")?;
        begins_with(&found, "login", "failure", "authenticate answered PAM_AUTH_ERR")?;
        let seen = found.check("login")?["seen"].as_str().unwrap_or_default().to_owned();
        contains("the outcome", &seen, "wendy.wrong was rejected: wrong_password: ")?;
        contains("the line of the log", &seen, "log: event=login user=wendy.wrong ")?;
        if found.check("login")?["fix"].to_string().contains("may log in") {
            return Err(found.explain("it says that she may log in".to_owned()));
        }
        equal("badPwdCount", lab.counters(person("wendy").sam)?.bad_passwords, before + 1)
    });
    let by_bridge = |key: &str, password: &str| logs_in_by(&["--bridge"], key, password);
    report.check("--login --bridge: while the bridge is off, that is the failure", || {
        let found = by_bridge("john", person("john").password)?;
        begins_with(&found, "login", "failure", "the LDAP bridge at 127.0.0.1:3890: Connection refused")?;
        contains("the fix", &found.check("login")?["fix"].to_string(), "enable --now motion-ad-ldap.socket")
    });
    report.check("--login --bridge: john and wendy, each by one bind", || {
        lab.host_sh("systemctl enable --now motion-ad-ldap.socket").ok()?;
        let done = logins_by_bridge(lab, &by_bridge);
        bridge::disable(lab)?;
        done
    });
}

/// A login by the bridge is shown like one through PAM: outcome, reason and line of the log.
fn logins_by_bridge(lab: &Lab, by_bridge: &dyn Fn(&str, &str) -> Result<Found, String>) -> Check {
    let seen = |found: &Found| {
        Ok::<_, String>(found.check("login")?["seen"].as_str().unwrap_or_default().to_owned())
    };
    let found = by_bridge("john", person("john").password)?;
    equal("exit code", found.code, 0).map_err(|e| found.explain(e))?;
    let text = seen(&found)?;
    let place =
        "john.doe got access, tried as the user motion at the LDAP bridge at 127.0.0.1:3890, service motion";
    contains("john", &text, &format!("{place}: LDAP result 0; log: event=login user=john.doe "))?;
    contains("john's line", &text, "rhost=::1%motion-ad-ldap")?;
    let before = lab.counters(person("wendy").sam)?.bad_passwords;
    let found = by_bridge("wendy", "not hers")?;
    begins_with(&found, "login", "failure", "wendy.wrong was rejected: wrong_password: ")?;
    let text = seen(&found)?;
    contains("wendy", &text, "the bridge answered LDAP result 49 (80090308: ")?;
    contains("wendy", &text, "data 52e, ")?;
    contains("wendy's line", &text, "log: event=login user=wendy.wrong ")?;
    equal("badPwdCount", lab.counters(person("wendy").sam)?.bad_passwords, before + 1)
}

/// One `--fix` repairs a check that finds problems in several places.
fn several_at_once(lab: &Lab, breaks: &str) -> Check {
    lab.host_sh(breaks).ok()?;
    let ran = lab.host("root", &["motion-ad", "doctor", "--fix", "--yes"], "");
    equal("exit status of --fix", ran.code, 0).map_err(|e| format!("{e}\n{}{}", ran.stdout, ran.stderr))?;
    healthy(lab, "")
}

/// Checks that a fix that does not help is undone. A broken argument is corrected; meanwhile another program
/// writes one into a file that the service includes.
fn taken_back(lab: &Lab) -> Check {
    const FILE: &str = "/etc/pam.d/motion";
    let state = format!("stat -c '%u:%g %a' {FILE} && sha256sum {FILE}");
    lab.host_sh(&format!(
        "rm -rf /etc/motion-ad/backup; cp -p {FILE} /root/motion; echo 'session optional pam_permit.so' \
         >{FILE}-more; sed -i '/pam_motion_ad/s/$/ timeout=5s/' {FILE}; echo 'session include motion-more' \
         >>{FILE}; chown root:motion-ad {FILE}; chmod 0444 {FILE}; systemd-run --quiet --collect \
         --unit=meddler sh -c 'until [ -e /etc/motion-ad/backup ]; do :; done; echo session optional \
         pam_motion_ad.so timeout=6s >{FILE}-more'"
    ))
    .ok()?;
    let before = lab.host_sh(&state).ok()?;
    let ran = lab.host("root", &["motion-ad", "doctor", "--fix", "--yes"], "");
    let after = lab.host_sh(&state).ok()?;
    lab.host_sh(&format!(
        "systemctl stop meddler.service 2>/dev/null; rm {FILE}-more; mv /root/motion {FILE}; chmod 0644 \
         {FILE}"
    ))
    .ok()?;
    let all = |e: String| format!("{e}\n{}{}", ran.stdout, ran.stderr);
    contains("what became of it", &ran.stdout, "the check does not pass: undone").map_err(all)?;
    equal("the file", after, before)?;
    equal("exit status", ran.code, 2).map_err(all)?;
    healthy(lab, "")
}

/// Checks that a host whose unit and lines name another socket is well, and stays so.
fn socket_elsewhere(lab: &Lab) -> Check {
    const OTHER: &str = "/run/motion-ad/other.sock";
    const FOLDER: &str = "/etc/systemd/system/motion-ad.socket.d";
    const RESTART: &str = "systemctl daemon-reload && systemctl stop motion-ad.service motion-ad.socket && \
                           systemctl start motion-ad.socket motion-ad.service";
    lab.host_sh(&format!(
        "mkdir -p {FOLDER} && printf '[Socket]\\nListenStream=\\nListenStream={OTHER}\\n' \
         >{FOLDER}/other.conf && {RESTART} && sed -i '/pam_motion_ad/s,$, socket={OTHER},' /etc/pam.d/motion"
    ))
    .ok()?;
    let seen = wait(SETTLED, || john(lab).map(drop)).and_then(|()| {
        let arguments = |found: &Found| {
            let check = found.check("pam-arguments")?;
            equal("pam-arguments", check["level"].as_str(), Some("ok")).map_err(|e| found.explain(e))
        };
        arguments(&doctor(lab, "", &[])?)?;
        let before = lab.host_sh("cat /etc/pam.d/motion").ok()?;
        lab.host("root", &["motion-ad", "doctor", "--fix", "--yes"], "");
        equal("the service", lab.host_sh("cat /etc/pam.d/motion").ok()?, before)?;
        john(lab).map(drop)
    });
    lab.host_sh(&format!("rm -r {FOLDER}; {RESTART}")).ok()?;
    take(lab, PAM)?;
    seen.and_then(|()| healthy(lab, ""))
}

/// Checks that the doctor tries each outdated machine key only once: the newest, and the older one. Broker
/// and SSSD are stopped so that they do not try it.
fn one_attempt(lab: &Lab) -> Check {
    let counted = || -> Result<u32, String> {
        let search =
            ["ldbsearch", "-H", "/var/lib/samba/private/sam.ldb", "(sAMAccountName=XCALLY$)", "badPwdCount"];
        let text = lab.dc(&search).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("badPwdCount: "));
        line.map_or(Ok(0), |count| count.trim().parse().map_err(|e| format!("{count}: {e}")))
    };
    lab.run(&["machine", "reset"]).ok()?;
    lab.host_sh("systemctl stop motion-ad.socket motion-ad.service").ok()?;
    lab.host_sh("systemctl stop sssd.service").ok()?;
    let before = counted()?;
    let found = doctor(lab, "", &[]);
    let after = counted()?;
    lab.host_sh("systemctl start sssd.service motion-ad.socket motion-ad.service").ok()?;
    let key = found?;
    contains("machine-key", &key.check("machine-key")?["seen"].to_string(), "does not accept the key")?;
    match after.saturating_sub(before) {
        0..=2 => Ok(()),
        more => Err(format!("{more} attempts with two keys")),
    }
}
