//! The attributes that clients of the LDAP bridge may read and search by.
//!
//! The list is fixed: other attributes are neither returned nor compared, whatever rights the machine account
//! has. So no filter can reveal their values by trial.

/// Every readable attribute, as AD's schema writes it.
pub(super) const READABLE: &[&str] = &[
    "accountExpires",
    "c",
    "cn",
    "co",
    "company",
    "department",
    "description",
    "displayName",
    "distinguishedName",
    "division",
    "employeeID",
    "employeeNumber",
    "employeeType",
    "facsimileTelephoneNumber",
    "givenName",
    "groupType",
    "homePhone",
    "initials",
    "ipPhone",
    "l",
    "lastLogonTimestamp",
    "lockoutTime",
    "mail",
    "managedBy",
    "manager",
    "member",
    "memberOf",
    "middleName",
    "mobile",
    "name",
    "o",
    "objectCategory",
    "objectClass",
    "objectGUID",
    "objectSid",
    "ou",
    "pager",
    "personalTitle",
    "physicalDeliveryOfficeName",
    "postalCode",
    "preferredLanguage",
    "primaryGroupID",
    "proxyAddresses",
    "pwdLastSet",
    "sAMAccountName",
    "sAMAccountType",
    "sn",
    "st",
    "streetAddress",
    "telephoneNumber",
    "title",
    "uid",
    "userAccountControl",
    "userPrincipalName",
    "wWWHomePage",
    "whenChanged",
    "whenCreated",
];

/// Returns the attribute of this name, compared without case; `None` if it is not readable. Names with
/// options (`;range=`, `;binary`) and numeric identifiers are not accepted.
pub(super) fn readable(name: &str) -> Option<&'static str> {
    READABLE.iter().find(|known| known.eq_ignore_ascii_case(name)).copied()
}

/// Returns the readable attributes among the requested `names` (RFC 4511, 4.5.1.8).
pub(super) fn wanted(names: &[String]) -> Vec<&'static str> {
    match names.is_empty() || names.iter().any(|name| name == "*") {
        true => READABLE.to_vec(),
        false => READABLE
            .iter()
            .filter(|known| names.iter().any(|name| known.eq_ignore_ascii_case(name)))
            .copied()
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attributes that AD keeps secret, or lets few accounts read (MS-ADTS 3.1.1.3.1.1.4 and 5.1.3.2.1;
    /// Windows LAPS; BitLocker; AD FS and Entra Connect).
    const SECRET: &[&str] = &[
        "currentValue",
        "dBCSPwd",
        "initialAuthIncoming",
        "initialAuthOutgoing",
        "lmPwdHistory",
        "ms-Mcs-AdmPwd",
        "ms-Mcs-AdmPwdExpirationTime",
        "msDS-ExecuteScriptPassword",
        "msDS-KeyCredentialLink",
        "msDS-ManagedPassword",
        "msDS-ManagedPasswordId",
        "msDS-ManagedPasswordPreviousId",
        "msDS-TransformationRulesCompiled",
        "msFVE-KeyPackage",
        "msFVE-RecoveryPassword",
        "msKds-RootKeyData",
        "msLAPS-CurrentPasswordVersion",
        "msLAPS-EncryptedDSRMPassword",
        "msLAPS-EncryptedDSRMPasswordHistory",
        "msLAPS-EncryptedPassword",
        "msLAPS-EncryptedPasswordHistory",
        "msLAPS-Password",
        "msLAPS-PasswordExpirationTime",
        "msPKIAccountCredentials",
        "msPKIDPAPIMasterKeys",
        "msSFU30Password",
        "msTPM-OwnerInformation",
        "ntPwdHistory",
        "os400Password",
        "priorValue",
        "pwdHistory",
        "supplementalCredentials",
        "trustAuthIncoming",
        "trustAuthOutgoing",
        "unicodePwd",
        "unixUserPassword",
        "userPKCS12",
        "userPassword",
    ];

    #[test]
    fn no_secret_is_on_the_list() {
        for secret in SECRET {
            assert_eq!(readable(secret), None, "{secret}");
            assert!(!wanted(&[(*secret).to_owned()]).iter().any(|name| name.eq_ignore_ascii_case(secret)));
        }
        // Nor names that a schema extension might give to a secret.
        for name in READABLE {
            let name = name.to_ascii_lowercase();
            let is_suspect = ["password", "pwd", "credential", "secret", "key", "laps", "history", "cert"]
                .iter()
                .any(|word| name.contains(word));
            assert!(!is_suspect || name == "pwdlastset", "{name}");
        }
    }

    #[test]
    fn the_list_is_sorted_and_has_no_name_twice() {
        assert!(READABLE.is_sorted_by(|one, other| one < other || one.starts_with("wWW")), "{READABLE:?}");
        let unique: std::collections::BTreeSet<_> = READABLE.iter().map(|n| n.to_ascii_lowercase()).collect();
        assert_eq!(unique.len(), READABLE.len());
    }

    #[test]
    fn names_are_compared_without_case_and_stand_for_nothing_else() {
        assert_eq!(readable("SAMACCOUNTNAME"), Some("sAMAccountName"));
        for other in ["", "*", "dn", "member;range=0-10", "mail;binary", "2.5.4.3", "cn ", "anr"] {
            assert_eq!(readable(other), None, "{other}");
        }
        let of = |names: &[&str]| wanted(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["CN", "unicodePwd", "mail"]), ["cn", "mail"]);
        assert_eq!(of(&["1.1"]), Vec::<&str>::new());
        assert_eq!(of(&["unicodePwd"]), Vec::<&str>::new());
        assert_eq!(of(&[]), READABLE);
        assert_eq!(of(&["cn", "*"]), READABLE);
    }
}
