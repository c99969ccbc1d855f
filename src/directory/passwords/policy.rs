//! AD's requirements for a new password, and the rule that one violates, as a text for the user.
//!
//! Pure: the time, the policy and the names are passed in. The rules are those of MS-SAMR 3.1.1.7. AD checks
//! them itself but barely says which one was violated, so they are checked again after a refusal.

use std::time::{Duration, SystemTime};

use crate::texts::Text;

/// Non-alphanumeric characters (MS-SAMR 3.1.1.7.2).
const SPECIAL: &str = "~!@#$%^&*_-+=`|\\(){}[]:;\"'<>,.?/";
/// Characters that split a display name into parts.
const DELIMITERS: [char; 7] = [',', '.', '-', '_', ' ', '#', '\t'];
/// Minimum length in characters of a name, or part of one, that is forbidden in a password.
const SHORTEST_NAME: usize = 3;
/// Minimum number of kinds of characters, out of five.
const KINDS: usize = 3;

/// The flag for complex passwords in a domain's policy: `DOMAIN_PASSWORD_COMPLEX` (MS-SAMR 2.2.3.12).
pub(in crate::directory) const COMPLEX: u32 = 1;

/// A password policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Minimum length in UTF-16 units.
    pub length: u32,
    /// Number of earlier passwords that are remembered.
    pub history: u32,
    /// Requires several kinds of characters and forbids names.
    pub complex: bool,
    /// Minimum age of a password before its user may change it.
    pub age: Duration,
}

/// Facts about an account that its new password is measured by, in addition to the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// `sAMAccountName`.
    pub sam: String,
    /// `displayName`.
    pub display: String,
    /// `pwdLastSet`; `None` if the password must be changed, which is possible at once.
    pub set: Option<SystemTime>,
}

/// A rule of a policy, with its number if known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The present password is too young.
    Age(Option<Duration>),
    /// The new one is too short.
    Length(Option<u32>),
    /// It has too few kinds of characters.
    Kinds,
    /// It contains a name.
    Name,
    /// It is too simple in some other way.
    Complexity,
    /// It is an earlier one.
    History(Option<u32>),
    /// It is an earlier one, or on a list that only the domain controllers know.
    HistoryOrList(u32),
    /// The account may not change its password, or not yet.
    AgeOrRight,
}

/// Samba's texts for a refusal, by LDAP and by kpasswd, and the rule that each means.
const WORDS: [(&str, Rule); 6] = [
    ("too young", Rule::Age(None)),
    ("too short", Rule::Length(None)),
    ("complexity", Rule::Complexity),
    ("already used", Rule::History(None)),
    ("in password history", Rule::History(None)),
    ("minimum password age may not have elapsed", Rule::AgeOrRight),
];

/// Explains to the user why a domain controller that answered `said` refuses `new`; `None` if
/// the reason is unknown.
///
/// A rule that the answer names counts first, then the policy. Windows names no rule.
pub fn refusal(
    said: &str,
    policy: Option<&Policy>,
    new: &str,
    subject: &Subject,
    now: SystemTime,
) -> Option<Text> {
    let broken = || policy.and_then(|policy| broken(policy, new, subject, now));
    let rule = match named(said) {
        // The policy can only decide if the password is too young.
        Some(Rule::AgeOrRight) => match broken() {
            Some(age @ Rule::Age(_)) => age,
            _ => Rule::AgeOrRight,
        },
        Some(Rule::Complexity) => simple(new, subject).unwrap_or(Rule::Complexity),
        Some(rule) => rule.completed(policy),
        None => broken().or_else(|| left(policy?))?,
    };
    Some(rule.text())
}

/// Returns the rule that a domain controller names, with its number if it gives one.
fn named(said: &str) -> Option<Rule> {
    let said = said.to_lowercase();
    let (_, rule) = WORDS.iter().find(|(word, _)| said.contains(word))?;
    Some(match rule {
        Rule::Length(_) => Rule::Length(number_before(&said, " characters")),
        Rule::History(_) => Rule::History(number_before(&said, " previous passwords")),
        other => *other,
    })
}

fn number_before(text: &str, word: &str) -> Option<u32> {
    let (before, _) = text.split_once(word)?;
    before.rsplit(' ').next()?.parse().ok()
}

/// Returns the first rule that AD would find violated.
fn broken(policy: &Policy, new: &str, subject: &Subject, now: SystemTime) -> Option<Rule> {
    let length = u32::try_from(new.encode_utf16().count()).unwrap_or(u32::MAX);
    let is_young = subject.set.and_then(|set| set.checked_add(policy.age)).is_some_and(|old| old > now);
    if is_young {
        Some(Rule::Age(Some(policy.age)))
    } else if length < policy.length {
        Some(Rule::Length(Some(policy.length)))
    } else if policy.complex {
        simple(new, subject)
    } else {
        None
    }
}

