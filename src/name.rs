//! XCALLY username to `user@domain` and back.
//!
//! XCALLY knows a user by one word, AD by a principal. The rule is XCALLY's own: username plus the configured
//! domain. A line of the name map wins over the rule. No code here queries AD. Names are compared without
//! case.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;

use crate::protocol::MAX_USER;

/// An AD account by name: `user@domain`, as names are compared, and which of an account's names that is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal {
    user: String,
    domain: String,
    form: Form,
    typed: Typed,
}

/// The names of an account that a text stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// A name without a domain: an explicit `userPrincipalName` or a `sAMAccountName`, which must not be two
    /// accounts'.
    Bare,
    /// `user@domain`: the explicit `userPrincipalName`, else the `sAMAccountName` in that domain (MS-ADTS
    /// 5.1.1.1.1).
    Full,
    /// `DOMAIN\user`: the `sAMAccountName` alone.
    Account,
}

/// The user's part of a name as it was typed. Queries to AD use it unchanged; comparisons ignore it.
#[derive(Clone, Debug)]
struct Typed(String);

impl PartialEq for Typed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Typed {}

impl std::hash::Hash for Typed {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

impl PartialOrd for Typed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Typed {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl Principal {
    /// Reads `user@domain`.
    ///
    /// # Errors
    /// Returns [`NameError`] if one side is empty or holds a character that no principal can hold.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text)?;
        match text.rsplit_once('@') {
            Some((user, domain)) => Principal::new(user, domain, Form::Full),
            None => Err(NameError::NotAPrincipal),
        }
    }

    fn new(user: &str, domain: &str, form: Form) -> Result<Self, NameError> {
        let plain = |part: &str| !part.is_empty() && part.trim() == part && !part.contains(['@', '\\']);
        if !plain(user) || !is_domain(domain) {
            return Err(NameError::NotAPrincipal);
        }
        Ok(Principal { user: fold(user), domain: fold(domain), form, typed: Typed(user.to_owned()) })
    }

    /// Reads the right side of a line of the map: `user@domain`, or `DOMAIN\user`, whose domain is then the
    /// one before the backslash.
    fn target(text: &str) -> Result<Self, NameError> {
        match text.split_once('\\') {
            Some((domain, user)) => check(text).and_then(|()| Principal::new(user, domain, Form::Account)),
            None => Principal::parse(text),
        }
    }

    /// The part before the `@`.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The part after the `@`: the domain's DNS name or a UPN suffix.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the kind of name: which of an account's names it is.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The part before the `@` as it was typed. Queries to AD use it, because AD has its own rules for letter
    /// case.
    pub fn typed_user(&self) -> &str {
        &self.typed.0
    }

    /// Returns true if both are the same text, whatever form it was typed in.
    fn is_alike(&self, other: &Self) -> bool {
        (&self.user, &self.domain) == (&other.user, &other.domain)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.domain)
    }
}

/// The form in which names are compared: AD's names do not know case.
///
/// Each letter stands for itself, as in AD: the final sigma is a sigma, and a letter whose lower case is more
/// than one character (`İ`) stays as it is.
pub fn fold(name: &str) -> String {
    let letter = |letter: char| {
        let mut lower = letter.to_lowercase();
        match (lower.next(), lower.next()) {
            (Some('ς'), None) => 'σ',
            (Some(lower), None) => lower,
            _ => letter,
        }
    };
    name.chars().map(letter).collect()
}

/// Returns true if `text` can be a DNS domain or a UPN suffix (RFC 1123, 2.1; AD also allows the underscore).
pub fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Reason why a name has no principal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was typed.
    #[error("the name is empty")]
    Empty,
    /// Longer than [`MAX_USER`].
    #[error("the name is longer than {MAX_USER} bytes")]
    TooLong,
    /// Holds a control character.
    #[error("the name contains a control character")]
    Control,
    /// Begins or ends with a space: AD would ignore it, XCALLY would see two users.
    #[error("the name begins or ends with a space")]
    Space,
    /// Neither a word, nor `user@domain`, nor `DOMAIN\user`.
    #[error("the name is neither a word, nor user@domain, nor DOMAIN\\user")]
    NotAPrincipal,
    /// On `names.refuse`.
    #[error("the name is on names.refuse")]
    Refused,
    /// Begins with the DNS name of an accepted domain and a backslash.
    #[error("{0:?} is a DNS name, and AD takes the NetBIOS name alone before a backslash")]
    DnsName(String),
    /// Of a domain that is not accepted.
    #[error("the domain {0:?} is not accepted (names.domains)")]
    Domain(String),
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        Err(NameError::Empty)
    } else if name.len() > MAX_USER {
        Err(NameError::TooLong)
    } else if name.chars().any(char::is_control) {
        Err(NameError::Control)
    } else if name.trim() != name {
        Err(NameError::Space)
    } else {
        Ok(())
    }
}

