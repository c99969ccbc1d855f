//! The filter of an external search: checked against bounds, parsed, and written again.
//!
//! The filter sent to AD is built only from values in [`Filter`], never from the received text.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::fmt::{self, Write as _};

use ldap3::asn1::{ASNTag, PL, StructureTag};

use super::attributes::readable;
use crate::protocol::search::{MAX_DEPTH, MAX_FILTER};

/// Rules of extensible matches that AD knows and that read only the attribute (MS-ADTS 3.1.1.3.4.4): all bits
/// set, one of the bits set, and membership in a chain of groups.
const RULES: [&str; 3] = ["1.2.840.113556.1.4.803", "1.2.840.113556.1.4.804", "1.2.840.113556.1.4.1941"];

/// Conditions on entries (RFC 4511, 4.5.1.7), with readable attributes only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// All of these; an empty list is always true.
    And(Vec<Filter>),
    /// One of these.
    Or(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// The attribute, and its test.
    Is(&'static str, Test),
    /// Undefined: an attribute or a rule that may not be read. Neither it nor its negation is true.
    Undefined,
}

/// Condition on an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// There is a value.
    Present,
    /// A value is this one.
    Equal(Vec<u8>),
    /// A value is at least this.
    AtLeast(Vec<u8>),
    /// A value is at most this.
    AtMost(Vec<u8>),
    /// A value sounds like this.
    Approximate(Vec<u8>),
    /// A value begins with the first, contains the middle ones in order, and ends with the last.
    Like(Option<Vec<u8>>, Vec<Vec<u8>>, Option<Vec<u8>>),
    /// A value matches by one of [`RULES`].
    Rule(&'static str, Vec<u8>),
}

/// Reason why a text is not accepted as a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    /// Longer than [`MAX_FILTER`].
    #[error("the filter is longer than {MAX_FILTER} bytes")]
    TooLong,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("the filter is nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// Not RFC 4515.
    #[error("the filter is malformed")]
    Malformed,
}

impl Filter {
    /// Parses a filter of RFC 4515.
    ///
    /// # Errors
    /// Returns [`FilterError`] if `text` exceeds a bound or is malformed.
    pub(crate) fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_FILTER {
            return Err(FilterError::TooLong);
        }
        // Checked before the recursive parser runs. Within values, a parenthesis is escaped.
        let mut depth = 0_usize;
        for byte in text.bytes() {
            depth = match byte {
                b'(' => depth.saturating_add(1),
                b')' => depth.saturating_sub(1),
                _ => depth,
            };
            if depth > MAX_DEPTH {
                return Err(FilterError::TooDeep);
            }
        }
        let parsed = ldap3::parse_filter(text).map_err(|()| FilterError::Malformed)?;
        Ok(Read::of(parsed.into_structure()).ok_or(FilterError::Malformed)?.filter)
    }

    /// Returns true if no entry can match, so that no search is needed.
    pub(super) fn is_never(&self) -> bool {
        *self == Filter::Undefined || *self == Filter::Or(Vec::new())
    }

    /// Calls `look` for each test.
    pub(crate) fn visit(&self, look: &mut impl FnMut(&'static str, &Test)) {
        match self {
            Filter::And(parts) | Filter::Or(parts) => parts.iter().for_each(|part| part.visit(look)),
            Filter::Not(part) => part.visit(look),
            Filter::Is(attribute, test) => look(attribute, test),
            Filter::Undefined => {}
        }
    }

    /// Replaces each test by the result of `with`.
    pub(super) fn map(self, with: &mut impl FnMut(&'static str, Test) -> Filter) -> Self {
        let all = |parts: Vec<Filter>, with: &mut _| parts.into_iter().map(|part| part.map(with)).collect();
        match self {
            Filter::And(parts) => Filter::And(all(parts, with)),
            Filter::Or(parts) => Filter::Or(all(parts, with)),
            Filter::Not(part) => Filter::Not(Box::new(part.map(with))),
            Filter::Is(attribute, test) => with(attribute, test),
            Filter::Undefined => Filter::Undefined,
        }
    }
}

/// A parsed filter.
struct Read {
    filter: Filter,
    /// True if no part was undefined. Otherwise the negation is undefined as well: it could reveal values
    /// that may not be read.
    is_whole: bool,
}

impl Read {
    const UNDEFINED: Read = Read { filter: Filter::Undefined, is_whole: false };

    /// Reads tags that ldap3 has parsed (RFC 4511, 4.5.1.7); `None` if they are not a filter.
    fn of(tag: StructureTag) -> Option<Self> {
        let whole = |filter| Some(Read { filter, is_whole: true });
        match (tag.id, tag.payload) {
            (0, PL::C(parts)) => Read::all(parts),
            (1, PL::C(parts)) => Read::any(parts),
            (2, PL::C(parts)) => {
                let [part] = <[_; 1]>::try_from(parts).ok()?;
                match Read::of(part)? {
                    Read { filter, is_whole: true } => whole(Filter::Not(Box::new(filter))),
                    _ => Some(Read::UNDEFINED),
                }
            }
            (7, PL::P(name)) => Some(Read::test(&name, Test::Present)),
            (9, PL::C(parts)) => Read::rule(parts),
            (id, PL::C(parts)) => {
                let [name, value] = <[_; 2]>::try_from(parts).ok()?;
                let test = match (id, value.payload) {
                    (3, PL::P(value)) => Test::Equal(value),
                    (4, PL::C(pieces)) => Read::pieces(pieces)?,
                    (5, PL::P(value)) => Test::AtLeast(value),
                    (6, PL::P(value)) => Test::AtMost(value),
                    (8, PL::P(value)) => Test::Approximate(value),
                    _ => return None,
                };
                Some(Read::test(&bytes(name)?, test))
            }
            _ => None,
        }
    }

    fn all(parts: Vec<StructureTag>) -> Option<Self> {
        let parts: Vec<_> = parts.into_iter().map(Read::of).collect::<Option<_>>()?;
        let is_whole = parts.iter().all(|part| part.is_whole);
        let filters: Vec<_> = parts.into_iter().map(|part| part.filter).collect();
        match filters.contains(&Filter::Undefined) {
            true => Some(Read::UNDEFINED),
            false => Some(Read { filter: Filter::And(filters), is_whole }),
        }
    }

    fn any(parts: Vec<StructureTag>) -> Option<Self> {
        let parts: Vec<_> = parts.into_iter().map(Read::of).collect::<Option<_>>()?;
        let is_whole = parts.iter().all(|part| part.is_whole);
        let filters = parts.into_iter().map(|part| part.filter).filter(|part| *part != Filter::Undefined);
        Some(Read { filter: Filter::Or(filters.collect()), is_whole })
    }

    fn test(name: &[u8], test: Test) -> Self {
        match std::str::from_utf8(name).ok().and_then(readable) {
            Some(attribute) => Read { filter: Filter::Is(attribute, test), is_whole: true },
            None => Read::UNDEFINED,
        }
    }

    /// Reads an extensible match. Without an attribute, or with the parts of the DN, it would test all
    /// attributes.
    fn rule(parts: Vec<StructureTag>) -> Option<Self> {
        let (mut rule, mut name, mut value, mut is_plain) = (None, None, None, true);
        for part in parts {
            match part.id {
                1 => rule = Some(bytes(part)?),
                2 => name = Some(bytes(part)?),
                3 => value = Some(bytes(part)?),
                _ => is_plain = false,
            }
        }
        let known = rule.and_then(|rule| RULES.into_iter().find(|known| known.as_bytes() == rule));
        match (known, name, value) {
            (Some(rule), Some(name), Some(value)) if is_plain => {
                Some(Read::test(&name, Test::Rule(rule, value)))
            }
            (_, _, Some(_)) => Some(Read::UNDEFINED),
            _ => None,
        }
    }

    fn pieces(pieces: Vec<StructureTag>) -> Option<Test> {
        let (mut first, mut middle, mut last) = (None, Vec::new(), None);
        for piece in pieces {
            match piece.id {
                0 => first = Some(bytes(piece)?),
                1 => middle.push(bytes(piece)?),
                2 => last = Some(bytes(piece)?),
                _ => return None,
            }
        }
        Some(Test::Like(first, middle, last))
    }
}

fn bytes(tag: StructureTag) -> Option<Vec<u8>> {
    match tag.payload {
        PL::P(bytes) => Some(bytes),
        PL::C(_) => None,
    }
}

/// Writes RFC 4515, with everything escaped but ASCII letters and digits.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // AD knows no filter without parts.
            Filter::And(parts) if parts.is_empty() => f.write_str("(objectClass=*)"),
            Filter::And(parts) => list(f, '&', parts),
            Filter::Or(parts) if parts.is_empty() => f.write_str("(!(objectClass=*))"),
            Filter::Or(parts) => list(f, '|', parts),
            Filter::Not(part) => write!(f, "(!{part})"),
            Filter::Is(attribute, test) => write!(f, "({attribute}{test})"),
            Filter::Undefined => f.write_str("(!(objectClass=*))"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, operator: char, parts: &[Filter]) -> fmt::Result {
    write!(f, "({operator}")?;
    parts.iter().try_for_each(|part| write!(f, "{part}"))?;
    f.write_char(')')
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Test::Present => f.write_str("=*"),
            Test::Equal(value) => write!(f, "={}", Escaped(value)),
            Test::AtLeast(value) => write!(f, ">={}", Escaped(value)),
            Test::AtMost(value) => write!(f, "<={}", Escaped(value)),
            Test::Approximate(value) => write!(f, "~={}", Escaped(value)),
            Test::Rule(rule, value) => write!(f, ":{rule}:={}", Escaped(value)),
            Test::Like(first, middle, last) => {
                write!(f, "={}*", Escaped(first.as_deref().unwrap_or_default()))?;
                middle.iter().try_for_each(|piece| write!(f, "{}*", Escaped(piece)))?;
                write!(f, "{}", Escaped(last.as_deref().unwrap_or_default()))
            }
        }
    }
}

