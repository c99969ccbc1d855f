//! The state of an account: its attributes, and if they allow a login.
//!
//! Pure: the time and this host's name are passed in. Attributes are those of MS-ADA1 to MS-ADA3.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::directory::entry::{Entry, EntryError};
use crate::directory::sid::Sid;
use crate::protocol::report::Fact;
use crate::verdict::Outcome;

/// `userAccountControl` (MS-ADTS 2.2.16).
pub(in crate::directory) const DISABLED: u32 = 0x2;
const PASSWORD_NEVER_EXPIRES: u32 = 0x1_0000;
const SMARTCARD_REQUIRED: u32 = 0x4_0000;
/// `msDS-User-Account-Control-Computed` (MS-ADTS 3.1.1.4.5.17). It does not show that an account is disabled.
const LOCKED_OUT: u32 = 0x10;
const PASSWORD_EXPIRED: u32 = 0x80_0000;

/// Seconds from 1601-01-01, the start of AD's time (MS-DTYP 2.3.3), to 1970-01-01.
const EPOCH_1601: u64 = 11_644_473_600;

/// The state of an account when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// `sAMAccountName`, which may have changed since the account was found.
    pub sam: String,
    /// `userAccountControl`.
    pub control: u32,
    /// `msDS-User-Account-Control-Computed`.
    pub computed: u32,
    /// `accountExpires`; `None` if never.
    pub expires: Option<SystemTime>,
    /// True if the password must be changed at the next logon: `pwdLastSet` is 0, and the account is
    /// not one whose password AD never treats as expired (MS-ADTS 3.1.1.4.5.17).
    pub must_change: bool,
    /// `msDS-UserPasswordExpiryTimeComputed`; `None` if never.
    pub password_expires: Option<SystemTime>,
    /// `logonHours`: a bit for each hour of the week in UTC from Sunday 00:00; `None` if unrestricted.
    pub logon_hours: Option<[u8; 21]>,
    /// `userWorkstations`: NetBIOS or DNS names (MS-ADA3, userWorkstations); empty if unrestricted.
    pub workstations: Vec<String>,
    /// `tokenGroups`: every group, including nested ones; `None` if they were not requested.
    pub groups: Option<Vec<Sid>>,
    /// True if the account is in the group Protected Users; `None` if its groups were not requested.
    pub protected: Option<bool>,
    /// Name of the authentication policy silo that the account is assigned to
    /// (`msDS-AssignedAuthNPolicySilo`).
    pub silo: Option<String>,
    /// Name of its authentication policy (`msDS-AssignedAuthNPolicy`).
    pub policy: Option<String>,
}

impl Account {
    /// The attributes that [`Account::from_entry`] reads, except `tokenGroups`.
    pub const ATTRIBUTES: [&'static str; 10] = [
        "sAMAccountName",
        "userAccountControl",
        "msDS-User-Account-Control-Computed",
        "accountExpires",
        "pwdLastSet",
        Self::PASSWORD_EXPIRY,
        "logonHours",
        "userWorkstations",
        // Unknown to a schema older than that of Windows Server 2012 R2, and so absent.
        "msDS-AssignedAuthNPolicySilo",
        "msDS-AssignedAuthNPolicy",
    ];
    /// Every group; only available in a BASE search of the account (MS-ADTS 3.1.1.4.5.19).
    pub const GROUPS: &'static str = "tokenGroups";
    /// Expiry of the password by the policy in force for the account (MS-ADTS 3.1.1.4.5).
    pub const PASSWORD_EXPIRY: &'static str = "msDS-UserPasswordExpiryTimeComputed";

