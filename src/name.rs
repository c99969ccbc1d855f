//! XCALLY username to `user@domain` and back.
//!
//! XCALLY knows a person by one word, AD by a principal. The rule is XCALLY's own: username plus the configured
//! domain. A line of the name map wins over the rule. Nothing here asks AD; names are compared without case.

use std::collections::HashMap;
use std::fmt;

use crate::protocol::MAX_USER;

/// An AD account by name: `user@domain`, in lower case.
///
/// It is what an explicit `userPrincipalName` says, or the implicit `sAMAccountName@domain`
/// (MS-ADTS 5.1.1.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal {
    user: String,
    domain: String,
}

impl Principal {
    /// Reads `user@domain`.
    ///
    /// # Errors
    /// One side is empty or holds what no principal can hold.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text)?;
        match text.rsplit_once('@') {
            Some((user, domain)) => Principal::new(user, domain),
            None => Err(NameError::NotAPrincipal),
        }
    }

    fn new(user: &str, domain: &str) -> Result<Self, NameError> {
        let plain = |part: &str| !part.is_empty() && part.trim() == part && !part.contains(['@', '\\']);
        if !plain(user) || !is_domain(domain) {
            return Err(NameError::NotAPrincipal);
        }
        Ok(Principal { user: fold(user), domain: fold(domain) })
    }

    /// The part before the `@`.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The part after the `@`: the domain's DNS name or a UPN suffix.
    pub fn domain(&self) -> &str {
        &self.domain
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.domain)
    }
}

/// The form in which names are compared: AD's names do not know case.
pub fn fold(name: &str) -> String {
    name.to_lowercase()
}

/// Whether `text` can be a DNS domain or a UPN suffix (RFC 1123, 2.1; AD also allows the underscore).
pub fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Why a name has no principal.
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
    /// Begins or ends with a space: AD would ignore it, XCALLY would see two people.
    #[error("the name begins or ends with a space")]
    Space,
    /// Neither a word, nor `user@domain`, nor `DOMAIN\user`.
    #[error("the name is neither a word, nor user@domain, nor DOMAIN\\user")]
    NotAPrincipal,
    /// On `names.refuse`.
    #[error("the name is on names.refuse")]
    Refused,
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
    /// Further domains and UPN suffixes that people may type.
    pub domains: Vec<String>,
    /// NetBIOS name of [`Rules::domain`], for `DOMAIN\user`.
    pub netbios: String,
    /// Names that are never logged in, whatever their domain.
    pub refuse: Vec<String>,
    /// The lines of names.map.
    pub map: NameMap,
}

/// What the forest adds to the rules, as far as it is known at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// UPN suffixes that any account of the forest may bear; people may type them.
    pub suffixes: Vec<String>,
    /// NetBIOS name and DNS name of each domain of the forest. It makes no domain accepted that is not.
    pub netbios: Vec<(String, String)>,
}

impl Rules {
    /// The principal of a name as the person typed it, by the configuration alone.
    ///
    /// # Errors
    /// Why it has none.
    pub fn principal(&self, name: &str) -> Result<Principal, NameError> {
        self.principal_among(name, &Known::default())
    }

    /// The same, where `known` counts, too. It never changes what [`Rules::principal`] has an answer to.
    ///
    /// # Errors
    /// Why it has none.
    pub fn principal_among(&self, name: &str, known: &Known) -> Result<Principal, NameError> {
        check(name)?;
        if self.refuses(name) {
            return Err(NameError::Refused);
        }
        let principal = match self.map.get(name) {
            Some(principal) => principal.clone(),
            None => self.by_rule(name, known)?,
        };
        if self.refuses(principal.user()) {
            return Err(NameError::Refused);
        }
        Ok(principal)
    }

    /// Whether a line of the map sends `name` elsewhere than the rule would.
    pub fn is_mapped(&self, name: &str) -> bool {
        let by_rule = || self.by_rule(name, &Known::default());
        self.map.get(name).is_some_and(|mapped| by_rule().as_ref() != Ok(mapped))
    }

    /// The names under which XCALLY may know `principal`: those of the map first, then the rule's.
    pub fn names(&self, principal: &Principal) -> Vec<String> {
        let mut names = self.map.names(principal);
        let by_rule = match fold(&self.domain) == principal.domain() {
            true => principal.user().to_owned(),
            false => principal.to_string(),
        };
        if self.principal(&by_rule).as_ref() == Ok(principal) && !names.contains(&by_rule) {
            names.push(by_rule);
        }
        names
    }

    fn by_rule(&self, name: &str, known: &Known) -> Result<Principal, NameError> {
        if let Some((domain, user)) = name.split_once('\\') {
            Principal::new(user, self.before_backslash(domain, known)?)
        } else if let Some((user, domain)) = name.rsplit_once('@') {
            Principal::new(user, self.accepted(domain, known)?)
        } else {
            Principal::new(name, &self.domain)
        }
    }

    fn before_backslash<'a>(&'a self, domain: &str, known: &'a Known) -> Result<&'a str, NameError> {
        if !domain.is_empty() && fold(domain) == fold(&self.netbios) {
            return Ok(&self.domain);
        }
        let named = known.netbios.iter().find(|(netbios, _)| fold(netbios) == fold(domain));
        match named {
            Some((_, dns)) => self.accepted(dns, known).map_err(|_| NameError::Domain(domain.to_owned())),
            None => self.accepted(domain, known),
        }
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

/// The lines of names.map: `xcally-name = user@domain`.
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
    /// The first line that is malformed, or that contradicts an earlier one.
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
            let principal = Principal::parse(principal.trim()).map_err(|e| fail(MapProblem::Principal(e)))?;
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

    fn names(&self, principal: &Principal) -> Vec<String> {
        let mut found: Vec<_> = self.lines.iter().filter(|(_, line)| line.principal == *principal).collect();
        found.sort_by_key(|(_, line)| line.number);
        found.into_iter().map(|(name, _)| name.clone()).collect()
    }
}

/// A line of names.map that cannot stand. A broken map denies every login: passing over the line might let
/// somebody in as somebody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct MapError {
    /// The line's number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: MapProblem,
}

/// What can be wrong with a line of names.map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapProblem {
    /// There is no `=`.
    #[error("expected `xcally-name = user@domain`")]
    NoEquals,
    /// The left side is no name.
    #[error("left of `=`: {0}")]
    Name(NameError),
    /// The right side is no principal.
    #[error("right of `=`, expected user@domain: {0}")]
    Principal(NameError),
    /// An earlier line maps the same name to somebody else.
    #[error("line {0} maps the same name to somebody else")]
    Contradiction(usize),
}

#[cfg(test)]
mod tests {
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
    fn one_person_however_typed() {
        for name in [
            "john.doe",
            "John.Doe",
            "john.doe@acme.com",
            "JOHN.DOE@ACME.COM",
            "ACME\\john.doe",
            "acme\\John.Doe",
            "acme.com\\john.doe",
        ] {
            assert_eq!(rules("").principal(name).unwrap().to_string(), "john.doe@acme.com", "{name}");
        }
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
            "# people\n\nJDoe = john.doe@acme.com\numa = uma.upn@other.example\nroot = john.doe@acme.com\nboss=root@acme.com",
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
}
