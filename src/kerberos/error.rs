//! Why Kerberos failed, in words, with what to do about it.

use libgssapi::error::Error as GssError;

/// A failure of the machine's credential or of a Kerberos exchange.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KerberosError {
    /// There is no keytab.
    #[error("the keytab {0} does not exist: join the domain with `realm join`")]
    KeytabMissing(String),
    /// The keytab cannot be read.
    #[error(
        "the keytab {path} cannot be read ({cause}): check its owner and mode, or join again with `realm join`"
    )]
    KeytabUnreadable {
        /// The keytab.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// The keytab holds no key.
    #[error("the keytab {0} holds no key: join the domain with `realm join`")]
    KeytabEmpty(String),
    /// The keytab holds keys, but not the machine account's.
    #[error(
        "the keytab {path} holds no key of a machine account (only {found}): join the domain with `realm join`"
    )]
    NoMachinePrincipal {
        /// The keytab.
        path: String,
        /// What it holds instead.
        found: String,
    },
    /// The KDC does not accept the key.
    #[error(
        "the KDC does not accept the key of {0}: the machine password was changed or the computer account was \
         reset; renew the keytab with `adcli update` or join again with `realm join`"
    )]
    KeyRejected(String),
    /// The KDC does not know the machine account.
    #[error(
        "the KDC does not know {0}: the computer account was deleted or renamed; join again with `realm join`"
    )]
    AccountUnknown(String),
    /// The machine account is disabled, expired or locked.
    #[error("the computer account of {0} is disabled, expired or locked: enable it in AD")]
    AccountRevoked(String),
    /// The clocks differ by more than the domain allows (RFC 4120, 7.5.9: KRB_AP_ERR_SKEW).
    #[error("the clocks of this host and of the KDC differ too much: synchronise this host's clock (NTP)")]
    ClockSkew,
    /// No KDC answers, or none is known.
    #[error("no KDC of the realm {0} can be reached: check DNS, krb5.conf and the network (port 88)")]
    KdcUnreachable(String),
    /// The KDC does not know the service that was asked for.
    #[error("the KDC knows no service {0}: the domain controller's name is wrong or its SPN is missing")]
    ServiceUnknown(String),
    /// KDC and keytab have no encryption type in common.
    #[error("the KDC and the keytab of {0} have no encryption type in common: renew it with `adcli update`")]
    NoCommonEncryption(String),
    /// A ticket has ended, or has too little left: Samba serves none with less than two minutes (CVE-2022-2031).
    #[error("the ticket of {0} has ended")]
    TicketEnded(String),
    /// The deadline passed first.
    #[error("the KDC did not answer in time")]
    Stalled,
    /// Anything else, as the library says it.
    #[error("{0}")]
    Other(String),
}

impl KerberosError {
    /// Whether trying again soon is pointless, because the join itself has to be mended. The KDC counts
    /// attempts with a wrong key as wrong passwords.
    pub fn needs_an_administrator(&self) -> bool {
        !matches!(
            self,
            KerberosError::KdcUnreachable(_)
                | KerberosError::ServiceUnknown(_)
                | KerberosError::TicketEnded(_)
                | KerberosError::Stalled
                | KerberosError::Other(_)
        )
    }

    /// What GSSAPI's minor code means for `principal`, who asked for `service`.
    pub(super) fn from_gss(error: &GssError, principal: &str, service: &str) -> Self {
        // libgssapi hands the code on as unsigned; libkrb5's own codes are negative.
        let code = error.minor.cast_signed();
        Self::from_code(code, principal, service).unwrap_or_else(|| KerberosError::Other(error.to_string()))
    }

    /// The codes are those of MIT's `krb5_err.et`; the KDC's are that base plus the number of RFC 4120, 7.5.9.
    fn from_code(code: i32, principal: &str, service: &str) -> Option<Self> {
        let realm = || principal.rsplit_once('@').map_or(principal, |(_, realm)| realm).to_owned();
        Some(match code {
            // KDC_ERR_PREAUTH_FAILED, and KRB_AP_ERR_BAD_INTEGRITY from KDCs without pre-authentication.
            -1765328360 | -1765328353 => KerberosError::KeyRejected(principal.to_owned()),
            -1765328378 => KerberosError::AccountUnknown(principal.to_owned()),
            // KDC_ERR_CLIENT_REVOKED, KDC_ERR_KEY_EXPIRED.
            -1765328366 | -1765328361 => KerberosError::AccountRevoked(principal.to_owned()),
            // KRB_AP_ERR_SKEW, KRB_AP_ERR_TKT_NYV, KRB5_KDCREP_SKEW.
            -1765328347 | -1765328351 | -1765328236 => KerberosError::ClockSkew,
            // KRB5_KDC_UNREACH, KRB5_REALM_UNKNOWN, KRB5_REALM_CANT_RESOLVE.
            -1765328228 | -1765328230 | -1765328164 => KerberosError::KdcUnreachable(realm()),
            -1765328352 => KerberosError::TicketEnded(principal.to_owned()),
            -1765328377 => KerberosError::ServiceUnknown(service.to_owned()),
            // KDC_ERR_ETYPE_NOSUPP; KRB5_KT_NOTFOUND is what the client says when the KDC offers other types.
            -1765328370 | -1765328203 => KerberosError::NoCommonEncryption(principal.to_owned()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_name_their_cause() {
        let machine = "XCALLY$@ACME.COM";
        let cases = [
            (-1765328360, KerberosError::KeyRejected(machine.into())),
            (-1765328378, KerberosError::AccountUnknown(machine.into())),
            (-1765328366, KerberosError::AccountRevoked(machine.into())),
            (-1765328347, KerberosError::ClockSkew),
            (-1765328228, KerberosError::KdcUnreachable("ACME.COM".into())),
            (-1765328230, KerberosError::KdcUnreachable("ACME.COM".into())),
            (-1765328377, KerberosError::ServiceUnknown("ldap/ad.acme.com".into())),
        ];
        for (code, expected) in cases {
            assert_eq!(KerberosError::from_code(code, machine, "ldap/ad.acme.com"), Some(expected), "{code}");
        }
        assert_eq!(KerberosError::from_code(5, machine, ""), None);
    }

    #[test]
    fn what_can_pass_by_itself_is_tried_again_soon() {
        assert!(!KerberosError::Stalled.needs_an_administrator());
        assert!(!KerberosError::KdcUnreachable("ACME.COM".into()).needs_an_administrator());
        assert!(KerberosError::KeyRejected("XCALLY$@ACME.COM".into()).needs_an_administrator());
        assert!(KerberosError::ClockSkew.needs_an_administrator());
    }
}
