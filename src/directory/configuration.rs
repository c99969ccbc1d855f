//! The configuration partition, which every domain controller of the forest holds (MS-ADTS 6.1.1.1.2).

use ldap3::Scope;
use tokio::time::Instant;

use super::machine::{MachineError, Search};
use crate::directory::entry::EntryError;
use crate::directory::machine::{Machine, Place, base_search};

/// The rootDSE's attribute that names the partition (MS-ADTS 3.1.1.3.2).
const NAMING_CONTEXT: &str = "configurationNamingContext";

/// Returns the distinguished name of the configuration partition.
///
/// # Errors
/// Returns an error if AD does not answer before `deadline`, or does not name the partition.
pub(super) async fn naming_context<M: Machine>(
    machine: &M,
    deadline: Instant,
) -> Result<String, MachineError> {
    let root = machine.search(&base_search(String::new(), vec![NAMING_CONTEXT.to_owned()]), deadline).await?;
    let missing = || EntryError::Value {
        attribute: NAMING_CONTEXT.to_owned(),
        dn: "the rootDSE".to_owned(),
        expected: "readable for the machine account",
    };
    let name = match root.first() {
        Some(root) => root.text(NAMING_CONTEXT)?.map(str::to_owned),
        None => None,
    };
    Ok(name.ok_or_else(missing)?)
}

/// Builds a search in the configuration partition below `base`, for at most `limit` objects.
pub(super) fn search_below(
    base: String,
    scope: Scope,
    filter: &str,
    attributes: &[&str],
    limit: usize,
) -> Search {
    let attributes = attributes.iter().map(|name| (*name).to_owned()).collect();
    Search { base, scope, filter: filter.to_owned(), attributes, limit, place: Place::Own }
}
