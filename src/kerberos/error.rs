//! Failures of Kerberos, with their causes and fixes as texts.

use std::io;
use std::time::{Duration, SystemTime};

use libgssapi::error::Error as GssError;

use crate::scarce;

/// Maximum difference of the clocks (RFC 4120, 7.5.2; AD's default, MaxClockSkew). libkrb5 would adopt a
/// KDC's time, however wrong, and accept expired tickets.
const MAX_SKEW: Duration = Duration::from_secs(300);

/// Difference between two clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skew {
    /// The KDC.
    pub kdc: String,
    /// Seconds that this host is ahead of the KDC; negative if it is behind.
    pub ahead: i64,
}

impl std::fmt::Display for Skew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = if self.ahead < 0 { "behind" } else { "ahead of" };
        let seconds = self.ahead.unsigned_abs();
        write!(f, "the clocks differ by {seconds} s: this host is {side} {}", self.kdc)
    }
}

impl Skew {
    /// Returns the difference between `now`, this host's time, and `theirs`, the KDC's.
    pub fn between(now: SystemTime, theirs: SystemTime, kdc: &str) -> Self {
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        let ahead = now.duration_since(theirs).map_or_else(|e| -seconds(e.duration()), seconds);
        Skew { kdc: kdc.to_owned(), ahead }
    }

    /// Returns true if Kerberos rejects the difference.
    pub fn is_too_much(&self) -> bool {
        self.ahead.unsigned_abs() > MAX_SKEW.as_secs()
    }
}

/// A failure of the machine's credential or of a Kerberos exchange.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KerberosError {
    /// There is no keytab.
    #[error(
        "the keytab {0} does not exist: join again with `adcli join`, as `motion-ad doctor` prints it, or \
         for the first time with `realm join`"
    )]
    KeytabMissing(String),
    /// The keytab cannot be read.
    #[error(
        "the keytab {path} cannot be read ({cause}): {}",
        scarce::advice_for(.cause).unwrap_or(
            "check its owner and mode, or join again with `adcli join`, as `motion-ad doctor` prints it"
        )
    )]
    KeytabUnreadable {
        /// The keytab.
        path: String,
        /// The system's error message.
        cause: String,
    },
    /// The keytab holds no key.
    #[error(
        "the keytab {0} holds no key: join again with `adcli join`, as `motion-ad doctor` prints it, or \
         for the first time with `realm join`"
    )]
    KeytabEmpty(String),
    /// The keytab holds keys, but not the machine account's.
    #[error(
        "the keytab {path} holds no key of a machine account (only {found}): join again with `adcli join`, \
         as `motion-ad doctor` prints it"
    )]
    NoMachinePrincipal {
        /// The keytab.
        path: String,
        /// Principals that it holds instead.
        found: String,
    },
    /// The KDC does not accept the key.
    #[error(
        "the KDC does not accept the key of {principal}{}: the machine password was changed or the computer \
         account was reset; join again with `adcli join`, as `motion-ad doctor` prints it",
        versions(.version, .older)
    )]
    KeyRejected {
        /// The machine account.
        principal: String,
        /// The version of the tried key, which is the newest (`msDS-KeyVersionNumber`).
        version: Option<u32>,
        /// The next older version in the keytab, which is tried as well.
        older: Option<u32>,
    },
    /// The KDC does not know the machine account.
    #[error(
        "the KDC does not know {0}: the computer account was deleted or renamed; join again with \
         `adcli join`, as `motion-ad doctor` prints it"
    )]
    AccountUnknown(String),
    /// The machine account is disabled, expired or locked.
    #[error("the computer account of {0} is disabled, expired or locked: enable it in AD")]
    AccountRevoked(String),
    /// The clocks differ by more than the domain allows (RFC 4120, 7.5.9: KRB_AP_ERR_SKEW).
    #[error("{0}: synchronise this host's clock (NTP)")]
    ClockSkew(Skew),
    /// The same, reported without the KDC's time.
    #[error("the clocks of this host and of the KDC differ too much: synchronise this host's clock (NTP)")]
    Clocks,
    /// No KDC answers, or none is known.
    #[error("no KDC of the realm {realm} can be reached ({causes}): check DNS and the network (port 88)")]
    KdcUnreachable {
        /// The realm.
        realm: String,
        /// The causes, KDC by KDC.
        causes: String,
    },
    /// The KDC does not know the requested service.
    #[error("the KDC knows no service {0}: the domain controller's name is wrong or its SPN is missing")]
    ServiceUnknown(String),
    /// KDC and keytab have no encryption type in common.
    #[error(
        "the KDC and the keytab of {0} have no encryption type in common: join again with `adcli join`, as \
         `motion-ad doctor` prints it"
    )]
    NoCommonEncryption(String),
    /// A ticket has ended, or has too little life left: Samba accepts none with less than two minutes
    /// (CVE-2022-2031).
    #[error("the ticket of {0} has ended")]
    TicketEnded(String),
    /// The deadline passed before the KDC's answer.
    #[error("the KDC did not answer in time{0}")]
    Stalled(String),
    /// Any other failure, with the library's text.
    #[error("{0}")]
    Other(String),
}

