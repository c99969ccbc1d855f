//! One entry of a search result, decoded without assumptions about its shape.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;

use ldap3::asn1::{PL, StructureTag, TagClass};

/// The tag of a SearchResultEntry (RFC 4511, 4.5.2: `[APPLICATION 4]`).
const SEARCH_RESULT_ENTRY: u64 = 4;

/// One object of a search result (RFC 4511, 4.5.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    dn: String,
    /// By lower-case name, because attribute descriptions ignore case (RFC 4512, 2.5).
    attributes: BTreeMap<String, Vec<Vec<u8>>>,
}

/// An entry or a value that violates the directory's schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The entry is no SearchResultEntry.
    #[error("the directory sent a malformed entry ({0})")]
    Malformed(&'static str),
    /// The attribute has several values where one was expected.
    #[error("{attribute} of {dn} has {count} values instead of one")]
    Several {
        /// The attribute.
        attribute: String,
        /// The entry.
        dn: String,
        /// The number of values.
        count: usize,
    },
    /// The value is of an unexpected kind; the text never quotes it.
    #[error("{attribute} of {dn} is not {expected}")]
    Value {
        /// The attribute.
        attribute: String,
        /// The entry.
        dn: String,
        /// The expected kind.
        expected: &'static str,
    },
}

impl Entry {
    /// Creates an entry without attributes.
    pub fn new(dn: impl Into<String>) -> Self {
        Entry { dn: dn.into(), attributes: BTreeMap::new() }
    }

    /// Adds `values` to `attribute`.
    #[must_use]
    pub fn with<V: Into<Vec<u8>>>(mut self, attribute: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.attributes
            .entry(attribute.to_ascii_lowercase())
            .or_default()
            .extend(values.into_iter().map(Into::into));
        self
    }

    /// Decodes tags that ldap3 has parsed. ldap3's `SearchEntry::construct` panics on malformed data.
    ///
    /// # Errors
    /// Returns [`EntryError::Malformed`] if the tags are no SearchResultEntry.
    pub fn decode(tag: StructureTag) -> Result<Self, EntryError> {
        if (tag.class, tag.id) != (TagClass::Application, SEARCH_RESULT_ENTRY) {
            return Err(EntryError::Malformed("not a search result"));
        }
        let [dn, attributes] = fields(tag)?;
        let mut entry = Entry::new(utf8(dn)?);
        for attribute in constructed(attributes)? {
            let [name, values] = fields(attribute)?;
            let values = constructed(values)?.into_iter().map(primitive).collect::<Result<Vec<_>, _>>()?;
            entry = entry.with(&utf8(name)?, values);
        }
        Ok(entry)
    }

    /// The distinguished name.
    pub fn dn(&self) -> &str {
        &self.dn
    }

    /// Length of all names and values in bytes.
    pub fn length(&self) -> usize {
        let values = |values: &Vec<Vec<u8>>| values.iter().map(Vec::len).fold(0, usize::saturating_add);
        let attributes = self.attributes.iter();
        let lengths = attributes.map(|(name, all)| name.len().saturating_add(values(all)));
        lengths.fold(self.dn.len(), usize::saturating_add)
    }

    /// All attributes, by lower-case name.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &[Vec<u8>])> {
        self.attributes.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// All values of `attribute`; empty if it is absent or unreadable, which AD does not distinguish.
    pub fn values(&self, attribute: &str) -> &[Vec<u8>] {
        self.attributes.get(&attribute.to_ascii_lowercase()).map_or(&[], Vec::as_slice)
    }

    /// The only value of `attribute`.
    ///
    /// # Errors
    /// Returns [`EntryError::Several`] if there are several.
    pub fn bytes(&self, attribute: &str) -> Result<Option<&[u8]>, EntryError> {
        match self.values(attribute) {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            values => Err(EntryError::Several {
                attribute: attribute.to_owned(),
                dn: self.dn.clone(),
                count: values.len(),
            }),
        }
    }

