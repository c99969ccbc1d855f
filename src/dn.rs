//! Distinguished names (RFC 4514), parsed once and compared in parts. Pure: no I/O.
//!
//! A name has several spellings: `ou=Agenten\, Nacht`, `OU=Agenten\2C Nacht` and `OU="Agenten, Nacht"` are
//! the same name. So names are never compared as text and never split at commas.

use std::fmt;

use crate::name::fold;

/// A distinguished name, its own part first, in the form in which parts are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dn(Vec<Rdn>);

/// A part of a name: its attributes and values, sorted, because their order says nothing.
type Rdn = Vec<(String, String)>;

/// Reason why a text is not a distinguished name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnError {
    /// A part has no `attribute=`.
    #[error("expected attribute=value in {0:?}")]
    NoAttribute(String),
    /// A backslash stands before something that it cannot escape.
    #[error("a backslash escapes nothing at the end of {0:?}")]
    Escape(String),
    /// A quotation mark has no partner, or something follows it.
    #[error("a quotation mark is out of place in {0:?}")]
    Quote(String),
    /// The bytes that `\XX` or `#…` stand for are no text.
    #[error("the escaped bytes in {0:?} are no UTF-8")]
    Bytes(String),
}

/// Position of an object in relation to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is that object.
    Same,
    /// It is below it.
    Below,
    /// It is elsewhere.
    Outside,
}

impl Dn {
    /// Reads `text`. An empty text is the name of the root.
    ///
    /// # Errors
    /// Returns [`DnError`] if it is no distinguished name.
    pub fn parse(text: &str) -> Result<Self, DnError> {
        if text.trim().is_empty() {
            return Ok(Dn::default());
        }
        split(text, ',')?.into_iter().map(rdn).collect::<Result<_, _>>().map(Dn)
    }

    /// Returns true for the empty name, which the root of every directory has.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the position of this object in relation to `other`.
    pub fn place(&self, other: &Dn) -> Place {
        match self.0.strip_suffix(other.0.as_slice()) {
            Some([]) => Place::Same,
            Some(_) => Place::Below,
            None => Place::Outside,
        }
    }

    /// The DNS name that the `dc` parts at its end spell (RFC 2247); empty without any.
    pub fn domain(&self) -> String {
        let labels = self.0.iter().rev().map_while(|rdn| match rdn.as_slice() {
            [(attribute, value)] if attribute == "dc" => Some(value.as_str()),
            _ => None,
        });
        let mut labels: Vec<_> = labels.collect();
        labels.reverse();
        labels.join(".")
    }
}

/// As it is compared: in lower case, with as few escapes as RFC 4514 allows.
impl fmt::Display for Dn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rdn) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            f.write_str(separator)?;
            for (index, (attribute, value)) in rdn.iter().enumerate() {
                let separator = if index == 0 { "" } else { "+" };
                write!(f, "{separator}{attribute}=")?;
                write_value(f, value)?;
            }
        }
        Ok(())
    }
}

fn write_value(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let at_edge = (c == ' ' && (index == 0 || index == last)) || (c == '#' && index == 0);
        match c {
            '\0' => f.write_str("\\00")?,
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => write!(f, "\\{c}")?,
            c if at_edge => write!(f, "\\{c}")?,
            c => write!(f, "{c}")?,
        }
    }
    Ok(())
}

/// Splits `text` at each `separator` that is neither escaped nor between quotation marks.
fn split(text: &str, separator: char) -> Result<Vec<&str>, DnError> {
    let (mut parts, mut begin, mut is_quoted) = (Vec::new(), 0, false);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' => is_quoted = !is_quoted,
            c if c == separator && !is_quoted => {
                parts.push(text.get(begin..at).unwrap_or_default());
                begin = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(begin..).unwrap_or_default());
    if is_quoted { Err(DnError::Quote(text.to_owned())) } else { Ok(parts) }
}

fn rdn(text: &str) -> Result<Rdn, DnError> {
    let mut rdn = split(text, '+')?.into_iter().map(pair).collect::<Result<Rdn, _>>()?;
    rdn.sort_unstable();
    Ok(rdn)
}

fn pair(text: &str) -> Result<(String, String), DnError> {
    let no_attribute = || DnError::NoAttribute(text.trim().to_owned());
    let (attribute, value) = text.split_once('=').ok_or_else(no_attribute)?;
    let attribute = attribute.trim_matches(' ');
    let is_type = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if attribute.is_empty() || !attribute.chars().all(is_type) {
        return Err(no_attribute());
    }
    Ok((attribute.to_ascii_lowercase(), fold(&value_of(value)?)))
}

/// The value that `text` spells: escaped, between quotation marks, or as the hexadecimal BER of a string.
fn value_of(text: &str) -> Result<String, DnError> {
    let text = text.trim_start_matches(' ');
    if let Some(digits) = text.strip_prefix('#') {
        return hexadecimal(digits.trim_end_matches(' ')).ok_or_else(|| DnError::Bytes(text.to_owned()));
    }
    let (text, is_quoted) = match text.strip_prefix('"') {
        Some(rest) => {
            let inner = rest.trim_end_matches(' ').strip_suffix('"');
            (inner.ok_or_else(|| DnError::Quote(text.to_owned()))?, true)
        }
        None => (text, false),
    };
    let mut bytes = Vec::with_capacity(text.len());
    // Spaces at the end belong to the value where they are escaped or between quotation marks.
    let mut kept = 0;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let is_kept = match c {
            '\\' => {
                escaped(&mut rest, &mut bytes).ok_or_else(|| DnError::Escape(text.to_owned()))?;
                true
            }
            '"' => return Err(DnError::Quote(text.to_owned())),
            c => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                is_quoted || c != ' '
            }
        };
        if is_kept {
            kept = bytes.len();
        }
    }
    bytes.truncate(kept);
    String::from_utf8(bytes).map_err(|_| DnError::Bytes(text.to_owned()))
}