/// How names are mapped on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The domain of a name without one, as DNS name.
    pub domain: String,
    /// Further domains and UPN suffixes that users may type.
    pub domains: Vec<String>,
    /// NetBIOS name of [`Rules::domain`], for `DOMAIN\user`.
    pub netbios: String,
    /// Names that are never logged in, whatever their domain.
    pub refuse: Vec<String>,
    /// The lines of names.map.
    pub map: NameMap,
}

/// Names of the forest that extend the rules, as far as they are known at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// UPN suffixes that any account of the forest may have; users may type them.
    pub suffixes: Vec<String>,
    /// NetBIOS name and DNS name of each domain of the forest. It makes no domain accepted that is not.
    pub netbios: Vec<(String, String)>,
}

impl Rules {
    /// Returns the principal of a name as the user typed it, by the configuration alone.
    ///
    /// # Errors
    /// Returns [`NameError`] if the name has none.
    pub fn principal(&self, name: &str) -> Result<Principal, NameError> {
        self.principal_among(name, &Known::default())
    }

    /// As [`Rules::principal`], but `known` counts, too. It never changes a principal that
    /// [`Rules::principal`] finds.
    ///
    /// # Errors
    /// Returns [`NameError`] if the name has none.
    pub fn principal_among(&self, name: &str, known: &Known) -> Result<Principal, NameError> {
        check(name)?;
        if self.refuses(name) {
            return Err(NameError::Refused);
        }
        let principal = match self.map.get(name) {
            Some(principal) => self.target(principal, known)?,
            None => self.by_rule(name, known)?,
        };
        if self.refuses(principal.user()) {
            return Err(NameError::Refused);
        }
        Ok(principal)
    }

    /// Returns true if a line of the map gives `name` another principal than the rule would.
    pub fn is_mapped(&self, name: &str) -> bool {
        let known = Known::default();
        let is_by_rule = |mapped: &Principal| {
            let (mapped, by_rule) = (self.target(mapped, &known), self.by_rule(name, &known));
            mapped.is_ok_and(|mapped| by_rule.is_ok_and(|by_rule| by_rule.is_alike(&mapped)))
        };
        self.map.get(name).is_some_and(|mapped| !is_by_rule(mapped))
    }

    /// The principal that the right side of a line of the map means: the domain before a backslash is known
    /// here.
    ///
    /// # Errors
    /// Returns [`NameError::Domain`] if that domain is unknown or not accepted.
    pub fn target(&self, target: &Principal, known: &Known) -> Result<Principal, NameError> {
        match target.form {
            Form::Account => {
                let domain = fold(self.before_backslash(&target.domain, known)?);
                Ok(Principal { domain, ..target.clone() })
            }
            Form::Bare | Form::Full => Ok(target.clone()),
        }
    }

    /// The names under which XCALLY may know `principal`: those of the map first, then the rule's.
    pub fn names(&self, principal: &Principal) -> Vec<String> {
        let is_it = |target: &Principal| {
            self.target(target, &Known::default()).is_ok_and(|target| target.is_alike(principal))
        };
        let lines = self.map.lines().into_iter();
        // A name that is refused leads nowhere, whatever its line says.
        let leads_there = |name: &str| self.principal(name).is_ok_and(|found| found.is_alike(principal));
        let lines = lines.filter(|(_, name, target)| is_it(target) && leads_there(name));
        let mut names: Vec<_> = lines.map(|(_, name, _)| name.to_owned()).collect();
        let by_rule = match fold(&self.domain) == principal.domain() {
            true => principal.user().to_owned(),
            false => principal.to_string(),
        };
        if leads_there(&by_rule) && !names.contains(&by_rule) {
            names.push(by_rule);
        }
        names
    }

