//! `smb.conf(5)`: the realm of a host that was joined by Samba's winbind, without `sssd.conf`.

use std::path::Path;

use super::text;
use crate::name::fold;

/// Path of Samba's file, which every user may read.
pub(super) const SMB_CONF: &str = "/etc/samba/smb.conf";

/// Returns the realm that the file `path` names, if the host is a member of an AD domain by it.
pub(super) fn realm(path: &Path) -> Option<String> {
    realm_in(&text::read(path).ok()?)
}

/// Parses the file. Names of sections and parameters ignore case and spaces; the last value of a parameter
/// counts. A member server without `security` is a member of an AD domain.
pub(crate) fn realm_in(text: &str) -> Option<String> {
    let plain = |name: &str| fold(name).split_whitespace().collect::<String>();
    let (mut is_global, mut security, mut is_server, mut realm) = (false, None, false, None);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[') {
            is_global = plain(section.trim_end_matches(']')) == "global";
        }
        let Some((name, value)) = line.split_once('=').filter(|_| is_global) else { continue };
        match plain(name).as_str() {
            "security" => security = Some(fold(value.trim())).filter(|security| security != "auto"),
            "serverrole" => is_server = matches!(fold(value.trim()).as_str(), "member server" | "member"),
            "realm" => realm = Some(value.trim().to_owned()).filter(|realm| !realm.is_empty()),
            _ => {}
        }
    }
    realm.filter(|_| security.map_or(is_server, |security| security == "ads"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_a_domain_names_its_realm() {
        let joined =
            "# x\n[Global]\n  Security = ADS\n  realm = OLD.COM\n  RE ALM = ACME.COM\n[homes]\n realm = no\n";
        assert_eq!(realm_in(joined).as_deref(), Some("ACME.COM"));
        let by_role = "[global]\nserver role = Member Server\nrealm = ACME.COM\n";
        assert_eq!(realm_in(by_role).as_deref(), Some("ACME.COM"));
        for other in [
            "",
            "[global]\nserver role = member server\nsecurity = user\nrealm = ACME.COM\n",
            "[global]\nserver role = standalone server\nrealm = ACME.COM\n",
            "[global]\nrealm = ACME.COM\n",
            "[global]\nsecurity = user\nrealm = ACME.COM\n",
            "[global]\nsecurity = ads\nrealm =\n",
            "[global]\n;security = ads\nrealm = ACME.COM\n",
            "security = ads\nrealm = ACME.COM\n",
        ] {
            assert_eq!(realm_in(other), None, "{other}");
        }
    }
}
