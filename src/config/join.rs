//! What the realm join knows: `sssd.conf(5)`, written by `realm join`.

use std::io;
use std::path::{Path, PathBuf};

use ini::{Ini, ParseOption, Properties};

use super::{Problem, text};
use crate::name::fold;

/// Where the realm join writes it.
pub(super) const SSSD_CONF: &str = "/etc/sssd/sssd.conf";

/// The part of `sssd.conf` that says how this host is joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// `ad_domain`, else the name of the section.
    pub domain: Option<String>,
    /// `krb5_realm`.
    pub realm: Option<String>,
    /// `ad_server` in its order. `_srv_` stands for the domain controllers that DNS SRV names (sssd-ad(5)).
    pub servers: Vec<String>,
    /// `ad_backup_server` in its order: asked when none of [`Join::servers`] answers.
    pub backup: Vec<String>,
    /// `ad_site`: the AD site to look for domain controllers in, instead of the one that AD names for this host.
    pub site: Option<String>,
    /// `ad_enabled_domains`: the domains of the forest whose people may log in. Empty: it says nothing.
    pub enabled_domains: Vec<String>,
    /// `ldap_tls_cacert`.
    pub ca_file: Option<PathBuf>,
}

/// Why it is not known how this host is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// Root may read the file, but we may not.
    Denied(Problem),
    /// The file is there and cannot be understood.
    Broken(Problem),
}

impl From<JoinError> for Problem {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Denied(problem) | JoinError::Broken(problem) => problem,
        }
    }
}

impl Join {
    /// Reads the section of `domain`, or of the first domain whose provider is AD. An absent or empty file is a
    /// host that is not joined.
    ///
    /// # Errors
    /// The file is there but cannot be read or understood.
    pub fn load(path: &Path, domain: Option<&str>) -> Result<Self, JoinError> {
        Ok(read(path)?.map(|ini| Join::of(&ini, domain)).unwrap_or_default())
    }

    /// All that `krb5.conf`, which everybody may read, knows of the join.
    pub fn of_realm(realm: String) -> Self {
        Join { domain: Some(fold(&realm)), realm: Some(realm), ..Join::default() }
    }

    fn of(ini: &Ini, domain: Option<&str>) -> Self {
        let Some((name, section)) = section(ini, domain) else { return Join::default() };
        let listed = |key: &str| section.get(key).into_iter().flat_map(list).map(str::to_owned).collect();
        Join {
            domain: Some(section.get("ad_domain").unwrap_or(name).to_owned()),
            realm: section.get("krb5_realm").map(str::to_owned),
            servers: listed("ad_server"),
            backup: listed("ad_backup_server"),
            site: section.get("ad_site").map(str::trim).filter(|site| !site.is_empty()).map(str::to_owned),
            enabled_domains: listed("ad_enabled_domains"),
            ca_file: section.get("ldap_tls_cacert").map(PathBuf::from),
        }
    }
}

/// What SSSD asks of an account beside AD's own rules, where pam_sss stands in a PAM service (sssd-ad(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The section of the domain, without its brackets.
    pub section: String,
    /// `access_provider`.
    pub provider: String,
    /// `ad_gpo_access_control`: enforcing where nothing is said.
    pub gpo: Option<String>,
    /// `ad_gpo_default_right`: denied where nothing is said.
    pub default_right: Option<String>,
    /// `ad_gpo_map_permit`: PAM services that are let in, `+NAME`.
    pub permitted: Vec<String>,
    /// The other maps, in which a service is judged by the host's group policies.
    pub mapped: Vec<String>,
}

/// The maps of PAM services to logon rights, except the one that always permits.
const MAPS: [&str; 6] = [
    "ad_gpo_map_interactive",
    "ad_gpo_map_remote_interactive",
    "ad_gpo_map_network",
    "ad_gpo_map_batch",
    "ad_gpo_map_service",
    "ad_gpo_map_deny",
];

impl Access {
    /// Reads the section of `domain`, or of the first domain whose provider is AD; `None` without one.
    ///
    /// # Errors
    /// As [`Join::load`].
    pub fn load(path: &Path, domain: Option<&str>) -> Result<Option<Self>, JoinError> {
        Ok(read(path)?.and_then(|ini| Access::of(&ini, domain)))
    }

    fn of(ini: &Ini, domain: Option<&str>) -> Option<Self> {
        let (name, section) = section(ini, domain)?;
        let value = |key: &str| section.get(key).map(|value| fold(value.trim()));
        let listed = |key: &str| section.get(key).into_iter().flat_map(list).map(str::to_owned);
        Some(Access {
            section: format!("domain/{name}"),
            provider: value("access_provider").unwrap_or_default(),
            gpo: value("ad_gpo_access_control"),
            default_right: value("ad_gpo_default_right"),
            permitted: listed("ad_gpo_map_permit").collect(),
            mapped: MAPS.iter().flat_map(|map| listed(map)).collect(),
        })
    }

