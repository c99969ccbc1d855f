//! Security identifiers (MS-DTYP 2.4.2). Groups are compared by SID, never by name.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::fmt;
use std::str::FromStr;

/// A SID in its binary form, as in `objectSid` and `tokenGroups`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(Vec<u8>);

/// Relative identifier of the group Protected Users (MS-DTYP 2.4.2.4).
pub const PROTECTED_USERS: u32 = 525;

/// The bytes or the text are not a SID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SID")]
pub struct NoSid;

impl Sid {
    /// Returns the SID with this relative identifier in the same domain (MS-DTYP 2.4.2).
    #[must_use]
    pub fn sibling(&self, rid: u32) -> Self {
        let mut bytes = self.0.clone();
        bytes.truncate(bytes.len().saturating_sub(4));
        bytes.extend(rid.to_le_bytes());
        Sid(bytes)
    }

    /// Returns true for S-1-5-32-…: each domain has separate groups with these SIDs (MS-DTYP 2.4.2.4,
    /// BUILTIN).
    pub fn is_builtin(&self) -> bool {
        self.0.starts_with(&[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0])
    }

    /// Returns true for the group Protected Users of a domain (MS-ADTS 6.1.1.6): S-1-5-21-…-525.
    pub fn is_protected_users(&self) -> bool {
        self.0.starts_with(&[1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0])
            && self.0.ends_with(&PROTECTED_USERS.to_le_bytes())
    }

    /// Returns the SID as a value in a search filter (RFC 4515, 3).
    pub fn in_filter(&self) -> String {
        self.0.iter().map(|byte| format!("\\{byte:02x}")).collect()
    }
}

impl TryFrom<&[u8]> for Sid {
    type Error = NoSid;

    fn try_from(bytes: &[u8]) -> Result<Self, NoSid> {
        match bytes {
            [1, count, ..]
                if *count <= 15 && bytes.len() == usize::from(*count).saturating_mul(4).saturating_add(8) =>
            {
                Ok(Sid(bytes.to_vec()))
            }
            _ => Err(NoSid),
        }
    }
}

impl FromStr for Sid {
    type Err = NoSid;

    fn from_str(text: &str) -> Result<Self, NoSid> {
        let mut parts = text.split('-');
        if !parts.next().is_some_and(|s| s.eq_ignore_ascii_case("S")) || parts.next() != Some("1") {
            return Err(NoSid);
        }
        let authority: u64 = number(parts.next().ok_or(NoSid)?)?;
        let below = parts.map(number).collect::<Result<Vec<u32>, NoSid>>()?;
        let count = u8::try_from(below.len()).map_err(|_| NoSid)?;
        let [0, 0, authority @ ..] = authority.to_be_bytes() else { return Err(NoSid) };
        let mut bytes = vec![1, count];
        bytes.extend(authority);
        below.iter().for_each(|part| bytes.extend(part.to_le_bytes()));
        Sid::try_from(bytes.as_slice())
    }
}

/// Reads digits only: `str::parse` would also accept a sign.
fn number<T: FromStr>(digits: &str) -> Result<T, NoSid> {
    match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse().map_err(|_| NoSid),
        false => Err(NoSid),
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, below) = self.0.split_at_checked(8).unwrap_or_default();
        let authority = head.iter().skip(2).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        write!(f, "S-1-{authority}")?;
        below.chunks_exact(4).try_for_each(|part| {
            let number = part.iter().rev().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
            write!(f, "-{number}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_one_sid() {
        let bytes = [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
        let sid: Sid = "S-1-5-32-544".parse().unwrap();
        assert_eq!(sid, Sid::try_from(bytes.as_slice()).unwrap());
        assert_eq!(sid.to_string(), "S-1-5-32-544");
        let domain = "S-1-5-21-3623811015-3361044348-30300820-1013";
        assert_eq!(domain.parse::<Sid>().unwrap().to_string(), domain);
        let users = domain.parse::<Sid>().unwrap().sibling(513).to_string();
        assert_eq!(users, "S-1-5-21-3623811015-3361044348-30300820-513");
    }

    #[test]
    fn only_builtin_groups_are_in_every_domain() {
        for (text, is_builtin) in [
            ("S-1-5-32-544", true),
            ("S-1-5-32-544-1", false),
            ("S-1-5-21-32-544", false),
            ("S-1-5-11", false),
            ("S-1-3-32-544", false),
        ] {
            assert_eq!(text.parse::<Sid>().unwrap().is_builtin(), is_builtin, "{text}");
        }
    }

    #[test]
    fn what_is_no_sid() {
        for text in ["", "S", "S-1", "S-2-5-32", "S-1-5-x", "S-1-5--1", "S-1-5-4294967296", "S-1-+5-1"] {
            assert_eq!(text.parse::<Sid>(), Err(NoSid), "{text}");
        }
        let long = format!("S-1-5{}", "-1".repeat(16));
        assert_eq!(long.parse::<Sid>(), Err(NoSid));
        for bytes in [&[][..], &[1, 1, 0, 0], &[1, 1, 0, 0, 0, 0, 0, 5], &[2, 0, 0, 0, 0, 0, 0, 5]] {
            assert_eq!(Sid::try_from(bytes), Err(NoSid));
        }
    }
}