    /// The only value of `attribute` as text.
    ///
    /// # Errors
    /// Returns an error if there are several values, or the value is not UTF-8.
    pub fn text(&self, attribute: &str) -> Result<Option<&str>, EntryError> {
        self.bytes(attribute)?.map(|value| self.as_text(attribute, value)).transpose()
    }

    /// All values of `attribute` as text.
    ///
    /// # Errors
    /// Returns an error if one is not UTF-8.
    pub fn texts(&self, attribute: &str) -> Result<Vec<&str>, EntryError> {
        self.values(attribute).iter().map(|value| self.as_text(attribute, value)).collect()
    }

    /// The only value of `attribute` as a number: Integer, LargeInteger and Enumeration of MS-ADTS
    /// 3.1.1.2.2.2.
    ///
    /// # Errors
    /// Returns an error if there are several values, or the value is not a number of 64 bits.
    pub fn integer(&self, attribute: &str) -> Result<Option<i64>, EntryError> {
        let number = |text: &str| text.parse().map_err(|_| self.wrong(attribute, "a number"));
        self.text(attribute)?.map(number).transpose()
    }

    /// The only value of `attribute` as 32 flags. AD writes them as a signed number: bit 31 makes it
    /// negative.
    ///
    /// # Errors
    /// Returns an error if there are several values, or the value is not a number of 32 bits.
    pub fn flags(&self, attribute: &str) -> Result<Option<u32>, EntryError> {
        let flags = |number: i64| {
            u32::try_from(number)
                .or_else(|_| i32::try_from(number).map(i32::cast_unsigned))
                .map_err(|_| self.wrong(attribute, "a number of 32 bits"))
        };
        self.integer(attribute)?.map(flags).transpose()
    }

    fn as_text<'a>(&self, attribute: &str, value: &'a [u8]) -> Result<&'a str, EntryError> {
        std::str::from_utf8(value).map_err(|_| self.wrong(attribute, "text"))
    }

    fn wrong(&self, attribute: &str, expected: &'static str) -> EntryError {
        EntryError::Value { attribute: attribute.to_owned(), dn: self.dn.clone(), expected }
    }
}

fn fields<const N: usize>(tag: StructureTag) -> Result<[StructureTag; N], EntryError> {
    constructed(tag)?.try_into().map_err(|_| EntryError::Malformed("wrong number of fields"))
}

fn constructed(tag: StructureTag) -> Result<Vec<StructureTag>, EntryError> {
    match tag.payload {
        PL::C(tags) => Ok(tags),
        PL::P(_) => Err(EntryError::Malformed("a value where a list belongs")),
    }
}

fn primitive(tag: StructureTag) -> Result<Vec<u8>, EntryError> {
    match tag.payload {
        PL::P(bytes) => Ok(bytes),
        PL::C(_) => Err(EntryError::Malformed("a list where a value belongs")),
    }
}