    /// Whether SSSD's group policies refuse everybody at the PAM service `service`, because no map names it.
    pub fn refuses(&self, service: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|item| item.strip_prefix('+') == Some(service));
        self.provider == "ad"
            && !matches!(self.gpo.as_deref(), Some("disabled" | "permissive"))
            && self.default_right.as_deref() != Some("permit")
            && !named(&self.permitted)
            && !named(&self.mapped)
    }
}

/// The whole file; `None` where there is none.
fn read(path: &Path) -> Result<Option<Ini>, JoinError> {
    let text = match text::read(path) {
        Ok(text) => text,
        Err(e) => match e.kind() {
            Some(io::ErrorKind::NotFound) => return Ok(None),
            Some(io::ErrorKind::PermissionDenied) => return Err(JoinError::Denied(e.of(path))),
            _ => return Err(JoinError::Broken(e.of(path))),
        },
    };
    // sssd knows neither quotes nor escapes.
    let option = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    let ini = Ini::load_from_str_opt(&text, option).map_err(|e| {
        let text = e.msg.to_string();
        JoinError::Broken(Problem { file: path.to_owned(), line: Some(e.line + 1), text })
    })?;
    Ok(Some(ini))
}

/// The section of `domain`, or of the first domain whose provider is AD, and its name.
fn section<'a>(ini: &'a Ini, domain: Option<&str>) -> Option<(&'a str, &'a Properties)> {
    let sections = || {
        let named = ini.get_from(Some("sssd"), "domains").into_iter().flat_map(list);
        named.filter_map(|name| Some((name, ini.section(Some(format!("domain/{name}")))?)))
    };
    let is_ad = |section: &Properties| section.get("id_provider").is_some_and(|p| fold(p) == "ad");
    let wanted = domain.and_then(|domain| sections().find(|(name, _)| fold(name) == fold(domain)));
    wanted.or_else(|| sections().find(|(_, section)| is_ad(section)))
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(text: &str, domain: Option<&str>) -> Join {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Join::load(file.path(), domain).unwrap()
    }

    const TWO: &str = "\n[sssd]\ndomains = files.local, acme.com, other.com\n\
        [domain/files.local]\nid_provider = files\n\
        [domain/acme.com]\nid_provider = AD\nrealmd_tags = manages-system joined-with-adcli\n\
        [domain/other.com]\nid_provider = ad\nad_domain = OTHER.com\n";

    #[test]
    fn the_first_ad_domain_is_the_joined_one_unless_another_is_named() {
        assert_eq!(join(TWO, None).domain.as_deref(), Some("acme.com"));
        assert_eq!(join(TWO, Some("Other.COM")).domain.as_deref(), Some("OTHER.com"));
    }

    #[test]
    fn no_file_and_no_ad_domain_are_no_join() {
        assert_eq!(Join::load(Path::new("/nonexistent/sssd.conf"), None), Ok(Join::default()));
        assert_eq!(join("[sssd]\ndomains = x\n[domain/x]\nid_provider = ldap\n", None), Join::default());
    }

    #[test]
    fn servers_and_domains_keep_their_order() {
        let text = "[sssd]\ndomains=a.b\n[domain/a.b]\nid_provider=ad\nad_server=dc2.a.b, _srv_,\n\
            ad_backup_server=dc9.a.b\nad_site = Milano \nad_enabled_domains = a.b, emea.a.b\n";
        let read = join(text, None);
        assert_eq!(read.servers, ["dc2.a.b", "_srv_"]);
        assert_eq!(read.backup, ["dc9.a.b"]);
        assert_eq!(read.site.as_deref(), Some("Milano"));
        assert_eq!(read.enabled_domains, ["a.b", "emea.a.b"]);
        let bare = join("[sssd]\ndomains=a.b\n[domain/a.b]\nid_provider=ad\nad_site=\n", None);
        assert_eq!((bare.servers.len(), bare.site), (0, None));
    }

    #[test]
    fn gpo_refuses_a_service_that_no_map_names() {
        let refuses = |more: &str| {
            let provider = if more.contains("access_provider") { "" } else { "access_provider = ad\n" };
            let more = format!("{provider}{more}");
            let text = format!("[sssd]\ndomains=a.b\n[domain/a.b]\nid_provider=ad\n{more}\n");
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            Access::load(file.path(), None).unwrap().unwrap().refuses("motion")
        };
        for (more, refused) in [
            ("", true),
            ("ad_gpo_access_control = Enforcing", true),
            ("ad_gpo_access_control = permissive", false),
            ("ad_gpo_default_right = permit", false),
            ("ad_gpo_map_permit = +sudo, +motion", false),
            ("ad_gpo_map_permit = +motions", true),
            ("ad_gpo_map_interactive = +motion", false),
            ("access_provider = simple", false),
        ] {
            assert_eq!(refuses(more), refused, "{more}");
        }
        assert_eq!(Access::load(Path::new("/nonexistent/sssd.conf"), None), Ok(None));
    }

    #[test]
    fn values_keep_quotes_and_semicolons() {
        let text = "[sssd]\ndomains=a.b\n[domain/a.b]\nid_provider=ad\nldap_tls_cacert=/etc/a;b'c\\d.pem\n";
        assert_eq!(join(text, None).ca_file, Some("/etc/a;b'c\\d.pem".into()));
    }
}