    /// Reads the state from an entry.
    ///
    /// # Errors
    /// Returns an error if an attribute is malformed, or if one is absent that every account has. The machine
    /// account may not read such an attribute, and unreadable must not mean "no restriction".
    pub fn from_entry(entry: &Entry) -> Result<Self, EntryError> {
        let malformed = |attribute: &str, expected| EntryError::Value {
            attribute: attribute.to_owned(),
            dn: entry.dn().to_owned(),
            expected,
        };
        let flags = |attribute| {
            let unreadable = || malformed(attribute, "readable for the machine account");
            entry.flags(attribute)?.ok_or_else(unreadable)
        };
        let integer = |attribute| {
            let unreadable = || malformed(attribute, "readable for the machine account");
            entry.integer(attribute)?.ok_or_else(unreadable)
        };
        let control = flags("userAccountControl")?;
        let logon_hours = match entry.bytes("logonHours")? {
            None | Some([]) => None,
            Some(bytes) => Some(bytes.try_into().map_err(|_| malformed("logonHours", "21 bytes"))?),
        };
        let groups = match entry.values(Self::GROUPS) {
            [] => None,
            _ => Some(Self::groups_of(entry)?),
        };
        let workstations = entry.text("userWorkstations")?.unwrap_or_default();
        Ok(Account {
            sam: entry.text("sAMAccountName")?.unwrap_or_default().to_owned(),
            control,
            computed: flags("msDS-User-Account-Control-Computed")?,
            expires: time_of(integer("accountExpires")?),
            must_change: integer("pwdLastSet")? == 0
                && control & (PASSWORD_NEVER_EXPIRES | SMARTCARD_REQUIRED) == 0,
            password_expires: Self::password_expiry_of(entry)?,
            logon_hours,
            workstations: workstations
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect(),
            protected: groups.as_deref().map(Self::is_protected),
            groups,
            silo: named(entry, "msDS-AssignedAuthNPolicySilo")?,
            policy: named(entry, "msDS-AssignedAuthNPolicy")?,
        })
    }

    /// Returns the groups of an account. Every account has at least a primary group, so if there are none,
    /// the machine account may not read them.
    ///
    /// # Errors
    /// Returns an error if [`Account::GROUPS`] is malformed or absent.
    pub fn groups_of(entry: &Entry) -> Result<Vec<Sid>, EntryError> {
        let wrong = |expected| EntryError::Value {
            attribute: Self::GROUPS.to_owned(),
            dn: entry.dn().to_owned(),
            expected,
        };
        match entry.values(Self::GROUPS) {
            [] => Err(wrong("readable for the machine account")),
            sids => {
                sids.iter().map(|sid| Sid::try_from(sid.as_slice()).map_err(|_| wrong("a SID"))).collect()
            }
        }
    }

    /// Returns true if Protected Users is among these groups.
    pub fn is_protected(groups: &[Sid]) -> bool {
        groups.iter().any(Sid::is_protected_users)
    }

    /// Returns the expiry of an account's password; `None` if never.
    ///
    /// # Errors
    /// Returns an error if [`Account::PASSWORD_EXPIRY`] is malformed.
    pub fn password_expiry_of(entry: &Entry) -> Result<Option<SystemTime>, EntryError> {
        Ok(entry.integer(Self::PASSWORD_EXPIRY)?.and_then(time_of))
    }

    /// Returns every rule of the account: its name, its value as a text, and its outcome if it rejects. The
    /// first rejection decides; the order is that in which AD itself reports them.
    fn rules(&self, now: SystemTime, host: &str) -> Vec<(&'static str, String, Option<Outcome>)> {
        let rule = |name, value: String, refuses: bool, outcome| (name, value, refuses.then_some(outcome));
        let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
        let locked = self.computed & LOCKED_OUT != 0;
        let disabled = self.control & DISABLED != 0;
        let expired = self.expires.is_some_and(|at| at <= now);
        let in_hours = self.logon_hours.is_none_or(|hours| allows(&hours, now));
        let netbios = host.split('.').next().unwrap_or_default();
        let here = |name: &String| [netbios, host].iter().any(|own| name.eq_ignore_ascii_case(own));
        let elsewhere = !self.workstations.is_empty() && !self.workstations.iter().any(here);
        // The computed flags also mark a password that must be changed as expired.
        let password_expired = self.computed & PASSWORD_EXPIRED != 0 && !self.must_change;
        let hours = match (self.logon_hours, in_hours) {
            (None, _) => "always",
            (Some(_), true) => "restricted, allowed now",
            (Some(_), false) => "restricted, not allowed now",
        };
        let workstations = match self.workstations.as_slice() {
            [] => "all".to_owned(),
            names => names.join(", "),
        };
        let password = match self.must_change {
            true => "at once".to_owned(),
            false => moment(self.password_expires),
        };
        vec![
            rule("locked out", yes(locked), locked, Outcome::LockedOut),
            rule("disabled", yes(disabled), disabled, Outcome::Disabled),
            rule("account expires", moment(self.expires), expired, Outcome::AccountExpired),
            rule("logon hours", hours.to_owned(), !in_hours, Outcome::LogonHours),
            rule("workstations", workstations, elsewhere, Outcome::Workstation),
            rule("must change password", yes(self.must_change), self.must_change, Outcome::MustChange),
            rule("password expires", password, password_expired, Outcome::PasswordExpired),
        ]
    }