fn utf8(tag: StructureTag) -> Result<String, EntryError> {
    String::from_utf8(primitive(tag)?).map_err(|_| EntryError::Malformed("a name that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> StructureTag {
        StructureTag { class: TagClass::Universal, id: 4, payload: PL::P(bytes.to_vec()) }
    }

    fn list(id: u64, tags: Vec<StructureTag>) -> StructureTag {
        StructureTag { class: TagClass::Universal, id, payload: PL::C(tags) }
    }

    fn attribute(name: &[u8], values: &[&[u8]]) -> StructureTag {
        list(16, vec![value(name), list(17, values.iter().map(|v| value(v)).collect())])
    }

    fn entry(dn: &[u8], attributes: Vec<StructureTag>) -> StructureTag {
        StructureTag {
            class: TagClass::Application,
            id: 4,
            payload: PL::C(vec![value(dn), list(16, attributes)]),
        }
    }

    #[test]
    fn an_entry_is_decoded_and_names_have_no_case() {
        let tag = entry(
            b"CN=John,DC=acme,DC=com",
            vec![attribute(b"sAMAccountName", &[b"john"]), attribute(b"objectSid", &[&[1, 5, 0xff]])],
        );
        let entry = Entry::decode(tag).unwrap();
        assert_eq!(entry.dn(), "CN=John,DC=acme,DC=com");
        assert_eq!(entry.text("samaccountname"), Ok(Some("john")));
        assert_eq!(entry.text("SAMACCOUNTNAME"), Ok(Some("john")));
        assert_eq!(entry.bytes("objectSid"), Ok(Some(&[1, 5, 0xff][..])));
        assert_eq!(entry.text("mail"), Ok(None));
        assert_eq!(entry.attributes().count(), 2);
    }

    #[test]
    fn malformed_entries_are_errors_not_panics() {
        let primitive = |class, id| StructureTag { class, id, payload: PL::P(vec![1]) };
        let cases = [
            primitive(TagClass::Application, 4),
            primitive(TagClass::Universal, 4),
            list(16, vec![]),
            StructureTag { class: TagClass::Application, id: 5, payload: PL::C(vec![]) },
            StructureTag { class: TagClass::Application, id: 4, payload: PL::C(vec![]) },
            StructureTag { class: TagClass::Application, id: 4, payload: PL::C(vec![value(b"x")]) },
            StructureTag {
                class: TagClass::Application,
                id: 4,
                payload: PL::C(vec![value(b"x"), value(b"y")]),
            },
            entry(b"\xff", vec![]),
            entry(b"x", vec![value(b"cn")]),
            entry(b"x", vec![list(16, vec![])]),
            entry(b"x", vec![list(16, vec![value(b"cn"), value(b"x")])]),
            entry(b"x", vec![list(16, vec![value(b"\xff"), list(17, vec![])])]),
            entry(b"x", vec![list(16, vec![value(b"cn"), list(17, vec![list(16, vec![])])])]),
            entry(b"x", vec![list(16, vec![value(b"cn"), list(17, vec![]), value(b"more")])]),
        ];
        for tag in cases {
            let shown = format!("{tag:?}");
            assert!(matches!(Entry::decode(tag), Err(EntryError::Malformed(_))), "{shown}");
        }
    }

    #[test]
    fn wrong_values_name_their_attribute() {
        let entry = Entry::new("CN=x").with("cn", ["a", "b"]).with("n", ["12x"]).with("b", [vec![0xff]]);
        assert_eq!(entry.text("cn").unwrap_err().to_string(), "cn of CN=x has 2 values instead of one");
        assert_eq!(entry.texts("cn"), Ok(vec!["a", "b"]));
        assert_eq!(entry.integer("n").unwrap_err().to_string(), "n of CN=x is not a number");
        assert_eq!(entry.texts("b").unwrap_err().to_string(), "b of CN=x is not text");
    }

    #[test]
    fn numbers_of_ad() {
        let cases: [(&str, Option<i64>, Option<u32>); 8] = [
            ("0", Some(0), Some(0)),
            ("66048", Some(66048), Some(66048)),
            ("-2147483646", Some(-2147483646), Some(0x8000_0002)),
            ("4294967295", Some(4294967295), Some(u32::MAX)),
            ("9223372036854775807", Some(i64::MAX), None),
            ("-9223372036854775808", Some(i64::MIN), None),
            ("9223372036854775808", None, None),
            ("", None, None),
        ];
        for (text, integer, flags) in cases {
            let entry = Entry::new("CN=x").with("n", [text]);
            assert_eq!(entry.integer("n").ok().flatten(), integer, "{text}");
            assert_eq!(entry.flags("n").ok().flatten(), flags, "{text}");
        }
        assert_eq!(Entry::new("CN=x").flags("n"), Ok(None));
    }
}
