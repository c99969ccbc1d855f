//! A search of the LDAP bridge in the directory, which the broker performs over its machine connection.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// The longest reply to a search in bytes, its header included. No other reply, and no request, is longer
/// than [`super::MAX_FRAME`].
pub const MAX_FOUND: usize = 4_194_304;

/// The most entries of one reply.
pub const MAX_ENTRIES: usize = 1000;

/// The longest filter in bytes.
pub const MAX_FILTER: usize = 16_384;

/// Maximum nesting depth of a filter's parts.
pub const MAX_DEPTH: usize = 16;

/// The most attributes that a search may name.
pub const MAX_ATTRIBUTES: usize = 128;

/// LDAP result codes that a search ends with (RFC 4511, 4.1.9).
pub mod code {
    /// Every matching entry is in the reply.
    pub const SUCCESS: u8 = 0;
    /// AD did not answer in time.
    pub const TIME_LIMIT_EXCEEDED: u8 = 3;
    /// More entries match than the request wants; the first ones are in the reply.
    pub const SIZE_LIMIT_EXCEEDED: u8 = 4;
    /// There are more entries than [`super::MAX_ENTRIES`], or more than fit into [`super::MAX_FOUND`]; the
    /// first ones are in the reply.
    pub const ADMIN_LIMIT_EXCEEDED: u8 = 11;
    /// The base does not exist, or lies outside `domain.base_dn`.
    pub const NO_SUCH_OBJECT: u8 = 32;
    /// The base is no distinguished name.
    pub const INVALID_DN_SYNTAX: u8 = 34;
    /// Too many searches are on their way.
    pub const BUSY: u8 = 51;
    /// No domain controller answers, or the broker cannot work.
    pub const UNAVAILABLE: u8 = 52;
    /// The filter is malformed, or over the bounds of this module.
    pub const PROTOCOL_ERROR: u8 = 2;
    /// AD rejected the search for another reason.
    pub const OTHER: u8 = 80;
}

/// How far below the base a search goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The base itself.
    Base,
    /// The objects directly below the base.
    One,
    /// The base and everything below it.
    #[default]
    Sub,
}

/// One search (RFC 4511, 4.5.1). Aliases are never followed, and there are no referrals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// Distinguished name of the base.
    pub base: String,
    /// How far below it.
    pub scope: Scope,
    /// RFC 4515, at most [`MAX_FILTER`] bytes.
    pub filter: String,
    /// Names of the attributes to return. None, or `*`, stands for all that may be read; `1.1` for none.
    #[serde(default)]
    pub attributes: Vec<String>,
    /// The most entries to return; 0 for as many as [`MAX_ENTRIES`] allows.
    #[serde(default)]
    pub size_limit: u32,
}

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// LDAP result code, one of [`code`].
    pub code: u8,
    /// The cause, in words, for the diagnostic message; empty with a success.
    #[serde(default)]
    pub text: String,
    /// The entries, also where the code says that there are more.
    #[serde(default)]
    pub entries: Vec<FoundEntry>,
}

/// One entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundEntry {
    /// Distinguished name, as AD writes it.
    pub dn: String,
    /// Of an account of a user: the name that a login of exactly this account types. The name of `names.map`
    /// that the search asked for, else `DOMAIN\user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The requested attributes that the entry has, with their names as the schema writes them.
    pub attributes: Vec<(String, Vec<Value>)>,
}

impl Found {
    /// A result without entries.
    pub fn failed(code: u8, text: impl Into<String>) -> Self {
        Found { code, text: text.into(), entries: Vec::new() }
    }
}

/// The value of an attribute. It travels as text where it is UTF-8, else as a list of numbers.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Vec<u8>);

impl Value {
    /// The value itself.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Value(bytes)
    }
}

impl From<Value> for Vec<u8> {
    fn from(value: Value) -> Self {
        value.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => to.serialize_str(text),
            Err(_) => to.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of bytes")
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value(text.as_bytes().to_vec()))
            }

            fn visit_string<E>(self, text: String) -> Result<Value, E> {
                Ok(Value(text.into_bytes()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Value, A::Error> {
                let mut value = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    value.push(byte);
                }
                Ok(Value(value))
            }
        }

        from.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_as_it_was() {
        let values: [&[u8]; 6] =
            [b"", b"John \"Q\" Doe", "Jörg".as_bytes(), &[0xff], &[1, 5, 0, 0xc3], b"\0\x01"];
        for bytes in values {
            let value = Value::from(bytes.to_vec());
            let json = serde_json::to_vec(&value).unwrap();
            let back: Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(back.bytes(), bytes);
        }
        assert_eq!(serde_json::to_string(&Value::from(b"cn".to_vec())).unwrap(), "\"cn\"");
        assert_eq!(serde_json::to_string(&Value::from(vec![255, 0])).unwrap(), "[255,0]");
        for wrong in ["[256]", "[-1]", "{}", "null", "1", "[\"a\"]"] {
            assert!(serde_json::from_str::<Value>(wrong).is_err(), "{wrong}");
        }
    }
}
