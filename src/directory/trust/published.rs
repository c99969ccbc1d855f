//! The forest's published public key infrastructure: the root CAs that it trusts, and CRLs.
//!
//! Both are objects under `CN=Public Key Services,CN=Services` of the configuration partition. Windows CAs
//! publish there by default, and `certutil -dspublish` publishes the output of an offline CA there.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeSet;

use ldap3::Scope;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use super::super::configuration::{naming_context, search_below};
use super::super::entry::Entry;
use super::super::machine::{MachineError, Search};
use super::Machine;

/// Maximum number of root CAs, and of objects that name some.
const ROOTS: usize = 100;
/// Maximum number of objects with a CRL.
const LISTS: usize = 64;
/// Maximum length of a CRL in bytes: about 100,000 revoked certificates.
pub(super) const LIST: usize = 4 << 20;
/// Maximum total number of bytes of AD's CRLs, and again of all fetched ones.
pub(super) const ALL_LISTS: usize = 16 << 20;

/// Trusted roots and CRLs, in DER.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) roots: BTreeSet<Vec<u8>>,
    pub(super) crls: BTreeSet<Vec<u8>>,
}

/// AD's answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) published: Published,
    /// Skipped parts, as texts for the administrator.
    pub(super) notes: Vec<String>,
}

impl Published {
    /// Returns the roots in rustls' form.
    pub(super) fn authorities(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        self.roots.iter().map(|root| CertificateDer::from(root.clone()))
    }
}

/// Reads the data that the forest publishes now. If the CRLs cannot be read, those of `last` stay.
///
/// # Errors
/// Returns an error if the roots cannot be read before `deadline`.
pub(super) async fn read<M: Machine>(
    machine: &M,
    last: &Published,
    deadline: Instant,
) -> Result<Answer, MachineError> {
    let configuration = naming_context(machine, deadline).await?;
    let services = format!("CN=Public Key Services,CN=Services,{configuration}");
    let mut answer = Answer::default();
    let authorities = search_below(
        format!("CN=Certification Authorities,{services}"),
        Scope::OneLevel,
        "(objectClass=certificationAuthority)",
        &["cACertificate"],
        ROOTS,
    );
    for entry in existing(machine, &authorities, deadline).await? {
        for root in values(&entry, "cACertificate") {
            if answer.published.roots.len() == ROOTS {
                answer
                    .notes
                    .push(format!("the forest trusts more than {ROOTS} roots; the others are skipped"));
                break;
            }
            answer.published.roots.insert(root.to_vec());
        }
    }
    let points = search_below(
        format!("CN=CDP,{services}"),
        Scope::Subtree,
        "(objectClass=cRLDistributionPoint)",
        &["certificateRevocationList"],
        LISTS,
    );
    match existing(machine, &points, deadline).await {
        Ok(entries) => answer.take_lists(&entries),
        Err(error) => {
            answer.published.crls.clone_from(&last.crls);
            answer.notes.push(format!("AD's CRLs cannot be read, the last ones stay in use: {error}"));
        }
    }
    Ok(answer)
}

impl Answer {
    fn take_lists(&mut self, entries: &[Entry]) {
        let mut total = 0;
        for entry in entries {
            for list in values(entry, "certificateRevocationList") {
                let with_it = list.len().saturating_add(total);
                if list.len() > LIST || with_it > ALL_LISTS {
                    let text = format!(
                        "the CRL of {} is too long ({} bytes) and is skipped",
                        entry.dn(),
                        list.len()
                    );
                    self.notes.push(text);
                    continue;
                }
                total = with_it;
                self.published.crls.insert(list.to_vec());
            }
        }
    }
}

/// Searches, and returns no entries if the container is missing, as in a forest without a CA.
async fn existing<M: Machine>(
    machine: &M,
    search: &Search,
    deadline: Instant,
) -> Result<Vec<Entry>, MachineError> {
    match machine.search(search, deadline).await {
        Err(MachineError::NoSuchObject(_)) => Ok(Vec::new()),
        other => other,
    }
}

/// Returns the values of a certificate attribute, whether or not the server marks it as binary (RFC 4523,
/// 2.1). A value of one byte is a placeholder for a missing value that the schema demands.
pub(crate) fn values<'a>(entry: &'a Entry, attribute: &str) -> impl Iterator<Item = &'a [u8]> {
    let plain = entry.values(attribute).iter();
    let binary = entry.values(&format!("{attribute};binary")).iter();
    plain.chain(binary).map(Vec::as_slice).filter(|value| value.len() > 1)
}