    fn by_rule(&self, name: &str, known: &Known) -> Result<Principal, NameError> {
        if let Some((domain, user)) = name.split_once('\\') {
            Principal::new(user, self.before_backslash(domain, known)?, Form::Account)
        } else if let Some((user, domain)) = name.rsplit_once('@') {
            match self.accepted(domain, known) {
                Ok(domain) => Principal::new(user, domain, Form::Full),
                // AD takes `user@DOMAIN` for `DOMAIN\user`.
                Err(error) => match self.before_backslash(domain, known) {
                    Ok(domain) => Principal::new(user, domain, Form::Account),
                    Err(_) => Err(error),
                },
            }
        } else {
            Principal::new(name, &self.domain, Form::Bare)
        }
    }

    /// The accepted domain with this NetBIOS name.
    fn before_backslash<'a>(&'a self, domain: &str, known: &'a Known) -> Result<&'a str, NameError> {
        if !domain.is_empty() && fold(domain) == fold(&self.netbios) {
            return Ok(&self.domain);
        }
        let refused = || match self.accepted(domain, known) {
            Ok(_) => NameError::DnsName(domain.to_owned()),
            Err(error) => error,
        };
        let named = known.netbios.iter().find(|(netbios, _)| fold(netbios) == fold(domain));
        self.accepted(&named.ok_or_else(refused)?.1, known).map_err(|_| refused())
    }

    fn accepted<'a>(&'a self, domain: &str, known: &'a Known) -> Result<&'a str, NameError> {
        std::iter::once(&self.domain)
            .chain(&self.domains)
            .chain(&known.suffixes)
            .find(|accepted| !domain.is_empty() && fold(accepted) == fold(domain))
            .map(String::as_str)
            .ok_or_else(|| NameError::Domain(domain.to_owned()))
    }

    fn refuses(&self, user: &str) -> bool {
        self.refuse.iter().any(|refused| fold(refused) == fold(user))
    }
}

/// The lines of names.map: `xcally-name = user@domain`, or `xcally-name = DOMAIN\user`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameMap {
    lines: HashMap<String, Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    number: usize,
    principal: Principal,
}

impl NameMap {
    /// Reads the text of a map. Empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// Returns [`MapError`] for the first line that is malformed or contradicts an earlier one.
    pub fn parse(text: &str) -> Result<Self, MapError> {
        let mut lines = HashMap::<String, Line>::new();
        for (number, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let fail = |problem| MapError { line: number, problem };
            let Some((name, principal)) = text.rsplit_once('=') else {
                return Err(fail(MapProblem::NoEquals));
            };
            let name = name.trim();
            check(name).map_err(|e| fail(MapProblem::Name(e)))?;
            let principal =
                Principal::target(principal.trim()).map_err(|e| fail(MapProblem::Principal(e)))?;
            match lines.get(&fold(name)) {
                Some(earlier) if earlier.principal != principal => {
                    return Err(fail(MapProblem::Contradiction(earlier.number)));
                }
                Some(_) => {}
                None => {
                    lines.insert(fold(name), Line { number, principal });
                }
            }
        }
        Ok(NameMap { lines })
    }

    /// Its lines in order: their numbers, from 1, with name and account of each.
    pub fn lines(&self) -> Vec<(usize, &str, &Principal)> {
        let lines = self.lines.iter().map(|(name, line)| (line.number, name.as_str(), &line.principal));
        let mut lines: Vec<_> = lines.collect();
        lines.sort_by_key(|(number, ..)| *number);
        lines
    }

    fn get(&self, name: &str) -> Option<&Principal> {
        self.lines.get(&fold(name)).map(|line| &line.principal)
    }
}

/// An invalid line of names.map. An invalid map denies every login: if the line were skipped, a user might be
/// logged in as another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct MapError {
    /// The line's number, from 1.
    pub line: usize,
    /// The problem with the line.
    pub problem: MapProblem,
}