impl KerberosError {
    /// Returns true if an early retry is pointless, because the join itself needs a fix. The KDC counts
    /// attempts with a wrong key as wrong passwords.
    pub fn needs_an_administrator(&self) -> bool {
        !matches!(
            self,
            KerberosError::KdcUnreachable { .. }
                | KerberosError::ServiceUnknown(_)
                | KerberosError::TicketEnded(_)
                | KerberosError::Stalled(_)
                | KerberosError::Other(_)
        )
    }

    /// Interprets GSSAPI's minor code for `principal`, which requested `service`.
    pub(super) fn from_gss(error: &GssError, principal: &str, service: &str) -> Self {
        // libgssapi returns the code as unsigned; libkrb5's codes are negative.
        let code = error.minor.cast_signed();
        Self::from_code(code, principal, service).unwrap_or_else(|| KerberosError::Other(error.to_string()))
    }

    /// The codes are from MIT's `krb5_err.et`; KDC errors are its base plus the number in RFC 4120, 7.5.9.
    pub(super) fn from_code(code: i32, principal: &str, service: &str) -> Option<Self> {
        let principal = || principal.to_owned();
        Some(match code {
            // KDC_ERR_PREAUTH_FAILED, and KRB_AP_ERR_BAD_INTEGRITY from KDCs without pre-authentication.
            -1765328360 | -1765328353 => {
                KerberosError::KeyRejected { principal: principal(), version: None, older: None }
            }
            -1765328378 => KerberosError::AccountUnknown(principal()),
            // KDC_ERR_CLIENT_REVOKED, KDC_ERR_KEY_EXPIRED.
            -1765328366 | -1765328361 => KerberosError::AccountRevoked(principal()),
            // KRB_AP_ERR_SKEW, KRB_AP_ERR_TKT_NYV, KRB5_KDCREP_SKEW.
            -1765328347 | -1765328351 | -1765328236 => KerberosError::Clocks,
            -1765328352 => KerberosError::TicketEnded(principal()),
            -1765328377 => KerberosError::ServiceUnknown(service.to_owned()),
            // KDC_ERR_ETYPE_NOSUPP; KRB5_KT_NOTFOUND is the client's error if the KDC offers other types.
            -1765328370 | -1765328203 => KerberosError::NoCommonEncryption(principal()),
            _ => return None,
        })
    }
}

/// Returns true if libkrb5's `code` says that a ticket which was just issued has ended or is not valid yet,
/// or that the clocks differ: the clock of this host is wrong, or that of a domain controller.
pub(super) fn is_of_clocks(code: i32) -> bool {
    let error = KerberosError::from_code(code, "", "");
    matches!(error, Some(KerberosError::Clocks | KerberosError::TicketEnded(_)))
}

/// `ERROR_TABLE_BASE_krb5` (MIT's `krb5_err.et`).
const TABLE_BASE: i32 = -1765328384;

/// Returns libkrb5's code for the code of a KDC's refusal; 0 if there is none.
pub(super) fn library_code(refused: u32) -> i32 {
    i32::try_from(refused).ok().and_then(|code| code.checked_add(TABLE_BASE)).unwrap_or_default()
}