    /// Returns the reason why the account may not log in at `now` on the computer `host`, named by its
    /// NetBIOS name and its domain, even with the right password. Groups depend on the configuration and are
    /// not considered.
    pub fn refusal(&self, now: SystemTime, host: &str) -> Option<Outcome> {
        self.rules(now, host).into_iter().find_map(|(_, _, refusal)| refusal)
    }

    /// Returns the reason why a logged-in user must not stay logged in at `now`. Conditions that AD only
    /// checks at a logon do not count: a lock, which others can cause, the password's age, hours and
    /// workstations.
    pub fn expulsion(&self, now: SystemTime) -> Option<Outcome> {
        let refusals = self.rules(now, "").into_iter().filter_map(|(_, _, refusal)| refusal);
        refusals.into_iter().find(|refusal| matches!(refusal, Outcome::Disabled | Outcome::AccountExpired))
    }

    /// Returns every rule with its value, as texts for the administrator.
    pub fn facts(&self, now: SystemTime, host: &str) -> Vec<Fact> {
        let rules = self.rules(now, host).into_iter();
        let mut facts: Vec<_> = rules
            .map(|(name, value, refusal)| Fact { name: name.to_owned(), value, refuses: refusal.is_some() })
            .collect();
        let restrictions = self.restrictions().into_iter();
        facts.extend(restrictions.map(|(name, value)| Fact { name: name.to_owned(), value, refuses: false }));
        facts
    }

    /// Returns the name of the restriction because of which AD rejects every bind of the account, whatever
    /// the password, if that is certain. A policy or silo may not be enforced, or admit this host.
    pub fn binds_forbidden(&self) -> Option<&'static str> {
        (self.protected == Some(true)).then_some(PROTECTED)
    }

    /// Returns the restrictions that AD applies to a logon in addition to the state, each with its value for
    /// the administrator. Only a logon shows their effect.
    pub fn restrictions(&self) -> Vec<(&'static str, String)> {
        let by_kerberos = |what: &str| format!("{what}passwords are checked by Kerberos alone");
        let protected = (self.protected == Some(true)).then(|| (PROTECTED, by_kerberos("member; ")));
        let policy = |kind, name: &Option<String>| {
            let value =
                name.as_ref().map(|name| format!("{name}; where it is enforced, {}", by_kerberos("")))?;
            Some((kind, value + ", and only from hosts that it admits"))
        };
        let card = self.control & SMARTCARD_REQUIRED != 0;
        let card = card.then(|| {
            let value = "yes; AD has replaced the password, and the KDC takes none";
            ("smart card required", value.to_owned())
        });
        let policies =
            [policy("authentication silo", &self.silo), policy("authentication policy", &self.policy), card];
        protected.into_iter().chain(policies.into_iter().flatten()).collect()
    }
}

/// Name of the fact that an account is in the group Protected Users.
const PROTECTED: &str = "Protected Users";

/// Returns the name of the object that an attribute refers to: the value of its DN's first part.
fn named(entry: &Entry, attribute: &str) -> Result<Option<String>, EntryError> {
    let name = |dn: &str| {
        let first = dn.split_once(",CN=").map_or(dn, |(first, _)| first);
        first.split_once('=').map_or(first, |(_, name)| name).to_owned()
    };
    Ok(entry.text(attribute)?.map(name))
}