/// A value, escaped for a filter.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte.is_ascii_alphanumeric() {
            true => f.write_char(char::from(*byte)),
            false => write!(f, "\\{byte:02x}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        Filter::parse(text).map_or_else(|error| error.to_string(), |filter| filter.to_string())
    }

    #[test]
    fn what_libraries_send_is_written_again() {
        let cases = [
            ("(sAMAccountName=john.doe)", "(sAMAccountName=john\\2edoe)"),
            (
                "(&(objectCategory=User)(|(samaccountname=x)(userprincipalname=x)))",
                "(&(objectCategory=User)(|(sAMAccountName=x)(userPrincipalName=x)))",
            ),
            (
                "(&(objectClass=group)(member=CN=M\\fcller\\2c J,DC=a))",
                "(&(objectClass=group)(member=CN\\3dM\\fcller\\2c\\20J\\2cDC\\3da))",
            ),
            ("(cn=*)", "(cn=*)"),
            ("(cn=a*b*c)", "(cn=a*b*c)"),
            ("(cn=*b*)", "(cn=*b*)"),
            ("(&(cn>=a)(cn<=b)(cn~=c))", "(&(cn>=a)(cn<=b)(cn~=c))"),
            (
                "(userAccountControl:1.2.840.113556.1.4.803:=2)",
                "(userAccountControl:1.2.840.113556.1.4.803:=2)",
            ),
            ("(!(cn=a))", "(!(cn=a))"),
            ("(&)", "(objectClass=*)"),
            ("(|)", "(!(objectClass=*))"),
            ("cn=a", "(cn=a)"),
            ("(cn=Jörg)", "(cn=J\\c3\\b6rg)"),
            ("(cn=\\2a\\28\\29\\5c\\00)", "(cn=\\2a\\28\\29\\5c\\00)"),
        ];
        for (text, again) in cases {
            assert_eq!(written(text), again, "{text}");
            // The written text is a filter, and the same one.
            assert_eq!(written(again), again, "{text}");
        }
    }

    #[test]
    fn what_may_not_be_read_matches_nothing_also_negated() {
        let never = [
            "(unicodePwd=*)",
            "(!(unicodePwd=*))",
            "(!(!(unicodePwd=*)))",
            "(&(cn=a)(ms-Mcs-AdmPwd=a*))",
            "(!(&(cn=a)(ms-Mcs-AdmPwd=a*)))",
            "(|(unicodePwd=a)(1.2.840.113556.1.4.90=a))",
            "(!(|(cn=a)(unicodePwd=a)))",
            "(&(cn=a)(!(|(cn=b)(!(|(cn=c)(unicodePwd>=a))))))",
            "(mail;binary=a)",
            "(unicodePwd:1.2.840.113556.1.4.803:=1)",
            "(cn:1.2.3:=1)",
            "(cn:=a)",
            "(cn:dn:1.2.840.113556.1.4.803:=1)",
            "(:1.2.840.113556.1.4.803:=1)",
            "(anr=john)",
        ];
        for text in never {
            assert!(Filter::parse(text).unwrap().is_never(), "{text}");
        }
        // The rest of an alternative stays.
        assert_eq!(written("(|(cn=a)(unicodePwd=a))"), "(|(cn=a))");
        assert_eq!(written("(&(cn=a)(|(cn=b)(unicodePwd=a)))"), "(&(cn=a)(|(cn=b)))");
    }

    #[test]
    fn bounds_hold_before_anything_is_parsed() {
        let nested = |depth: usize| format!("{}(cn=a){}", "(!".repeat(depth), ")".repeat(depth));
        assert!(Filter::parse(&nested(MAX_DEPTH - 1)).is_ok());
        for depth in [MAX_DEPTH, 1000, 5000] {
            assert_eq!(Filter::parse(&nested(depth)), Err(FilterError::TooDeep), "{depth}");
        }
        assert_eq!(Filter::parse(&"(".repeat(MAX_FILTER)), Err(FilterError::TooDeep));
        assert_eq!(Filter::parse(&nested(10_000)), Err(FilterError::TooLong));
        let long = format!("(cn={})", "a".repeat(MAX_FILTER - 5));
        assert_eq!(long.len(), MAX_FILTER);
        assert!(Filter::parse(&long).is_ok());
        assert_eq!(Filter::parse(&(long + "a")), Err(FilterError::TooLong));
        let wide = format!("(|{})", "(cn=a)".repeat(2000));
        assert!(Filter::parse(&wide).is_ok());
    }

    #[test]
    fn rubbish_is_malformed() {
        for text in [
            "",
            "()",
            "(",
            ")",
            "(cn)",
            "(cn=a",
            "cn=a)",
            "(cn=a))",
            "(=a)",
            "(!)",
            "(!(cn=a)(cn=b))",
            "(cn=\\)",
            "(cn=\\zz)",
            "(cn=a)(cn=b)",
            "(cn=\0)",
            "(cn=a**b)",
        ] {
            assert_eq!(Filter::parse(text), Err(FilterError::Malformed), "{text:?}");
        }
        // Whatever the input, nothing panics, and a written filter is read back unchanged.
        let pieces = [
            "(",
            ")",
            "&",
            "|",
            "!",
            "cn",
            "=",
            "*",
            ":",
            "\\",
            "2a",
            ">",
            "ö",
            " ",
            "uid",
            "1.2.840.113556.1.4.803",
            "dn",
            ";",
        ];
        let mut random = fastrand::Rng::with_seed(15);
        for _ in 0..20_000 {
            let text: String = (0..random.usize(1..24)).filter_map(|_| random.choice(pieces)).collect();
            if let Ok(filter) = Filter::parse(&text) {
                let again = filter.to_string();
                assert_eq!(written(&again), again, "{text:?}");
            }
        }
    }
}
