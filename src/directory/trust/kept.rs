//! The last good answers, kept on disk, so that a broker can verify certificates before its machine
//! connection works.
//!
//! One PEM file holds AD's roots and CRLs, another file the CRLs of distribution points. Each is replaced as
//! a whole, so that it never mixes two answers.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::pem::{PemObject as _, SectionKind};

use super::published::Published;
use crate::directory::kept::{read, write};

/// File name of the roots in the state directory.
pub(super) const ROOTS: &str = "roots.pem";
/// File name of the CRLs by distribution point.
pub(super) const LISTS: &str = "lists.json";

const CERTIFICATE: &str = "CERTIFICATE";
const CRL: &str = "X509 CRL";
const HEAD: &str = "\
# The forest's trusted root CAs and CRLs, as Active Directory published them when this file was last written.
# The broker reads it when it starts and writes it after each reading of Active Directory; a change here is \
lost.
";

/// Reads AD's last answer from `directory`, with the time when it was written; `None` if there is none.
///
/// # Errors
/// Returns an error if the file cannot be read or parsed; then none of it is trusted.
pub(super) fn load_roots(directory: &Path) -> io::Result<Option<(Published, SystemTime)>> {
    let Some((text, written)) = read(&directory.join(ROOTS))? else { return Ok(None) };
    let mut published = Published::default();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&text) {
        match section.map_err(io::Error::other)? {
            (SectionKind::Certificate, root) => published.roots.insert(root),
            (SectionKind::Crl, list) => published.crls.insert(list),
            (other, _) => {
                return Err(io::Error::other(format!("it holds a section of another kind ({other:?})")));
            }
        };
    }
    Ok(Some((published, written)))
}

/// Replaces AD's last answer in `directory`.
///
/// # Errors
/// Returns an error if it cannot be written; then the old file is unchanged.
pub(super) fn store_roots(directory: &Path, published: &Published) -> io::Result<()> {
    let roots = published.roots.iter().map(|root| Pem::new(CERTIFICATE, root.as_slice()));
    let lists = published.crls.iter().map(|list| Pem::new(CRL, list.as_slice()));
    let sections: Vec<_> = roots.chain(lists).collect();
    let text = pem::encode_many_config(&sections, EncodeConfig::new().set_line_ending(LineEnding::LF));
    write(directory, ROOTS, &[HEAD, &text])
}

/// Reads the CRLs of distribution points from `directory`; empty if there is no file.
///
/// # Errors
/// Like [`load_roots`].
pub(super) fn load_lists(directory: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let Some((text, _)) = read(&directory.join(LISTS))? else { return Ok(BTreeMap::new()) };
    let lists: BTreeMap<String, String> = serde_json::from_slice(&text)?;
    let decode = |(point, list): (String, String)| {
        Ok((point, pem::parse(list).map_err(io::Error::other)?.into_contents()))
    };
    lists.into_iter().map(decode).collect()
}

/// Replaces the CRLs of distribution points in `directory`.
///
/// # Errors
/// Like [`store_roots`].
pub(super) fn store_lists(directory: &Path, lists: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let encode = |list: &Vec<u8>| pem::encode(&Pem::new(CRL, list.as_slice()));
    let lists: BTreeMap<_, _> = lists.iter().map(|(point, list)| (point, encode(list))).collect();
    write(directory, LISTS, &[&serde_json::to_string(&lists)?])
}
