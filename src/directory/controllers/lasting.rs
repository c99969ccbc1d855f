//! The last known domain controllers of a domain, kept on disk. A broker that starts uses them until DNS has
//! answered, and tries those that worked before those that did not.
//!
//! The file proves no more than DNS does: [`super::roster`] decides which hosts may receive a password.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::directory::controllers::discovery::{Controller, List, Role};
use crate::directory::controllers::health::Service;
use crate::directory::kept;

/// A list in the form kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lasting {
    domain: String,
    site: Option<String>,
    controllers: Vec<Known>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    host: String,
    /// The address that answered first comes first.
    addresses: Vec<IpAddr>,
    in_site: bool,
    /// Services that did not work.
    down: Vec<String>,
}

impl Lasting {
    /// Takes `list` of `domain`, and notes which services do not work.
    pub(super) fn of(domain: &str, list: &List, is_down: impl Fn(&str, Service) -> bool) -> Self {
        let known = |controller: &Arc<Controller>| Known {
            host: controller.host.clone(),
            addresses: controller.addresses.clone(),
            in_site: controller.in_site,
            down: Service::ALL
                .into_iter()
                .filter(|service| is_down(&controller.host, *service))
                .map(|service| service.to_string())
                .collect(),
        };
        Lasting {
            domain: domain.to_owned(),
            site: list.site.clone(),
            controllers: list.controllers.iter().map(known).collect(),
        }
    }

    /// Returns the `wanted` part of the list and its services that did not work; `None` if no host of it has
    /// an address.
    pub(super) fn list(&self, wanted: impl Fn(&str) -> bool) -> Option<(List, Vec<(String, Service)>)> {
        let known = || self.controllers.iter().filter(|known| wanted(&known.host));
        let controllers = known().map(|known| Controller {
            host: known.host.clone(),
            addresses: known.addresses.clone(),
            in_site: known.in_site,
        });
        let list = List {
            controllers: controllers.map(Arc::new).collect(),
            site: self.site.clone(),
            until: Instant::now(),
        };
        let down = |known: &Known| {
            let is_down = |service: &Service| known.down.contains(&service.to_string());
            Service::ALL.into_iter().filter(is_down).map(|service| (known.host.clone(), service)).collect()
        };
        let down = known().flat_map(|known| -> Vec<_> { down(known) }).collect();
        let is_usable = list.controllers.iter().any(|controller| !controller.addresses.is_empty());
        is_usable.then_some((list, down))
    }

    /// Reads the list of `domain` for `role` from `directory`; `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is malformed.
    pub(super) fn read(directory: &Path, domain: &str, role: Role) -> io::Result<Option<Self>> {
        let Some(name) = file(domain, role) else { return Ok(None) };
        let Some((text, _)) = kept::read(&directory.join(name))? else { return Ok(None) };
        let lasting: Lasting = serde_json::from_slice(&text)?;
        Ok(Some(lasting).filter(|lasting| lasting.domain == domain))
    }

    /// Writes the list to `directory`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn write(&self, directory: &Path, role: Role) -> io::Result<()> {
        let Some(name) = file(&self.domain, role) else { return Ok(()) };
        kept::write(directory, &name, &[&serde_json::to_string(self)?])
    }
}

/// Returns the file name; `None` if the domain name is unsuitable for one.
fn file(domain: &str, role: Role) -> Option<String> {
    let is_fit = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let role = match role {
        Role::Domain => "domain",
        Role::GlobalCatalogue => "catalogue",
    };
    (!domain.is_empty() && domain.len() <= 200 && domain.chars().all(is_fit))
        .then(|| format!("last-{role}-{domain}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(addresses: &[[u8; 4]]) -> List {
        let addresses = addresses.iter().map(|ip| IpAddr::from(*ip)).collect();
        let controller = Controller { host: "a".into(), addresses, in_site: true };
        List { controllers: vec![Arc::new(controller)], site: Some("Ulm".into()), until: Instant::now() }
    }

    #[test]
    fn a_list_comes_back_with_what_did_not_work() {
        let folder = tempfile::tempdir().unwrap();
        let read = |domain, role| Lasting::read(folder.path(), domain, role);
        assert_eq!(read("acme.com", Role::Domain).unwrap(), None);
        let is_down = |host: &str, service| host == "a" && service == Service::Kdc;
        let kept = Lasting::of("acme.com", &list(&[[10, 0, 0, 2], [10, 0, 0, 1]]), is_down);
        kept.write(folder.path(), Role::Domain).unwrap();
        let (back, down) = read("acme.com", Role::Domain).unwrap().unwrap().list(|_| true).unwrap();
        assert_eq!(back.controllers, list(&[[10, 0, 0, 2], [10, 0, 0, 1]]).controllers);
        assert_eq!((back.site.as_deref(), down), (Some("Ulm"), vec![("a".to_owned(), Service::Kdc)]));
        assert_eq!(read("acme.com", Role::GlobalCatalogue).unwrap(), None);
        // A list without addresses, one without wanted hosts, one of another domain, and a malformed one.
        assert!(Lasting::of("acme.com", &list(&[]), |_, _| false).list(|_| true).is_none());
        assert!(kept.list(|_| false).is_none());
        std::fs::rename(
            folder.path().join("last-domain-acme.com.json"),
            folder.path().join("last-domain-b.json"),
        )
        .unwrap();
        assert_eq!(read("b", Role::Domain).unwrap(), None);
        std::fs::write(folder.path().join("last-domain-b.json"), "{").unwrap();
        assert!(read("b", Role::Domain).is_err());
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for domain in ["", "../x", "a/b", "a\0b", &"a".repeat(201)] {
            assert_eq!(file(domain, Role::Domain), None, "{domain:?}");
        }
    }
}