fn versions(version: &Option<u32>, older: &Option<u32>) -> String {
    match (version, older) {
        (Some(version), Some(older)) => {
            format!(" (version {version}, the newest; the keytab also holds version {older}, an older one)")
        }
        (Some(version), None) => format!(" (version {version})"),
        _ => String::new(),
    }
}

/// Reason why there is no sealed connection.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The deadline passed.
    #[error("no answer in time")]
    Timeout,
    /// TCP failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Kerberos failed.
    #[error("{0}")]
    Kerberos(#[from] KerberosError),
    /// The server refused the bind.
    #[error("the server refused the machine account's bind (LDAP result {code}: {text})")]
    Refused {
        /// LDAP result code (RFC 4511, 4.1.9).
        code: u32,
        /// The server's text.
        text: String,
    },
    /// The server did not answer a step of the bind.
    #[error("the bind was not answered: {0}")]
    Unanswered(#[from] crate::ldap::ExchangeError),
    /// The server violates the RFCs, or offers too little.
    #[error("{0}")]
    Protocol(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kerberos::exchange::Ended;
    use crate::kerberos::kdcs::Unanswered;
    use crate::kerberos::krb5::Refused;

    fn rejected(version: Option<u32>, older: Option<u32>) -> KerberosError {
        KerberosError::KeyRejected { principal: "XCALLY$@ACME.COM".into(), version, older }
    }

    #[test]
    fn codes_name_their_cause() {
        let machine = "XCALLY$@ACME.COM";
        let cases = [
            (24, rejected(None, None)),
            (6, KerberosError::AccountUnknown(machine.into())),
            (18, KerberosError::AccountRevoked(machine.into())),
            (37, KerberosError::Clocks),
            (32, KerberosError::TicketEnded(machine.into())),
            (7, KerberosError::ServiceUnknown("ldap/ad.acme.com".into())),
            (14, KerberosError::NoCommonEncryption(machine.into())),
        ];
        for (code, expected) in cases {
            let service = "ldap/ad.acme.com";
            assert_eq!(KerberosError::from_code(TABLE_BASE + code, machine, service), Some(expected.clone()));
            let code = u32::try_from(code).unwrap();
            let refused = Refused { code, time: std::time::UNIX_EPOCH, data: vec![] };
            let ended = Ended::Refused { refused, kdc: "ad".into(), armoured: false, proved: true };
            assert_eq!(ended.error(machine, service), expected, "{code}");
        }
        assert_eq!(KerberosError::from_code(5, machine, ""), None);
    }

    #[test]
    fn a_keytab_that_cannot_be_opened_for_want_of_descriptors_says_so() {
        let text = |cause: &str| {
            let (path, cause) = ("/etc/krb5.keytab".to_owned(), cause.to_owned());
            KerberosError::KeytabUnreadable { path, cause }.to_string()
        };
        let full = text("Too many open files");
        assert!(full.contains("LimitNOFILE=") && !full.contains("join"), "{full}");
        assert!(text("Permission denied").contains("check its owner and mode"));
    }

    #[test]
    fn a_key_that_is_rejected_names_its_version() {
        assert!(rejected(Some(3), None).to_string().contains("of XCALLY$@ACME.COM (version 3): "));
        let text = rejected(Some(3), Some(2)).to_string();
        assert!(
            text.contains("(version 3, the newest; the keytab also holds version 2, an older one)"),
            "{text}"
        );
    }

    #[test]
    fn what_can_pass_by_itself_is_tried_again_soon() {
        let silent = |late| {
            let (realm, causes) = ("ACME.COM".to_owned(), "ad: refused".to_owned());
            Ended::Unanswered(Unanswered { realm, causes, late }).error("", "")
        };
        assert_eq!(silent(true).to_string(), "the KDC did not answer in time (ad: refused)");
        assert!(
            silent(false)
                .to_string()
                .starts_with("no KDC of the realm ACME.COM can be reached (ad: refused)")
        );
        assert!(!silent(true).needs_an_administrator() && !silent(false).needs_an_administrator());
        assert!(rejected(None, None).needs_an_administrator());
        assert!(KerberosError::Clocks.needs_an_administrator());
    }
}
