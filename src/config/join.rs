//! The settings of the realm join: `sssd.conf(5)`, written by `realm join`.

use std::path::{Path, PathBuf};

use super::Problem;
use super::sssd::{JoinError, Section, Sssd};
use crate::name::fold;

/// Path of the file that the realm join writes.
pub(super) const SSSD_CONF: &str = "/etc/sssd/sssd.conf";

/// The part of `sssd.conf` that describes the join of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// `ad_domain`, else the name of the section.
    pub domain: Option<String>,
    /// `krb5_realm`.
    pub realm: Option<String>,
    /// `ad_server` in its order. `_srv_` stands for the domain controllers that DNS SRV names (sssd-ad(5)).
    pub servers: Vec<String>,
    /// `ad_backup_server` in its order: used if none of [`Join::servers`] replies.
    pub backup: Vec<String>,
    /// `ad_site`: the AD site to look for domain controllers in, instead of the one that AD names for this
    /// host.
    pub site: Option<String>,
    /// `ad_enabled_domains`: the domains of the forest whose users may log in. Empty: not configured.
    pub enabled_domains: Vec<String>,
    /// `ldap_tls_cacert`.
    pub ca_file: Option<PathBuf>,
    /// `ldap_krb5_keytab`, else `krb5_keytab`: the machine's keys, if they are not in the usual file.
    pub keytab: Option<PathBuf>,
}

impl Join {
    /// Reads the section of `domain`, or of the first domain whose provider is AD. If the file is missing or
    /// empty, the host is not joined.
    ///
    /// # Errors
    /// Returns [`JoinError`] if the file or a snippet is there but cannot be read or understood.
    pub fn load(path: &Path, domain: Option<&str>) -> Result<Self, JoinError> {
        match Sssd::load(path)? {
            Some(sssd) => Join::of(&sssd, domain).map_err(JoinError::Broken),
            None => Ok(Join::default()),
        }
    }

    /// Creates the part of the join that `krb5.conf` knows, which every user may read.
    pub fn of_realm(realm: String) -> Self {
        Join { domain: Some(fold(&realm)), realm: Some(realm), ..Join::default() }
    }

    pub(crate) fn of(sssd: &Sssd, domain: Option<&str>) -> Result<Self, Problem> {
        let Some((name, section)) = section(sssd, domain)? else { return Ok(Join::default()) };
        let text = |key| Ok::<_, Problem>(section.get(key)?.map(str::to_owned));
        let listed = |key| Ok::<_, Problem>(section.list(key)?.into_iter().map(str::to_owned).collect());
        let keytab = text("ldap_krb5_keytab")?.or(text("krb5_keytab")?);
        Ok(Join {
            domain: text("ad_domain")?.or_else(|| Some(name.to_owned())),
            realm: text("krb5_realm")?,
            servers: listed("ad_server")?,
            backup: listed("ad_backup_server")?,
            site: text("ad_site")?,
            enabled_domains: listed("ad_enabled_domains")?,
            ca_file: text("ldap_tls_cacert")?.map(PathBuf::from),
            keytab: keytab.map(|name| PathBuf::from(name.strip_prefix("FILE:").unwrap_or(&name))),
        })
    }
}