/// A problem with a line of names.map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapProblem {
    /// There is no `=`.
    #[error("expected `xcally-name = user@domain`")]
    NoEquals,
    /// The left side is no name.
    #[error("left of `=`: {0}")]
    Name(NameError),
    /// The right side is no principal.
    #[error("right of `=`, expected user@domain or DOMAIN\\user: {0}")]
    Principal(NameError),
    /// An earlier line maps the same name to another account.
    #[error("line {0} maps the same name to another account")]
    Contradiction(usize),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(map: &str) -> Rules {
        Rules {
            domain: "acme.com".into(),
            domains: vec!["sales.acme.example".into()],
            netbios: "ACME".into(),
            refuse: vec!["root".into(), "motion".into()],
            map: NameMap::parse(map).unwrap(),
        }
    }

    #[test]
    fn a_line_of_the_map_may_hold_a_name_with_its_domain() {
        let rules = rules("jd = john.doe@acme.com\njd@acme.com = john.doe@acme.com");
        for name in ["jd", "JD@acme.com"] {
            assert_eq!(rules.principal(name).unwrap().to_string(), "john.doe@acme.com", "{name}");
        }
        assert_eq!(rules.principal("ACME\\jd").unwrap().user(), "jd");
    }

    #[test]
    fn one_person_however_typed() {
        for name in [
            "john.doe",
            "John.Doe",
            "john.doe@acme.com",
            "JOHN.DOE@ACME.COM",
            "ACME\\john.doe",
            "acme\\John.Doe",
            "john.doe@ACME",
            "John.Doe@acme",
        ] {
            assert_eq!(rules("").principal(name).unwrap().to_string(), "john.doe@acme.com", "{name}");
        }
    }

    #[test]
    fn how_a_name_is_typed_says_which_name_it_is() {
        let cases = [
            ("ceo", Form::Bare),
            ("ceo@acme.com", Form::Full),
            ("CEO@sales.acme.example", Form::Full),
            ("ACME\\ceo", Form::Account),
            ("ceo@ACME", Form::Account),
            ("boss", Form::Full),
            ("chief", Form::Account),
        ];
        let rules = rules("boss = ceo@acme.com\nchief = ACME\\CEO\n");
        for (name, form) in cases {
            assert_eq!(rules.principal(name).unwrap().form(), form, "{name}");
        }
        // They are not remembered as one.
        let of = |name: &str| rules.principal(name).unwrap();
        assert_ne!(of("ceo"), of("ceo@acme.com"));
        assert_ne!(of("ceo@acme.com"), of("ACME\\ceo"));
        assert_eq!((of("chief"), of("boss")), (of("ACME\\ceo"), of("ceo@acme.com")));
        assert_eq!(of("chief").to_string(), "ceo@acme.com");
    }

    #[test]
    fn a_line_of_the_map_decides_which_account_a_name_means() {
        let rules = rules("ceo = ACME\\ceo\n");
        assert_eq!(rules.principal("CEO").unwrap().form(), Form::Account);
        assert_eq!(rules.names(&Principal::parse("ceo@acme.com").unwrap()), ["ceo"]);
        assert!(!rules.is_mapped("ceo"));
        let unknown = NameMap::parse("ceo = EVIL\\ceo\n").unwrap();
        let unknown = Rules { map: unknown, ..rules };
        assert_eq!(unknown.principal("ceo"), Err(NameError::Domain("evil".into())));
        assert!(unknown.is_mapped("ceo"));
        let known = Known { netbios: vec![("EVIL".into(), "sales.acme.example".into())], ..Known::default() };
        assert_eq!(unknown.principal_among("ceo", &known).unwrap().domain(), "sales.acme.example");
        let twice = NameMap::parse("ceo = ceo@acme.com\nceo = ACME\\ceo\n").unwrap_err();
        assert_eq!(twice.problem, MapProblem::Contradiction(1));
    }

    #[test]
    fn letters_are_compared_one_by_one_and_ad_is_asked_for_what_was_typed() {
        let cases = [
            ("νίκος.παππάς", "ΝΊΚΟΣ.ΠΑΠΠΆΣ", true),
            ("μάριος.λιος", "ΜΆΡΙΟΣ.ΛΙΟΣ", true),
            ("παππάσ", "ΠΑΠΠΆΣ", true),
            ("İlker", "İLKER", true),
            ("İlker", "ilker", false),
            ("İlker", "i\u{307}lker", false),
            ("ılker", "ilker", false),
            ("straße", "STRAẞE", true),
            ("straße", "STRASSE", false),
            ("ŉ", "ʼn", false),
            ("ǰ", "J\u{30c}", false),
            ("ﬁ", "FI", false),
        ];
        for (one, other, is_same) in cases {
            assert_eq!(fold(one) == fold(other), is_same, "{one} {other}");
            assert_eq!(fold(one).chars().count(), one.chars().count(), "{one}");
            let principal = rules("").principal(one).unwrap();
            assert_eq!(principal.typed_user(), one);
            assert_eq!(rules("").principal(other).unwrap() == principal, is_same, "{one} {other}");
        }
        // In the map, too.
        let rules = rules("νίκος = john@acme.com\nİlker = mary@acme.com\n");
        assert_eq!(rules.principal("ΝΊΚΟΣ").unwrap().user(), "john");
        assert_eq!(rules.principal("İLKER").unwrap().user(), "mary");
        assert_eq!(rules.principal("ilker").unwrap().user(), "ilker");
    }

    /// No other letter's lower case depends on what is around it or is longer than the letter.
    #[test]
    fn these_are_all_the_letters_whose_lower_case_is_not_one_letter() {
        let longer = (char::MIN..=char::MAX).filter(|letter| letter.to_lowercase().count() != 1);
        assert_eq!(longer.collect::<String>(), "İ");
        let around =
            |letter: &char| format!("α{letter}").to_lowercase() != format!("α{}", letter.to_lowercase());
        assert_eq!((char::MIN..=char::MAX).filter(around).collect::<String>(), "Σ");
    }

    #[test]
    fn names_as_people_have_them() {
        let cases = [
            ("Mary Ann", "mary ann@acme.com"),
            ("jörg.müller", "jörg.müller@acme.com"),
            ("JÖRG.MÜLLER", "jörg.müller@acme.com"),
            ("miles.o'brien", "miles.o'brien@acme.com"),
            ("uma@sales.acme.example", "uma@sales.acme.example"),
            ("*)(objectClass=*", "*)(objectclass=*@acme.com"),
        ];
        for (name, principal) in cases {
            assert_eq!(rules("").principal(name).unwrap().to_string(), principal);
        }
    }

    #[test]
    fn names_that_are_refused() {
        let long = "x".repeat(MAX_USER + 1);
        let cases = [
            ("", NameError::Empty),
            (long.as_str(), NameError::TooLong),
            ("john\ndoe", NameError::Control),
            ("john\0doe", NameError::Control),
            ("john\u{85}doe", NameError::Control),
            (" john.doe", NameError::Space),
            ("john.doe ", NameError::Space),
            ("root", NameError::Refused),
            ("Root@acme.com", NameError::Refused),
            ("ACME\\MOTION", NameError::Refused),
            ("john@evil.example", NameError::Domain("evil.example".into())),
            ("EVIL\\john", NameError::Domain("EVIL".into())),
            ("john@EVIL", NameError::Domain("EVIL".into())),
            ("acme.com\\john", NameError::DnsName("acme.com".into())),
            ("john@", NameError::Domain(String::new())),
            ("\\john", NameError::Domain(String::new())),
            ("@acme.com", NameError::NotAPrincipal),
            ("ACME\\", NameError::NotAPrincipal),
            ("ACME\\john@acme.com", NameError::NotAPrincipal),
            ("ACME\\a\\b", NameError::NotAPrincipal),
            ("a@b@acme.com", NameError::NotAPrincipal),
        ];
        for (name, error) in cases {
            assert_eq!(rules("").principal(name), Err(error), "{name:?}");
        }
        // The longest one.
        let longest = "x".repeat(MAX_USER);
        assert_eq!(rules("").principal(&longest).map(|known| known.user().len()), Ok(MAX_USER));
    }

    #[test]
    fn a_domain_has_labels_of_letters_digits_hyphens_and_underscores() {
        let label = "x".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "x".repeat(61));
        for domain in
            ["acme", "acme.com", "a-c.me", "_sites.acme.com", "4u.example", "bücher.example", &longest]
        {
            assert!(is_domain(domain), "{domain}");
        }
        let too_long = format!("{longest}x");
        let long_label = format!("{label}x.com");
        let cases = [
            "",
            ".",
            "acme.",
            ".acme",
            "a..b",
            "-a.com",
            "a-.com",
            "a b",
            "a/b",
            "a@b",
            &too_long,
            &long_label,
        ];
        for domain in cases {
            assert!(!is_domain(domain), "{domain}");
        }
    }

    #[test]
    fn principals_that_are_equal_have_no_order_either() {
        let [typed, other] = ["John@acme.com", "john@ACME.com"].map(|name| Principal::parse(name).unwrap());
        assert_eq!(typed, other);
        assert_eq!(typed.partial_cmp(&other), Some(Ordering::Equal));
        assert_eq!(typed.cmp(&other), Ordering::Equal);
    }

    #[test]
    fn the_forest_adds_suffixes_and_short_names_of_accepted_domains() {
        let known = Known {
            suffixes: vec!["Brand.example".into()],
            netbios: vec![
                ("ACME".into(), "evil.example".into()),
                ("SALES".into(), "sales.acme.example".into()),
                ("LAB".into(), "lab.acme.com".into()),
            ],
        };
        let cases = [
            ("sven@BRAND.example", Ok("sven@brand.example")),
            ("sales\\uma", Ok("uma@sales.acme.example")),
            ("LAB\\x", Err(NameError::Domain("LAB".into()))),
            ("x@lab.acme.com", Err(NameError::Domain("lab.acme.com".into()))),
            ("root@brand.example", Err(NameError::Refused)),
            // What the configuration says stands.
            ("ACME\\john", Ok("john@acme.com")),
            ("john", Ok("john@acme.com")),
            ("\\john", Err(NameError::Domain(String::new()))),
            ("john@", Err(NameError::Domain(String::new()))),
        ];
        for (name, principal) in cases {
            let found = rules("").principal_among(name, &known).map(|found| found.to_string());
            assert_eq!(found, principal.map(str::to_owned), "{name}");
        }
        assert_eq!(rules("").principal("sven@brand.example"), Err(NameError::Domain("brand.example".into())));
    }

    #[test]
    fn an_unset_netbios_name_accepts_no_backslash() {
        let rules = Rules { netbios: String::new(), ..rules("") };
        assert_eq!(rules.principal("\\john"), Err(NameError::Domain(String::new())));
    }

    #[test]
    fn a_map_line_wins_over_the_rule_but_not_over_the_refusals() {
        let rules = rules(
            "# people\n\nJDoe = john.doe@acme.com\numa = uma.upn@other.example\nroot = john.doe@acme.com\n\
             boss=root@acme.com",
        );
        assert_eq!(rules.principal("jdoe").unwrap().to_string(), "john.doe@acme.com");
        assert_eq!(rules.principal("UMA").unwrap().to_string(), "uma.upn@other.example");
        assert_eq!(rules.principal("root"), Err(NameError::Refused));
        assert_eq!(rules.principal("boss"), Err(NameError::Refused));
        for (name, is_mapped) in
            [("jdoe", true), ("uma", true), ("john.doe", false), ("x@evil.example", false)]
        {
            assert_eq!(rules.is_mapped(name), is_mapped, "{name}");
        }
    }

    #[test]
    fn a_broken_map_names_its_line() {
        let cases = [
            ("john.doe", 1, MapProblem::NoEquals),
            ("\n= john@acme.com", 2, MapProblem::Name(NameError::Empty)),
            ("# x\n\nj = john", 3, MapProblem::Principal(NameError::NotAPrincipal)),
            ("j = john@acme.com\nJ = jane@acme.com", 2, MapProblem::Contradiction(1)),
            ("j = john@acme..com", 1, MapProblem::Principal(NameError::NotAPrincipal)),
        ];
        for (text, line, problem) in cases {
            assert_eq!(NameMap::parse(text), Err(MapError { line, problem }), "{text:?}");
        }
        assert!(NameMap::parse("j = john@acme.com\nJ = John@ACME.com").is_ok());
    }

    #[test]
    fn a_principal_finds_its_names() {
        let rules = rules("jd = john.doe@acme.com\njohn = john.doe@acme.com\njane = other@acme.com");
        let names = |p| rules.names(&Principal::parse(p).unwrap());
        assert_eq!(names("john.doe@acme.com"), ["jd", "john", "john.doe"]);
        assert_eq!(names("uma@sales.acme.example"), ["uma@sales.acme.example"]);
        assert_eq!(names("jane@acme.com"), Vec::<String>::new());
        assert_eq!(names("root@acme.com"), Vec::<String>::new());
        assert_eq!(names("x@evil.example"), Vec::<String>::new());
    }

    /// A character that may make two names one: of either case, without a partner, composed, wide.
    fn letters() -> impl Strategy<Value = String> {
        "[a-cA-C.0-9äÄßẞſςΣİıéK\u{212a}\u{301}ﬁ*()\\\\@ =#]{1,8}"
    }

    /// Names as users type them, of all forms.
    fn typed() -> impl Strategy<Value = String> {
        let word = || prop_oneof![4 => Just("john".to_owned()), 1 => Just("Root".to_owned()), 4 => letters()];
        let domain =
            prop_oneof![Just("ACME.com"), Just("acme"), Just("sales.acme.example"), Just("evil.com")];
        (word(), domain, 0..4).prop_map(|(word, domain, form)| match form {
            0 => format!("{word}@{domain}"),
            1 => format!("{domain}\\{word}"),
            _ => word,
        })
    }

    fn maps() -> impl Strategy<Value = NameMap> {
        let lines = prop::collection::vec((typed(), typed()), 0..6);
        lines.prop_map(|lines| {
            let text = |(name, target): &(String, String)| format!("{name} = {target}\n");
            // Each line alone, because most lines of chance are malformed or contradict each other.
            let sound = lines.iter().map(text).fold(String::new(), |map, line| {
                if NameMap::parse(&(map.clone() + &line)).is_ok() { map + &line } else { map }
            });
            NameMap::parse(&sound).unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 500, failure_persistence: None, ..ProptestConfig::default()
        })]

        /// Each name that the reverse returns is one under which the application reaches that account.
        #[test]
        fn every_name_that_an_account_may_have_leads_back_to_it(name in typed(), map in maps()) {
            let rules = Rules { map, ..rules("") };
            if let Ok(principal) = rules.principal(&name) {
                for back in rules.names(&principal) {
                    prop_assert_eq!(rules.principal(&back).unwrap().to_string(), principal.to_string());
                }
            }
        }

        #[test]
        fn letter_case_makes_no_difference(name in typed(), map in maps()) {
            let rules = Rules { map, ..rules("") };
            prop_assert_eq!(rules.principal(&fold(&name)).ok(), rules.principal(&name).ok());
            let capitals: String = name.chars().map(|c| c.to_ascii_uppercase()).collect();
            prop_assert_eq!(rules.principal(&capitals).ok(), rules.principal(&name).ok());
        }

        /// What is refused stays refused, however it is written and whatever the map says.
        #[test]
        fn no_map_opens_a_refused_name(map in maps(), domain in "[a-z]{3,6}") {
            let rules = Rules { map, ..rules("") };
            for name in ["root", "ROOT", "root@acme.com", "ACME\\Root", "rooT@acme"] {
                prop_assert!(rules.principal(name).is_err() || rules.is_mapped(name), "{}", name);
            }
            let elsewhere = format!("john@{domain}.example");
            prop_assert!(rules.principal(&elsewhere).is_err());
            for (_, name, target) in rules.map.lines() {
                let refused = rules.refuses(name) || rules.refuses(target.user());
                prop_assert!(!refused || rules.principal(name).is_err());
            }
        }
    }

    #[test]
    fn a_refused_name_is_no_name_of_an_account() {
        let rules = rules("root = john@acme.com\njd = john@acme.com");
        assert_eq!(rules.names(&rules.principal("jd").unwrap()), ["jd", "john"]);
    }

    #[test]
    fn each_letter_is_folded_to_one_letter_that_stays() {
        for letter in '\0'..=char::MAX {
            let folded = fold(letter.encode_utf8(&mut [0; 4]));
            assert_eq!(folded.chars().count(), 1, "{letter:?}");
            assert_eq!(fold(&folded), folded, "{letter:?}");
        }
    }
}