/// Converts AD's time: units of 100 ns since 1601; 0 and 2^63-1 mean never (MS-ADA1 2.1, accountExpires).
pub(crate) fn time_of(ticks: i64) -> Option<SystemTime> {
    match u64::try_from(ticks) {
        Ok(0) | Err(_) => None,
        Ok(ticks) if ticks == i64::MAX as u64 => None,
        Ok(ticks) => {
            let since_1970 = (ticks / 10_000_000).saturating_sub(EPOCH_1601);
            // Every number of AD's fits into SystemTime; one that did not would mean never.
            UNIX_EPOCH.checked_add(Duration::from_secs(since_1970))
        }
    }
}

fn moment(at: Option<SystemTime>) -> String {
    let Some(at) = at else { return "never".to_owned() };
    // AD's years end after 30828, RFC 3339's with 9999.
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = i64::try_from(since).ok().and_then(|since| OffsetDateTime::from_unix_timestamp(since).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "after the year 9999".to_owned())
}

/// Returns true if logon is allowed. Bit 0 of byte 0 is Sunday 00:00 to 01:00 UTC (MS-SAMR 2.2.6.5);
/// 1970-01-01 was a Thursday.
fn allows(hours: &[u8; 21], now: SystemTime) -> bool {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 3600;
    let hour = usize::try_from(since.saturating_add(4 * 24) % (7 * 24)).unwrap_or_default();
    hours.get(hour / 8).is_some_and(|byte| byte >> (hour % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Monday 2026-11-23 15:30:00 UTC.
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_447_800)
    }

    fn ticks(at: SystemTime) -> i64 {
        let secs = at.duration_since(UNIX_EPOCH).unwrap().as_secs() + EPOCH_1601;
        i64::try_from(secs * 10_000_000).unwrap()
    }

    fn entry() -> Entry {
        Entry::new("CN=John Doe,CN=Users,DC=acme,DC=com")
            .with("userAccountControl", ["512"])
            .with("msDS-User-Account-Control-Computed", ["0"])
            .with("accountExpires", ["9223372036854775807"])
            .with("pwdLastSet", ["133700000000000000"])
            .with("msDS-UserPasswordExpiryTimeComputed", ["9223372036854775807"])
    }

    fn refusal(entry: &Entry) -> Option<Outcome> {
        Account::from_entry(entry).unwrap().refusal(now(), "XCALLY.acme.com")
    }

    fn replaced(attribute: &str, value: &str) -> Entry {
        let kept = entry();
        let kept = kept.attributes().filter(|(name, _)| !name.eq_ignore_ascii_case(attribute));
        let entry =
            kept.fold(Entry::new(entry().dn()), |entry, (name, values)| entry.with(name, values.to_vec()));
        entry.with(attribute, [value])
    }

    #[test]
    fn each_condition_refuses_with_its_outcome() {
        let hour = Duration::from_secs(3600);
        let (past, future) = (ticks(now() - hour).to_string(), ticks(now() + hour).to_string());
        let cases = [
            ("userAccountControl", "512", None),
            ("userAccountControl", "514", Some(Outcome::Disabled)),
            ("userAccountControl", "-2147483134", Some(Outcome::Disabled)),
            ("msDS-User-Account-Control-Computed", "16", Some(Outcome::LockedOut)),
            ("msDS-User-Account-Control-Computed", "8388608", Some(Outcome::PasswordExpired)),
            ("accountExpires", past.as_str(), Some(Outcome::AccountExpired)),
            ("accountExpires", future.as_str(), None),
            ("accountExpires", "0", None),
            ("accountExpires", "1", Some(Outcome::AccountExpired)),
            ("pwdLastSet", "0", Some(Outcome::MustChange)),
            ("userWorkstations", "OTHERPC", Some(Outcome::Workstation)),
            ("userWorkstations", "OTHERPC, xcally", None),
            ("userWorkstations", "OTHERPC,xcally.ACME.com", None),
            ("userWorkstations", "xcally.other.com,acme.com,com", Some(Outcome::Workstation)),
            ("userWorkstations", "", None),
        ];
        for (attribute, value, outcome) in cases {
            assert_eq!(refusal(&replaced(attribute, value)), outcome, "{attribute} {value}");
        }
    }

    #[test]
    fn a_password_that_never_expires_need_not_be_changed() {
        let with = |control: u32| {
            let entry = replaced("pwdLastSet", "0");
            let kept =
                entry.attributes().filter(|(name, _)| !name.eq_ignore_ascii_case("userAccountControl"));
            let entry = kept.fold(Entry::new(entry.dn()), |e, (name, values)| e.with(name, values.to_vec()));
            entry.with("userAccountControl", [control.to_string()])
        };
        for (control, outcome) in [
            (512, Some(Outcome::MustChange)),
            (512 | PASSWORD_NEVER_EXPIRES, None),
            (512 | SMARTCARD_REQUIRED, None),
            (512 | DISABLED, Some(Outcome::Disabled)),
        ] {
            assert_eq!(refusal(&with(control)), outcome, "{control}");
        }
    }

    #[test]
    fn what_every_account_has_and_the_machine_may_not_read_is_an_error() {
        for attribute in
            ["userAccountControl", "msDS-User-Account-Control-Computed", "accountExpires", "pwdLastSet"]
        {
            let entry = entry();
            let kept = entry.attributes().filter(|(name, _)| !name.eq_ignore_ascii_case(attribute));
            let kept = kept.fold(Entry::new(entry.dn()), |e, (name, values)| e.with(name, values.to_vec()));
            let error = Account::from_entry(&kept).unwrap_err().to_string();
            assert!(error.contains(attribute) && error.contains("readable"), "{error}");
        }
    }

    #[test]
    fn a_lock_hides_everything_else_and_a_change_wins_over_expiry() {
        let entry = replaced("userAccountControl", "514").with("logonHours", [vec![0; 21]]);
        assert_eq!(refusal(&entry), Some(Outcome::Disabled));
        let mut account = Account::from_entry(&entry).unwrap();
        account.computed = LOCKED_OUT;
        assert_eq!(account.refusal(now(), "XCALLY"), Some(Outcome::LockedOut));
        let account = Account { computed: PASSWORD_EXPIRED, must_change: true, ..Account::default() };
        assert_eq!(account.refusal(now(), "XCALLY"), Some(Outcome::MustChange));
    }

    #[test]
    fn only_what_ends_an_account_ends_a_session() {
        let cases = [
            ("userAccountControl", "514", Some(Outcome::Disabled)),
            ("accountExpires", "1", Some(Outcome::AccountExpired)),
            ("pwdLastSet", "0", None),
            ("userWorkstations", "OTHERPC", None),
            ("msDS-User-Account-Control-Computed", "16", None),
            ("msDS-User-Account-Control-Computed", "8388608", None),
        ];
        for (attribute, value, outcome) in cases {
            let account = Account::from_entry(&replaced(attribute, value)).unwrap();
            assert_eq!(account.expulsion(now()), outcome, "{attribute} {value}");
        }
        let hours = Account::from_entry(&entry().with("logonHours", [vec![0; 21]])).unwrap();
        assert_eq!(hours.expulsion(now()), None);
        // A lock does not hide that the account is disabled.
        let locked = Account { computed: LOCKED_OUT, control: DISABLED, ..Account::default() };
        assert_eq!(locked.expulsion(now()), Some(Outcome::Disabled));
    }

    #[test]
    fn logon_hours_are_utc_from_sunday() {
        let mut hours = [0; 21];
        assert_eq!(refusal(&entry().with("logonHours", [hours.to_vec()])), Some(Outcome::LogonHours));
        // Monday, the 15th hour: bit 24 + 15.
        hours[4] = 1 << 7;
        assert_eq!(refusal(&entry().with("logonHours", [hours.to_vec()])), None);
        assert!(!allows(&hours, now() + Duration::from_secs(30 * 60)));
        let sunday_midnight = now() - Duration::from_secs(39 * 3600 + 30 * 60);
        let mut hours = [0; 21];
        hours[0] = 1;
        assert!(allows(&hours, sunday_midnight));
        assert!(!allows(&hours, sunday_midnight - Duration::from_secs(1)));
        hours[20] = 0x80;
        assert!(allows(&hours, sunday_midnight - Duration::from_secs(1)));
    }

    #[test]
    fn malformed_or_missing_state_is_an_error_and_not_a_pass() {
        assert!(Account::from_entry(&Entry::new("CN=x")).is_err());
        assert!(Account::from_entry(&replaced("accountExpires", "soon")).is_err());
        assert!(Account::from_entry(&entry().with("logonHours", [vec![0xff; 20]])).is_err());
        assert!(Account::from_entry(&entry().with("tokenGroups", [vec![0xff]])).is_err());
    }

    #[test]
    fn any_number_of_64_bits_is_judged_and_shown() {
        // The last tick that still counts as the second of `now`.
        let limit = ticks(now()) + 9_999_999;
        // ADSI writes 9223372032559808511 for a date that it cannot represent; 2650467744000000000 is the
        // year 10000.
        let edges = [0, 1, limit, limit + 1, 2_650_467_744_000_000_000, 9_223_372_032_559_808_511, i64::MAX];
        let near = edges.into_iter().flat_map(|edge| (-2..=2).map(move |by| edge.wrapping_add(by)));
        let powers =
            (0..64).flat_map(|bit| [1_i64 << bit, -(1_i64 << bit >> 1), (1_i64 << bit).wrapping_sub(1)]);
        for value in near.chain(powers) {
            for attribute in ["accountExpires", Account::PASSWORD_EXPIRY] {
                let account = Account::from_entry(&replaced(attribute, &value.to_string())).unwrap();
                let expired = attribute == "accountExpires" && (1..=limit).contains(&value);
                let outcome = expired.then_some(Outcome::AccountExpired);
                assert_eq!(account.refusal(now(), "X"), outcome, "{attribute} {value}");
                assert_eq!(account.expulsion(now()), outcome, "{attribute} {value}");
                assert_eq!(account.facts(now(), "X").len(), 7, "{attribute} {value}");
            }
        }
        let shown = |value: &str| {
            let facts = Account::from_entry(&replaced("accountExpires", value)).unwrap().facts(now(), "X");
            facts.into_iter().find(|fact| fact.name == "account expires").unwrap().value
        };
        assert_eq!(shown("9223372032559808511"), "after the year 9999");
        assert_eq!(shown("2650467743990000000"), "9999-12-31T23:59:59Z");
        assert_eq!(shown("1"), "1970-01-01T00:00:00Z");
        assert_eq!(shown("9223372036854775807"), "never");
    }

    #[test]
    fn restrictions_are_shown_and_decide_nothing_by_themselves() {
        let group = |rid: u32| {
            let mut sid = vec![1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0];
            sid.extend(rid.to_le_bytes());
            sid
        };
        let read = |entry: &Entry| Account::from_entry(entry).unwrap();
        assert_eq!(read(&entry()).restrictions(), []);
        assert_eq!(read(&entry().with("tokenGroups", [group(513)])).protected, Some(false));
        let silo =
            "CN=Sales, night,CN=AuthN Silos,CN=AuthN Policy Configuration,CN=Services,CN=Configuration,DC=a";
        let policy =
            "CN=Strict,CN=AuthN Policies,CN=AuthN Policy Configuration,CN=Services,CN=Configuration,DC=a";
        let account = read(
            &replaced("userAccountControl", "262656")
                .with("tokenGroups", [group(513), group(525)])
                .with("msDS-AssignedAuthNPolicySilo", [silo])
                .with("msDS-AssignedAuthNPolicy", [policy]),
        );
        let names: Vec<_> = account.restrictions().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            ["Protected Users", "authentication silo", "authentication policy", "smart card required"]
        );
        assert_eq!(
            (account.silo.as_deref(), account.policy.as_deref()),
            (Some("Sales, night"), Some("Strict"))
        );
        // acct_mgmt is for users who may have logged in with a smart card.
        assert_eq!(account.refusal(now(), "XCALLY"), None);
        assert!(account.facts(now(), "XCALLY").iter().all(|fact| !fact.refuses));
        assert_eq!(account.binds_forbidden(), Some("Protected Users"));
    }

    #[test]
    fn facts_say_what_refuses() {
        let account = Account::from_entry(&replaced("accountExpires", &ticks(now()).to_string())).unwrap();
        let facts = account.facts(now(), "XCALLY");
        let refusing: Vec<_> = facts.iter().filter(|fact| fact.refuses).collect();
        assert_eq!(refusing.len(), 1);
        assert_eq!(
            (refusing[0].name.as_str(), refusing[0].value.as_str()),
            ("account expires", "2026-11-23T15:30:00Z")
        );
    }

    /// Any number of AD's, most of them where something changes.
    fn any_ticks() -> impl Strategy<Value = i64> {
        let second = 10_000_000_i64;
        let from_1970 = 116_444_736_000_000_000;
        prop_oneof![
            any::<i64>(),
            -2_i64..3,
            (0_i64..3).prop_map(|less| i64::MAX - less),
            (0_i64..3).prop_map(|more| i64::MIN + more),
            (-2 * second..2 * second).prop_map(move |about| from_1970 + about),
            (-2 * second..2 * second).prop_map(|about| ticks(now()) + about),
        ]
    }

    /// Any time of this system, from 1970 on.
    fn any_time() -> impl Strategy<Value = SystemTime> {
        let seconds = prop_oneof![0..=i64::MAX as u64, 0_u64..3, 1_795_447_798_u64..1_795_447_803];
        seconds.prop_map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1000, failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn a_later_number_is_a_later_time_and_only_two_numbers_mean_never(
            one in any_ticks(), other in any_ticks(),
        ) {
            let (earlier, later) = (one.min(other), one.max(other));
            if let (Some(earlier), Some(later)) = (time_of(earlier), time_of(later)) {
                prop_assert!(UNIX_EPOCH <= earlier && earlier <= later);
            }
            prop_assert_eq!(time_of(one).is_none(), one <= 0 || one == i64::MAX);
        }

        #[test]
        fn an_account_is_expired_from_its_time_on(
            expires in any_ticks(), password in any_ticks(), now in any_time(),
        ) {
            let entry = replaced("accountExpires", &expires.to_string());
            let account = Account::from_entry(&Entry::with(entry, "x", [""])).unwrap();
            let is_over = time_of(expires).is_some_and(|at| at <= now);
            prop_assert_eq!(account.refusal(now, "XCALLY"), is_over.then_some(Outcome::AccountExpired));
            prop_assert_eq!(account.expulsion(now), account.refusal(now, "XCALLY"));
            // When a password expires is information alone: AD's flag decides.
            let entry = replaced("msDS-UserPasswordExpiryTimeComputed", &password.to_string());
            let account = Account::from_entry(&entry).unwrap();
            prop_assert_eq!(account.refusal(now, "XCALLY"), None);
            prop_assert!(account.facts(now, "XCALLY").iter().all(|fact| !fact.value.is_empty()));
        }

        #[test]
        fn only_zero_means_that_the_password_must_change(set in any_ticks(), now in any_time()) {
            let account = Account::from_entry(&replaced("pwdLastSet", &set.to_string())).unwrap();
            prop_assert_eq!(account.refusal(now, "XCALLY"), (set == 0).then_some(Outcome::MustChange));
        }

        #[test]
        fn logon_hours_repeat_each_week(hours in any::<[u8; 21]>(), now in any_time(), week in 0_u64..2000) {
            let later = Duration::from_secs(week * 7 * 24 * 3600);
            if let Some(later) = now.checked_add(later) {
                prop_assert_eq!(allows(&hours, now), allows(&hours, later));
            }
            prop_assert!(allows(&[0xff; 21], now) && !allows(&[0; 21], now));
        }
    }
}
