//! The answer to a netlogon ping: NETLOGON_SAM_LOGON_RESPONSE_EX (MS-ADTS 6.3.1.9).

use std::collections::HashMap;

/// `Opcode` of that structure.
const LOGON_SAM_LOGON_RESPONSE_EX: u16 = 23;
/// NETLOGON_NT_VERSION_1 and NETLOGON_NT_VERSION_5EX (MS-ADTS 6.3.1.1).
const NT_VERSION: u32 = 0x1 | 0x4;
/// NETLOGON_NT_VERSION_WITH_CLOSEST_SITE.
const WITH_CLOSEST_SITE: u32 = 0x10;
/// `LmNtToken` and `Lm20Token`.
const TOKEN: u16 = 0xffff;
/// Maximum offset that a compression pointer can address (RFC 1035, 4.1.4).
const REACH: usize = 0x3fff;

/// Roles and capabilities of a domain controller: DS_FLAG (MS-ADTS 6.3.1.2).
pub mod flags {
    /// Has the primary domain controller's role.
    pub const PDC: u32 = 0x1;
    /// Holds the global catalog.
    pub const GLOBAL_CATALOG: u32 = 0x4;
    /// Serves LDAP.
    pub const LDAP: u32 = 0x8;
    /// Is a domain controller.
    pub const DIRECTORY: u32 = 0x10;
    /// Is a KDC.
    pub const KDC: u32 = 0x20;
    /// Is in the client's site.
    pub const CLOSEST: u32 = 0x80;
    /// Is writable. A read-only domain controller is not.
    pub const WRITABLE: u32 = 0x100;
    /// The flags of an ordinary domain controller.
    pub const ORDINARY: u32 = LDAP | DIRECTORY | KDC | WRITABLE;
}

/// Statements of a domain controller about itself and the client's site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netlogon {
    /// See [`flags`].
    pub flags: u32,
    /// The domain's objectGUID, as AD stores it.
    pub domain_guid: [u8; 16],
    /// `DnsForestName`.
    pub forest: String,
    /// `DnsDomainName`.
    pub domain: String,
    /// `DnsHostName`.
    pub host: String,
    /// `NetbiosDomainName`.
    pub netbios_domain: String,
    /// `NetbiosComputerName`.
    pub netbios_host: String,
    /// `DcSiteName`.
    pub dc_site: String,
    /// `ClientSiteName`; empty if the client's address is in no site.
    pub client_site: String,
    /// `NextClosestSiteName`.
    pub next_closest_site: Option<String>,
}

impl Netlogon {
    /// Returns an ordinary domain controller of a forest of one domain, in the client's site.
    pub fn of(host: &str, domain: &str, site: &str) -> Self {
        let first = |name: &str| name.split('.').next().unwrap_or_default().to_uppercase();
        Netlogon {
            flags: flags::ORDINARY | flags::CLOSEST,
            domain_guid: *b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10",
            forest: domain.to_owned(),
            domain: domain.to_owned(),
            host: host.to_owned(),
            netbios_domain: first(domain),
            netbios_host: first(host),
            dc_site: site.to_owned(),
            client_site: site.to_owned(),
            next_closest_site: None,
        }
    }

    /// Encodes it with little-endian numbers, and with names compressed as a real domain controller does.
    pub fn encode(&self) -> Vec<u8> {
        let mut names = Names { bytes: Vec::new(), known: HashMap::new() };
        names.bytes.extend(LOGON_SAM_LOGON_RESPONSE_EX.to_le_bytes());
        names.bytes.extend([0; 2]);
        names.bytes.extend(self.flags.to_le_bytes());
        names.bytes.extend(self.domain_guid);
        let user = "";
        for name in [
            &self.forest,
            &self.domain,
            &self.host,
            &self.netbios_domain,
            &self.netbios_host,
            user,
            &self.dc_site,
            &self.client_site,
        ] {
            names.add(name);
        }
        let mut version = NT_VERSION;
        if let Some(site) = &self.next_closest_site {
            names.add(site);
            version |= WITH_CLOSEST_SITE;
        }
        let mut bytes = names.bytes;
        bytes.extend(version.to_le_bytes());
        bytes.extend(TOKEN.to_le_bytes());
        bytes.extend(TOKEN.to_le_bytes());
        bytes
    }
}

/// An encoder that replaces a name, or its end, with a pointer if it was written before (RFC 1035, 4.1.4).
struct Names {
    bytes: Vec<u8>,
    known: HashMap<String, usize>,
}

impl Names {
    fn add(&mut self, name: &str) {
        let mut rest = name;
        while !rest.is_empty() {
            if let Some(at) = self.known.get(rest) {
                self.bytes.extend([0xc0 | at.to_be_bytes()[6], at.to_be_bytes()[7]]);
                return;
            }
            if self.bytes.len() <= REACH {
                self.known.insert(rest.to_owned(), self.bytes.len());
            }
            let (label, after) = rest.split_once('.').unwrap_or((rest, ""));
            // Labels have at most 63 bytes.
            self.bytes.push(label.len().to_le_bytes()[0]);
            self.bytes.extend(label.as_bytes());
            rest = after;
        }
        self.bytes.push(0);
    }
}
