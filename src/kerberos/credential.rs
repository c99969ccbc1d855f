//! The machine's credential: a ticket for the computer account, got with the key in the host keytab.

use std::fmt;
use std::time::Duration;

use libgssapi::credential::{Cred, CredUsage};
use libgssapi::error::Error as GssError;
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_KRB5_PRINCIPAL, OidSet};
use tokio::time::Instant;

use super::blocking::blocking;
use super::{KerberosError, krb5};

/// A ticket-granting ticket of the machine account.
///
/// libkrb5 keeps it in the cache that `KRB5CCNAME` names and renews it from the keytab in the second half of
/// its life, whenever [`Credential::acquire`] is called; nothing renews a credential that is already in use.
#[derive(Clone)]
pub struct Credential {
    pub(super) cred: Cred,
    principal: String,
    expires: Instant,
}

impl Credential {
    /// Gets the credential, from the cache or from the KDC.
    ///
    /// # Errors
    /// The keytab, the machine account, the clock or the KDC is at fault, or the deadline passed.
    pub async fn acquire(deadline: Instant) -> Result<Self, KerberosError> {
        blocking(deadline, acquire).await?
    }

    /// Forgets every ticket that this process holds. Contexts that are already established go on.
    ///
    /// # Errors
    /// The cache could not be emptied, or the deadline passed.
    pub async fn forget(deadline: Instant) -> Result<(), KerberosError> {
        blocking(deadline, krb5::forget_tickets).await?
    }

    /// The machine account's name with its realm: `XCALLY$@ACME.COM`.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// The realm of [`Credential::principal`].
    pub fn realm(&self) -> &str {
        self.principal.rsplit_once('@').map_or("", |(_, realm)| realm)
    }

    /// When the ticket ends.
    pub fn expires(&self) -> Instant {
        self.expires
    }

    /// How long the ticket is still good.
    pub fn remaining(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `Cred` would ask the library, which may ask the KDC.
        f.debug_struct("Credential").field("principal", &self.principal).finish_non_exhaustive()
    }
}

fn acquire() -> Result<Credential, KerberosError> {
    let keytab = krb5::client_keytab()?;
    let principal = machine_principal(&keytab)?.to_owned();
    let failed = |e: GssError| KerberosError::from_gss(&e, &principal, "krbtgt");
    // Without a name libkrb5 would take the keytab's first entry, which is often `host/…`; AD gives no ticket
    // for a service name.
    let name = Name::new(principal.as_bytes(), Some(GSS_NT_KRB5_PRINCIPAL)).map_err(failed)?;
    let mechanism = OidSet::singleton(GSS_MECH_KRB5).map_err(failed)?;
    let cred = Cred::acquire(Some(&name), None, CredUsage::Initiate, Some(&mechanism)).map_err(failed)?;
    // The KDC is asked here, not above (MIT's `kg_cred_resolve`).
    let lifetime = cred.lifetime().map_err(failed)?;
    Ok(Credential { cred, expires: Instant::now() + lifetime, principal })
}

/// The computer account's principal (its `sAMAccountName` ends in `$`), else the host's.
fn machine_principal(keytab: &krb5::Keytab) -> Result<&str, KerberosError> {
    let names = || keytab.entries.iter().map(|entry| entry.principal.as_str());
    let account = |name: &&str| name.rsplit_once('@').is_some_and(|(name, _)| name.ends_with('$'));
    names().find(account).or_else(|| names().find(|name| name.starts_with("host/"))).ok_or_else(|| {
        let mut found: Vec<_> = names().collect();
        found.sort_unstable();
        found.dedup();
        KerberosError::NoMachinePrincipal { path: keytab.name.clone(), found: found.join(", ") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keytab(principals: &[&str]) -> krb5::Keytab {
        let entry = |name: &&str| krb5::KeytabEntry { principal: (*name).into(), version: 1, encryption: 18 };
        krb5::Keytab { name: "/etc/krb5.keytab".into(), entries: principals.iter().map(entry).collect() }
    }

    #[test]
    fn the_computer_account_is_chosen_wherever_it_stands() {
        let cases: [(&[&str], &str); 4] = [
            (&["XCALLY$@ACME.COM", "host/XCALLY@ACME.COM"], "XCALLY$@ACME.COM"),
            (
                &["host/XCALLY@ACME.COM", "host/xcally.acme.com@ACME.COM", "XCALLY$@ACME.COM"],
                "XCALLY$@ACME.COM",
            ),
            (&["HTTP/x@ACME.COM", "host/x.acme.com@ACME.COM"], "host/x.acme.com@ACME.COM"),
            (&["host/x$y@ACME.COM"], "host/x$y@ACME.COM"),
        ];
        for (principals, chosen) in cases {
            assert_eq!(machine_principal(&keytab(principals)), Ok(chosen));
        }
    }

    #[test]
    fn a_keytab_of_somebody_else_is_refused_by_name() {
        let error = machine_principal(&keytab(&["HTTP/x@ACME.COM", "HTTP/x@ACME.COM"])).unwrap_err();
        assert!(error.to_string().contains("(only HTTP/x@ACME.COM)"), "{error}");
    }
}