/// Returns the rule that makes a password too simple.
fn simple(new: &str, subject: &Subject) -> Option<Rule> {
    if !has_kinds(new) { Some(Rule::Kinds) } else { has_name(new, subject).then_some(Rule::Name) }
}

/// Returns the possible reasons if no checkable rule is violated: the earlier passwords, which are
/// unreadable, and a password filter of the domain controllers (MS-SAMR 3.1.1.8.11).
fn left(policy: &Policy) -> Option<Rule> {
    (policy.history > 0).then_some(Rule::HistoryOrList(policy.history))
}

/// Returns true if `new` has enough kinds of characters.
fn has_kinds(new: &str) -> bool {
    let kinds: [fn(char) -> bool; 5] = [
        char::is_uppercase,
        char::is_lowercase,
        |c| c.is_ascii_digit(),
        |c| SPECIAL.contains(c),
        |c| c.is_alphabetic() && !c.is_uppercase() && !c.is_lowercase(),
    ];
    kinds.iter().filter(|kind| new.contains(**kind)).count() >= KINDS
}

/// Returns true if `new` contains the account's name or a part of the user's display name.
fn has_name(new: &str, subject: &Subject) -> bool {
    let new = new.to_lowercase();
    let names = std::iter::once(subject.sam.as_str()).chain(subject.display.split(DELIMITERS));
    names.filter(|name| name.chars().count() >= SHORTEST_NAME).any(|name| new.contains(&name.to_lowercase()))
}

impl Rule {
    /// Adds the policy's number if the domain controller gave none.
    fn completed(self, policy: Option<&Policy>) -> Self {
        match (self, policy) {
            (Rule::Age(None), Some(policy)) => Rule::Age(Some(policy.age)),
            (Rule::Length(None), Some(policy)) => Rule::Length(Some(policy.length)),
            (Rule::History(None), Some(policy)) => Rule::History(Some(policy.history)),
            (other, _) => other,
        }
    }