/// Reads what follows a backslash: two hexadecimal digits, or any other character.
fn escaped(rest: &mut std::str::Chars<'_>, bytes: &mut Vec<u8>) -> Option<()> {
    match rest.as_str().get(..2).and_then(|digits| byte(digits.as_bytes())) {
        Some(byte) => {
            bytes.push(byte);
            *rest = rest.as_str().get(2..)?.chars();
        }
        None => {
            let c = rest.next().filter(|c| !c.is_ascii_alphanumeric())?;
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Some(())
}

/// The string in a BER element that is written in hexadecimal digits; its length takes one byte.
fn hexadecimal(digits: &str) -> Option<String> {
    let bytes = digits.as_bytes().chunks(2).map(byte).collect::<Option<Vec<_>>>()?;
    match bytes.as_slice() {
        [_, length, content @ ..] if usize::from(*length) == content.len() && *length < 0x80 => {
            String::from_utf8(content.to_vec()).ok()
        }
        _ => None,
    }
}

fn byte(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dn(text: &str) -> Dn {
        Dn::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_spellings_of_a_name_are_one() {
        let written = dn(r"ou=Agenten\, Nacht,dc=acme,dc=com");
        for same in [
            r"OU=Agenten\, Nacht,DC=Acme,DC=com",
            r"OU=Agenten\2C Nacht,DC=acme,DC=com",
            r"OU=Agenten\2c\20Nacht , DC = acme , DC=com",
            r#"OU="Agenten, Nacht", dc=acme, dc=com"#,
            "ou=#0c0e4167656e74656e2c204e61636874,dc=acme,dc=com",
        ] {
            assert_eq!(dn(same), written, "{same}");
        }
        for other in [
            "ou=Agenten,ou=Nacht,dc=acme,dc=com",
            r"ou=Agenten\,Nacht,dc=acme,dc=com",
            r"ou=Agenten\\, Nacht=x,dc=acme,dc=com",
            r"ou=Agenten\, Nacht\ ,dc=acme,dc=com",
        ] {
            assert_ne!(dn(other), written, "{other}");
        }
        assert_eq!(dn("cn=a+uid=b,dc=x"), dn("UID=b + CN=A,dc=x"));
        assert_eq!(dn(r"cn=J\C3\B6rg,dc=x"), dn("CN=jörg,DC=X"));
        assert_eq!(dn(r"cn=a=b,dc=x"), dn(r"cn=a\=b,dc=x"));
        assert_eq!(dn("  "), Dn::default());
    }

    #[test]
    fn what_is_no_name_says_why() {
        for (text, error) in [
            ("acme.com", "expected attribute=value in \"acme.com\""),
            ("ou=a,,dc=x", "expected attribute=value in \"\""),
            ("ou=a,", "expected attribute=value"),
            ("Night Shift = Agents", "expected attribute=value"),
            ("=a", "expected attribute=value"),
            (r"ou=a\", "a backslash escapes nothing"),
            (r"ou=a\zb", "a backslash escapes nothing"),
            ("ou=\"a,dc=x", "quotation mark"),
            ("ou=a\"b\",dc=x", "quotation mark"),
            (r"ou=\ff", "no UTF-8"),
            ("ou=#0c05ab", "no UTF-8"),
        ] {
            let found = Dn::parse(text).unwrap_err().to_string();
            assert!(found.contains(error), "{text}: {found}");
        }
    }

    #[test]
    fn a_place_is_told_by_whole_parts() {
        let root = dn("DC=acme,DC=com");
        for (text, place) in [
            ("dc=Acme, dc=COM", Place::Same),
            (r"ou=Agenten\, Nacht,dc=acme,dc=com", Place::Below),
            ("dc=notacme,dc=com", Place::Outside),
            (r"cn=x\,dc=acme,dc=com", Place::Outside),
            (r"cn=x\\,dc=acme,dc=com", Place::Below),
            ("dc=com", Place::Outside),
            ("", Place::Outside),
        ] {
            assert_eq!(dn(text).place(&root), place, "{text}");
        }
    }

    #[test]
    fn the_domain_is_at_the_end() {
        for (text, domain) in [
            ("CN=John,OU=x,DC=EMEA,DC=acme,DC=com", "emea.acme.com"),
            (r"OU=a\,DC=evil,DC=acme,DC=com", "acme.com"),
            ("CN=x,O=y", ""),
        ] {
            assert_eq!(dn(text).domain(), domain, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_as_the_same() {
        for text in
            [r"OU=Agenten\, Nacht,DC=acme", r"CN=\ a\#\ ,DC=x", r"CN=\#1+OU=b\+c,DC=x", r"CN=a\00b,DC=x", ""]
        {
            assert_eq!(dn(&dn(text).to_string()), dn(text), "{text}: {}", dn(text));
        }
        assert_eq!(dn(r"OU=Agenten\2C Nacht, DC=Acme").to_string(), r"ou=agenten\, nacht,dc=acme");
    }
}