/// The rules of SSSD for an account in addition to AD's own, for PAM services with pam_sss (sssd-ad(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The section of the domain, without its brackets.
    pub section: String,
    /// `access_provider`.
    pub provider: String,
    /// `ad_gpo_access_control`: enforcing if it is missing.
    pub gpo: Option<String>,
    /// `ad_gpo_default_right`: denied if it is missing.
    pub default_right: Option<String>,
    /// `ad_gpo_map_permit`: PAM services that always get access, `+NAME`.
    pub permitted: Vec<String>,
    /// True if SSSD knows users only by names with a domain (`use_fully_qualified_names`).
    pub full_names: bool,
    /// True if an administrator has configured who may log in.
    pub restricts: bool,
    /// The other maps, for whose services the host's group policies decide.
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
    /// Reads the section of `domain`, or of the first domain whose provider is AD; returns `None` without
    /// one.
    ///
    /// # Errors
    /// Returns the same errors as [`Join::load`].
    pub fn load(path: &Path, domain: Option<&str>) -> Result<Option<Self>, JoinError> {
        match Sssd::load(path)? {
            Some(sssd) => Access::of(&sssd, domain).map_err(JoinError::Broken),
            None => Ok(None),
        }
    }

    pub(crate) fn of(sssd: &Sssd, domain: Option<&str>) -> Result<Option<Self>, Problem> {
        let Some((_, section)) = section(sssd, domain)? else { return Ok(None) };
        let value = |key| Ok::<_, Problem>(section.get(key)?.map(fold));
        let listed = |key| Ok::<Vec<_>, Problem>(section.list(key)?.into_iter().map(str::to_owned).collect());
        let mapped = MAPS.iter().map(|map| listed(map)).collect::<Result<Vec<_>, _>>()?;
        let suffix = match sssd.section("sssd") {
            Some(global) => global.get("default_domain_suffix")?.unwrap_or_default(),
            None => "",
        };
        let is_full = value("use_fully_qualified_names")?.as_deref() == Some("true");
        let provider = value("access_provider")?.unwrap_or_default();
        let filters = [section.get("ad_access_filter")?, section.get("ldap_access_filter")?];
        Ok(Some(Access {
            full_names: is_full && suffix.is_empty(),
            restricts: !matches!(provider.as_str(), "" | "ad" | "permit")
                || filters.iter().any(Option::is_some),
            section: section.name.clone(),
            provider,
            gpo: value("ad_gpo_access_control")?,
            default_right: value("ad_gpo_default_right")?,
            permitted: listed("ad_gpo_map_permit")?,
            mapped: mapped.concat(),
        }))
    }

    /// Returns true if SSSD's group policies deny all users at the PAM service `service`, because no map
    /// names it.
    pub fn refuses(&self, service: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|item| item.strip_prefix('+') == Some(service));
        self.provider == "ad"
            && !matches!(self.gpo.as_deref(), Some("disabled" | "permissive"))
            && self.default_right.as_deref() != Some("permit")
            && !named(&self.permitted)
            && !named(&self.mapped)
    }
}