    fn text(self) -> Text {
        match self {
            Rule::Age(Some(age)) if !age.is_zero() => Text::too_young(age),
            Rule::Age(_) => Text::TooYoung,
            Rule::Length(Some(length @ 1..)) => Text::TooShortFor(length.into()),
            Rule::Length(_) => Text::TooShort,
            Rule::Kinds => Text::Kinds,
            Rule::Name => Text::Name,
            Rule::Complexity => Text::Complexity,
            Rule::History(Some(history @ 2..)) => Text::HistoryOf(history.into()),
            Rule::History(_) => Text::History,
            Rule::HistoryOrList(history @ 2..) => Text::HistoryOrListOf(history.into()),
            Rule::HistoryOrList(_) => Text::HistoryOrList,
            Rule::AgeOrRight => Text::AgeOrRight,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::texts::Language;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        UNIX_EPOCH + 20_000 * DAY
    }

    fn john() -> Subject {
        let set = Some(now() - Duration::from_secs(3600));
        Subject { sam: "john.doe".into(), display: "Jo Ann Doe-Smith".into(), set }
    }

    fn policy() -> Policy {
        Policy { length: 8, history: 24, complex: true, age: Duration::ZERO }
    }

    fn refused(said: &str, policy: Option<&Policy>, new: &str) -> String {
        let text = refusal(said, policy, new, &john(), now());
        text.map(|text| text.to(Language::English).unwrap()).unwrap_or_default()
    }

    /// Windows's answer for every rule, by LDAP.
    const WINDOWS: &str = "0000052D: AtrErr: DSID-03191083, #1:\n\t0: 0000052D: DSID-03191083, problem 1005 \
                           (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)";

    #[test]
    fn complexity_is_three_of_five_kinds_and_no_name() {
        let cases = [
            ("Abcdefg1", true, false),
            ("abcdefg1", false, false),
            ("ABCDEFG1", false, false),
            ("abcdefgh", false, false),
            ("abcdef1!", true, false),
            ("Abcdefg!", true, false),
            ("12345678!a", true, false),
            ("12345678!", false, false),
            // The sharp s is lower case, and the Euro sign is no special character.
            ("ÄÖÜßß123", true, false),
            ("abc€€123", false, false),
            // Letters that are neither upper nor lower case are a separate kind.
            ("パスワード1a", true, false),
            ("パスワード11", false, false),
            ("Abcdefg 1", true, false),
            ("My-JOHN.DOE-1", true, true),
            ("My-john-1", true, false),
            // Parts of the display name are forbidden, except those of two letters.
            ("Xann-1234", true, true),
            ("Xsmith-1234", true, true),
            ("Xdoe-1234", true, true),
            ("Xjo-1234", true, false),
        ];
        for (new, kinds, name) in cases {
            assert_eq!((has_kinds(new), has_name(new, &john())), (kinds, name), "{new}");
        }
        let short = Subject { sam: "jo".into(), ..Subject::default() };
        assert!(!has_name("Jojo-1234", &short));
    }

    #[test]
    fn where_windows_names_no_rule_the_policy_does() {
        let young = Policy { age: DAY, ..policy() };
        let plain = Policy { complex: false, ..policy() };
        let lenient = Policy { history: 0, ..policy() };
        let cases = [
            (&policy(), "Abc-123", "Your new password must have at least 8 characters."),
            (
                &policy(),
                "abcdefgh",
                "Your new password must contain three of these kinds of characters: uppercase letters, \
                 lowercase letters, digits, others.",
            ),
            (
                &policy(),
                "Smith-1234",
                "Your new password must not contain your login name or a part of your name.",
            ),
            (
                &policy(),
                "Abc-12345",
                "Your new password is one of your last 24 passwords, or too easy to guess.",
            ),
            (
                &plain,
                "smithsmith",
                "Your new password is one of your last 24 passwords, or too easy to guess.",
            ),
            (
                &young,
                "Abc",
                "Your password was changed less than 1 day ago; it may not be changed again yet.",
            ),
            (&lenient, "Abc-12345", ""),
        ];
        for (policy, new, sentence) in cases {
            assert_eq!(refused(WINDOWS, Some(policy), new), sentence, "{new}");
        }
        assert_eq!(refused(WINDOWS, None, "Abc"), "");
    }

    #[test]
    fn length_is_counted_in_utf_16() {
        let five = Policy { length: 5, complex: false, history: 0, ..policy() };
        assert_eq!(refused("", Some(&five), "😀😀a"), "");
        assert!(refused("", Some(&five), "öäüß").contains("at least 5 characters"));
    }

    #[test]
    fn a_password_is_young_until_its_age_has_passed_and_never_where_it_must_be_changed() {
        let rule = |age, set| {
            let (policy, subject) = (Policy { age, ..policy() }, Subject { set, ..john() });
            broken(&policy, "Abc-12345", &subject, now())
        };
        let hour = Duration::from_secs(3600);
        assert_eq!(rule(hour, Some(now() - hour)), None);
        let more = hour + Duration::from_secs(1);
        assert_eq!(rule(more, Some(now() - hour)), Some(Rule::Age(Some(more))));
        assert_eq!(rule(DAY, None), None);
    }

    #[test]
    fn what_samba_says_counts_whatever_the_policy_seems_to_be() {
        let ldap =
            |text: &str| format!("0000052D: Constraint violation - check_password_restrictions: {text}");
        let domain = Policy { length: 7, age: DAY, ..policy() };
        let cases = [
            (
                ldap("password is too young to change!"),
                "Your password was changed less than 1 day ago; it may not be changed again yet.",
                "Your password was changed a short time ago; it may not be changed again yet.",
            ),
            (
                ldap("the password is too short. It should be equal or longer than 12 characters!"),
                "Your new password must have at least 12 characters.",
                "Your new password must have at least 12 characters.",
            ),
            (
                ldap("the password does not meet the complexity criteria!"),
                "Your new password is too easy to guess.",
                "Your new password is too easy to guess.",
            ),
            (
                ldap("the password was already used (in history)!"),
                "Your new password must not be one of your last 24 passwords.",
                "Your new password must not be one that you had before.",
            ),
            (
                "Password too short, password must be at least 12 characters long.".to_owned(),
                "Your new password must have at least 12 characters.",
                "Your new password must have at least 12 characters.",
            ),
            (
                "Password is already in password history. New password must not match any of your 5 previous \
                 passwords.".to_owned(),
                "Your new password must not be one of your last 5 passwords.",
                "Your new password must not be one of your last 5 passwords.",
            ),
            (
                "Password change rejected, password changes may not be permitted on this account, or the \
                 minimum password age may not have elapsed.".to_owned(),
                "Your password was changed less than 1 day ago; it may not be changed again yet.",
                "You may not change your password, or not yet.",
            ),
        ];
        for (said, with, without) in &cases {
            assert_eq!(refused(said, Some(&domain), "Abc-12345"), *with, "{said}");
            assert_eq!(refused(said, None, "Abc-12345"), *without, "{said}");
        }
        let complexity = ldap("the password does not meet the complexity criteria!");
        assert!(refused(&complexity, None, "Smith-1234").contains("a part of your name"));
        assert!(refused(&complexity, None, "abcdefgh").contains("three of these kinds"));
    }
}