/// Returns the name and the section of `domain`, or of the first domain that SSSD serves whose provider is
/// AD.
fn section<'a>(sssd: &'a Sssd, domain: Option<&str>) -> Result<Option<(&'a str, &'a Section)>, Problem> {
    let served = sssd.domains()?;
    let called = |name: &str, section: &Section, domain: &str| {
        let dns = section.get("ad_domain").ok().flatten().unwrap_or(name);
        fold(name) == fold(domain) || fold(dns) == fold(domain)
    };
    let is_ad =
        |section: &Section| section.get("id_provider").is_ok_and(|p| p.is_some_and(|p| fold(p) == "ad"));
    let wanted =
        domain.and_then(|domain| served.iter().find(|(name, section)| called(name, section, domain)));
    Ok(wanted.or_else(|| served.iter().find(|(_, section)| is_ad(section))).copied())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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

    /// Writes a file and its snippets with the permissions that SSSD requires.
    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        folder
    }

    fn on(files: &[(&str, &str)]) -> Join {
        Join::load(&host(files).path().join("sssd.conf"), None).unwrap()
    }

    #[test]
    fn sections_and_keys_are_read_as_sssd_reads_them() {
        for text in [
            "[SSSD]\nDomains = acme.com\n[Domain/acme.com]\nID_Provider = AD\n",
            "[sssd]\ndomains = acme.com\n[domain/ACME.COM]\nid_provider = ad\n",
            "[sssd]\n[domain/acme.com]\nid_provider = ad\nenabled = True\n",
            "[domain/acme.com]\nid_provider = ad\nenabled = true\n",
            "[sssd]\ndomains = old.com, acme.com\n[domain/old.com]\nid_provider = ad\nenabled = false\n\
             [domain/acme.com]\nid_provider = ad\n",
            "[sssd]\ndomains = old.com\ndomains = acme.com\n[domain/old.com]\nid_provider=ad\n\
             [domain/acme.com]\nid_provider=ad\n",
            "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ldap\n[domain/acme.com]\n\
             id_provider = ad\n",
            "\u{feff}[sssd]\r\ndomains = acme.com\r\n[domain/acme.com]\r\nid_provider = ad\r\n",
            "; x\n// y\n/* [domain/z]\n*/\n  \n[ sssd ]\n  domains = acme.com\n[domain/acme.com]\n\
             id_provider = ad\n",
            "[sssd]\ndomains = acme.com\n[domain/acme.com/emea.acme.com]\nenabled = true\nid_provider = ad\n\
             [domain/acme.com]\nid_provider = ad\nad_domain =\n",
        ] {
            assert_eq!(on(&[("sssd.conf", text)]).domain.as_deref(), Some("acme.com"), "{text}");
        }
        let off = "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ad\nenabled = FALSE\n";
        assert_eq!(on(&[("sssd.conf", off)]), Join::default());
        let text = "[sssd]\ndomains = ad\n[domain/ad]\nid_provider = ad\nad_domain = acme.com\n\
                    ad_server = a\nad_server = b\n";
        let named =
            Join::load(&host(&[("sssd.conf", text)]).path().join("sssd.conf"), Some("ACME.com")).unwrap();
        assert_eq!((named.domain.as_deref(), named.servers), (Some("acme.com"), vec!["b".to_owned()]));
    }

    #[test]
    fn snippets_come_after_the_file_in_the_order_of_their_names() {
        const MAIN: &str =
            "[sssd]\ndomains = old.com\n[domain/acme.com]\nid_provider = ad\nad_server = dc0\n";
        let read = on(&[
            ("sssd.conf", MAIN),
            ("conf.d/20-servers.conf", "[domain/ACME.COM]\nAD_Server = dc2\n"),
            (
                "conf.d/10-domains.conf",
                "[sssd]\ndomains = acme.com\n[domain/acme.com]\nad_server = dc1\nad_site = Milano\n",
            ),
            ("conf.d/.hidden.conf", "[sssd]\ndomains = hidden.com\n"),
            ("conf.d/99-backup.conf~", "[sssd]\ndomains = backup.com\n"),
        ]);
        assert_eq!(read.domain.as_deref(), Some("acme.com"));
        assert_eq!((read.servers, read.site.as_deref()), (vec!["dc2".to_owned()], Some("Milano")));
        let alone = on(&[("conf.d/a.conf", "[domain/acme.com]\nenabled = true\nid_provider = ad\n")]);
        assert_eq!(alone.domain.as_deref(), Some("acme.com"));
        // As systemd copies them; a file from a subfolder is no snippet.
        let copied = host(&[
            ("sssd.conf", "\n"),
            ("sssd.conf.d_a.conf", "[domain/acme.com]\nenabled = true\nid_provider = ad\n"),
        ]);
        let path = copied.path().join("sssd.conf");
        let seen = super::super::sssd::snippets_of(&path, Path::new("/nonexistent")).len();
        assert_eq!(seen, 0);
        let source = host(&[("a.conf", "")]);
        let found = super::super::sssd::snippets_of(&path, source.path());
        assert_eq!(found, [copied.path().join("sssd.conf.d_a.conf")]);
        // SSSD rejects a file that others may read.
        std::fs::set_permissions(source.path().join("a.conf"), std::fs::Permissions::from_mode(0o644))
            .unwrap();
        assert!(super::super::sssd::snippets_of(&path, source.path()).is_empty());
    }

    #[test]
    fn a_keytab_elsewhere_is_named() {
        let keytab = |keys: &str| {
            on(&[("sssd.conf", &format!("[domain/a.b]\nenabled = true\nid_provider = ad\n{keys}"))]).keytab
        };
        assert_eq!(keytab(""), None);
        assert_eq!(keytab("krb5_keytab = /etc/a.keytab\n"), Some("/etc/a.keytab".into()));
        let both = "krb5_keytab = /etc/a.keytab\nldap_krb5_keytab = FILE:/etc/b.keytab\n";
        assert_eq!(keytab(both), Some("/etc/b.keytab".into()));
    }

    #[test]
    fn what_cannot_be_understood_is_named_with_its_file_and_line() {
        for (name, text, line, said) in [
            ("sssd.conf", "[sssd]\nnonsense\n", 2, "expected key = value"),
            ("sssd.conf", "[sssd]\n= x\n", 2, "expected key = value"),
            ("sssd.conf", "a = b\n", 1, "before the first key"),
            ("sssd.conf", "[sssd\n", 1, "expected [section]"),
            ("conf.d/a.conf", "[sssd]\n\ndomains = acme\u{200b}.com\n", 3, "U+200B"),
            (
                "conf.d/a.conf",
                "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ad\nad_server = dc\u{a0}1\n",
                5,
                "U+00A0",
            ),
        ] {
            let host = host(&[(name, text)]);
            let error = Problem::from(Join::load(&host.path().join("sssd.conf"), None).unwrap_err());
            assert_eq!((error.line, error.file), (Some(line), host.path().join(name)), "{text}");
            assert!(error.text.contains(said), "{text}: {}", error.text);
        }
        // A value that is not used may hold anything.
        let text = "[sssd]\ndomains = a.b\n[domain/a.b]\nid_provider = ad\n[nss]\n\
                    override_homedir = /home/\u{a0}%u\n";
        assert_eq!(on(&[("sssd.conf", text)]).domain.as_deref(), Some("a.b"));
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
