//! External searches: those of the LDAP bridge's clients.
//!
//! Their view is bounded here: entries below `domain.base_dn`, attributes of one list, and a maximum number
//! of both. AD provides the entries. Two attributes are filled in if AD has none, and names of `names.map`
//! are resolved as a login resolves them:
//!
//! - `uid` is the `sAMAccountName` if AD has no `uid`.
//! - `mail` is the `userPrincipalName` if AD has no `mail`.
//! - A name that `names.map` maps stands for the account that a login by this name is for, if a filter tests
//!   `sAMAccountName`, `uid` or `userPrincipalName` for equality with it. The entry shows that name in `uid`,
//!   and also in `sAMAccountName` if the filter tested that.

mod attributes;
pub(crate) mod filter;

use ldap3::Scope;
use tokio::time::Instant;

use self::attributes::wanted;
use self::filter::{Filter, Test};
use crate::directory::entry::Entry;
use crate::directory::machine::{Machine, MachineError, Part, Place, Search};
use crate::directory::people::{Directory, DirectoryError};
use crate::dn::{Dn, Place as Lies};
use crate::name::{Rules, fold};
use crate::protocol::search::{
    self as asked, Found, FoundEntry, MAX_ATTRIBUTES, MAX_ENTRIES, MAX_FOUND, Value, code,
};

/// Maximum number of names of `names.map` in one filter. Each costs a search.
const MAPPED: usize = 16;
/// Maximum number of bytes of entries that are read from AD for one reply.
const RECEIVED: usize = MAX_FOUND;
/// Maximum length of the entries as JSON, in bytes; the rest of the reply needs far less than the remaining
/// bytes.
const LONGEST: usize = MAX_FOUND - 8 * 1024;
/// Minimum number of entries that are read if one may hide another, so that both are among them.
const FEW: usize = 16;
/// `sAMAccountType` of the account of a user (MS-SAMR 2.2.1.9).
const USER: &str = "805306368";
/// LDAP result codes of AD (RFC 4511, 4.1.9) that are caused by the search itself.
const TIME_LIMIT_EXCEEDED: u32 = 3;
const INVALID_DN_SYNTAX: u32 = 34;
/// Attributes that every search reads for internal use.
const NEEDED: [&str; 6] =
    ["objectGUID", "sAMAccountName", "sAMAccountType", "userPrincipalName", "uid", "mail"];

/// A name of `names.map` in a filter.
struct Mapped {
    name: String,
    /// The tested attribute, and the value that it is compared with.
    attribute: &'static str,
    value: Vec<u8>,
    /// `objectGUID` of the account that a login by this name is for; `None` if there is none.
    guid: Option<Vec<u8>>,
}

impl<M: Machine> Directory<M> {
    /// Runs a search for a client of the LDAP bridge. A failure is a result as well.
    pub async fn lookup(&self, rules: &Rules, search: &asked::Search, deadline: Instant) -> Found {
        self.try_lookup(rules, search, deadline).await.unwrap_or_else(|failed| failed)
    }

    async fn try_lookup(
        &self,
        rules: &Rules,
        search: &asked::Search,
        deadline: Instant,
    ) -> Result<Found, Found> {
        if search.attributes.len() > MAX_ATTRIBUTES {
            let text = format!("more than {MAX_ATTRIBUTES} attributes are requested");
            return Err(Found::failed(code::PROTOCOL_ERROR, text));
        }
        let filter = Filter::parse(&search.filter)
            .map_err(|error| Found::failed(code::PROTOCOL_ERROR, error.to_string()))?;
        let Some((base, scope)) = self.within_base(search)? else { return Ok(Found::default()) };
        let mapped = self.mapped(rules, &filter, deadline).await?;
        let hiding = hiding(&filter);
        let filter = filter.map(&mut |attribute, test| translate(&mapped, attribute, test));
        if filter.is_never() {
            return Ok(Found::default());
        }
        let wanted = wanted(&search.attributes);
        let further = NEEDED.iter().filter(|name| !wanted.contains(*name));
        let attributes = wanted.iter().chain(further).map(|name| (*name).to_owned()).collect();
        let limit = match usize::try_from(search.size_limit).unwrap_or(usize::MAX) {
            0 => MAX_ENTRIES,
            limit => limit.min(MAX_ENTRIES),
        };
        let query = Search {
            place: Place::Own,
            base,
            scope,
            filter: filter.to_string(),
            attributes,
            limit: if hiding.is_empty() { limit } else { limit.max(FEW) },
        };
        let Part { mut entries, mut is_cut } =
            self.machine.search_part(&query, RECEIVED, deadline).await.map_err(|error| failed(&error))?;
        // However AD interprets the base.
        let own = Dn::parse(&self.base).unwrap_or_default();
        entries.retain(|entry| Dn::parse(entry.dn()).is_ok_and(|dn| dn.place(&own) != Lies::Outside));
        hide(&hiding, &mut entries);
        is_cut |= entries.len() > limit;
        entries.truncate(limit);
        let entries = entries.iter().map(|entry| self.shown(entry, &wanted, &mapped));
        Ok(whole(entries, is_cut, search.size_limit))
    }

    /// Returns the base and scope for AD; `None` if no entry can be there.
    fn within_base(&self, search: &asked::Search) -> Result<Option<(String, Scope)>, Found> {
        let invalid = |text: String| Found::failed(code::INVALID_DN_SYNTAX, text);
        // AD has special forms that name an object anywhere: `<GUID=…>`, `<SID=…>` (MS-ADTS 3.1.1.3.1.2.4).
        let mut before = ' ';
        for letter in search.base.chars() {
            if letter == '<' && before != '\\' {
                return Err(invalid("the base is no distinguished name: \"<\" is not escaped".to_owned()));
            }
            before = letter;
        }
        let base = Dn::parse(&search.base).map_err(|error| invalid(format!("the base: {error}")))?;
        let own = Dn::parse(&self.base).unwrap_or_default();
        let scope = match search.scope {
            asked::Scope::Base => Scope::Base,
            asked::Scope::One => Scope::OneLevel,
            asked::Scope::Sub => Scope::Subtree,
        };
        match (base.place(&own), own.place(&base), search.scope) {
            (Lies::Same | Lies::Below, _, _) => Ok(Some((search.base.clone(), scope))),
            (Lies::Outside, Lies::Below, asked::Scope::Sub) => Ok(Some((self.base.clone(), scope))),
            (Lies::Outside, Lies::Below, asked::Scope::One) => Ok(None),
            _ => Err(Found::failed(code::NO_SUCH_OBJECT, format!("only {} is searched", self.base))),
        }
    }

    /// Resolves the names of `names.map` that `filter` tests for.
    async fn mapped(&self, rules: &Rules, filter: &Filter, deadline: Instant) -> Result<Vec<Mapped>, Found> {
        let mut mapped: Vec<Mapped> = Vec::new();
        let mut names = Vec::new();
        filter.visit(&mut |attribute, test| {
            if let ("sAMAccountName" | "uid" | "userPrincipalName", Test::Equal(value)) = (attribute, test)
                && let Some(name) = self.mapped_name(rules, value)
                && !names.iter().any(|(known, other, _)| *known == attribute && other == value)
            {
                names.push((attribute, value.clone(), name));
            }
        });
        if names.len() > MAPPED {
            let text = format!("the filter has more than {MAPPED} names of names.map");
            return Err(Found::failed(code::ADMIN_LIMIT_EXCEEDED, text));
        }
        for (attribute, value, name) in names {
            let earlier = mapped.iter().find(|earlier| earlier.name == name);
            let guid = match earlier {
                Some(earlier) => earlier.guid.clone(),
                None => self.bearer(rules, &name, deadline).await?,
            };
            mapped.push(Mapped { name, attribute, value, guid });
        }
        Ok(mapped)
    }

    /// Returns the name of a line of `names.map` that `value` contains, with or without the domain, which
    /// some applications append to the username.
    fn mapped_name(&self, rules: &Rules, value: &[u8]) -> Option<String> {
        let name = std::str::from_utf8(value).ok()?;
        if rules.is_mapped(name) {
            return Some(name.to_owned());
        }
        let (user, domain) = name.rsplit_once('@')?;
        (self.is_own(domain) && rules.is_mapped(user)).then(|| user.to_owned())
    }

    /// Returns the `objectGUID` of the account that a login by `name` is for.
    async fn bearer(&self, rules: &Rules, name: &str, deadline: Instant) -> Result<Option<Vec<u8>>, Found> {
        let found = match self.principal(rules, name, deadline).await {
            Ok(Ok(principal)) => self.find(&principal, deadline).await,
            Ok(Err(_)) => return Ok(None),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => Ok(Some(found.person.guid.to_bytes_le().to_vec())),
            Err(DirectoryError::Machine(error)) => Err(failed(&error)),
            // Such a login is rejected.
            Err(_) => Ok(None),
        }
    }

    /// Converts an entry to the clients' view.
    fn shown(&self, entry: &Entry, wanted: &[&'static str], mapped: &[Mapped]) -> FoundEntry {
        let guid = entry.values("objectGUID").first();
        let name = mapped.iter().find(|mapped| mapped.guid.is_some() && mapped.guid.as_ref() == guid);
        let is_user = is_user(entry);
        let values = |attribute: &str| -> Vec<Vec<u8>> {
            let own = entry.values(attribute);
            match (attribute, name) {
                ("uid", Some(mapped)) => vec![mapped.name.clone().into_bytes()],
                ("sAMAccountName", Some(mapped)) if mapped.attribute == attribute => {
                    vec![mapped.name.clone().into_bytes()]
                }
                _ if !own.is_empty() || !is_user => own.to_vec(),
                _ => stands_in(attribute).map_or_else(Vec::new, |other| entry.values(other).to_vec()),
            }
        };
        let attributes =
            wanted.iter().map(|name| (*name, values(name))).filter(|(_, values)| !values.is_empty());
        let account = entry.text("sAMAccountName").ok().flatten().filter(|_| is_user);
        let login = account.map(|sam| match self.netbios.as_str() {
            "" => format!("{sam}@{}", self.domain),
            netbios => format!("{netbios}\\{sam}"),
        });
        FoundEntry {
            dn: entry.dn().to_owned(),
            login: name.map(|mapped| mapped.name.clone()).filter(|_| is_user).or(login),
            attributes: attributes
                .map(|(name, values)| (name.to_owned(), values.into_iter().map(Value::from).collect()))
                .collect(),
        }
    }
}

/// Returns the attribute that replaces a missing `attribute` of a user's account.
fn stands_in(attribute: &str) -> Option<&'static str> {
    match attribute {
        "uid" => Some("sAMAccountName"),
        "mail" => Some("userPrincipalName"),
        _ => None,
    }
}

/// Translates a test for AD.
fn translate(mapped: &[Mapped], attribute: &'static str, test: Test) -> Filter {
    if let Test::Equal(value) = &test
        && let Some(mapped) =
            mapped.iter().find(|mapped| mapped.attribute == attribute && mapped.value == *value)
    {
        return match &mapped.guid {
            Some(guid) => Filter::Is("objectGUID", Test::Equal(guid.clone())),
            None => Filter::Or(Vec::new()),
        };
    }
    let Some(other) = stands_in(attribute) else { return Filter::Is(attribute, test) };
    let has_none = Filter::Not(Box::new(Filter::Is(attribute, Test::Present)));
    let is_user = Filter::Is("sAMAccountType", Test::Equal(USER.into()));
    let filled = Filter::And(vec![Filter::Is(other, test.clone()), is_user, has_none]);
    Filter::Or(vec![Filter::Is(attribute, test), filled])
}

/// Returns the tests that could match one account by a filled-in value and another by its own: attribute and
/// value, folded for comparison.
fn hiding(filter: &Filter) -> Vec<(&'static str, String)> {
    let mut tests = Vec::new();
    filter.visit(&mut |attribute, test| {
        if let (Some(_), Test::Equal(value)) = (stands_in(attribute), test) {
            tests.push((attribute, fold(&String::from_utf8_lossy(value))));
        }
    });
    tests
}

/// Drops accounts with a value in `uid` or `mail` that another account logs in by: a user who may write the
/// own `uid` must not pose as another user.
fn hide(tests: &[(&'static str, String)], entries: &mut Vec<Entry>) {
    let bears = |entry: &Entry, attribute: &str, value: &str| {
        entry.values(attribute).iter().any(|own| fold(&String::from_utf8_lossy(own)) == value)
    };
    for (attribute, value) in tests {
        let Some(name) = stands_in(attribute) else { continue };
        if entries.iter().any(|entry| is_user(entry) && bears(entry, name, value)) {
            entries.retain(|entry| bears(entry, name, value) || !bears(entry, attribute, value));
        }
    }
}

fn is_user(entry: &Entry) -> bool {
    entry.text("sAMAccountType").is_ok_and(|kind| kind == Some(USER))
}

/// Returns a reply with as many entries as fit.
fn whole(entries: impl Iterator<Item = FoundEntry>, mut is_cut: bool, size_limit: u32) -> Found {
    let mut found = Found::default();
    let (mut length, mut is_full) = (0_usize, false);
    for entry in entries {
        let json = serde_json::to_vec(&entry).map_or(LONGEST, |json| json.len());
        length = length.saturating_add(json).saturating_add(1);
        if length > LONGEST {
            (is_cut, is_full) = (true, true);
            break;
        }
        found.entries.push(entry);
    }
    let asked_for = usize::try_from(size_limit).is_ok_and(|limit| (1..=MAX_ENTRIES).contains(&limit));
    if is_cut {
        (found.code, found.text) = match asked_for && !is_full && found.entries.len() >= size_limit as usize {
            true => (code::SIZE_LIMIT_EXCEEDED, "there are more entries than requested".to_owned()),
            false => (
                code::ADMIN_LIMIT_EXCEEDED,
                format!(
                    "there are more entries than one search returns ({MAX_ENTRIES} entries, {MAX_FOUND} \
                     bytes)"
                ),
            ),
        };
    }
    found
}

fn failed(error: &MachineError) -> Found {
    let code = match error {
        MachineError::Timeout(_) | MachineError::Refused { code: TIME_LIMIT_EXCEEDED, .. } => {
            code::TIME_LIMIT_EXCEEDED
        }
        MachineError::NoSuchObject(_) => code::NO_SUCH_OBJECT,
        MachineError::Refused { code: INVALID_DN_SYNTAX, .. } => code::INVALID_DN_SYNTAX,
        MachineError::Filter => code::PROTOCOL_ERROR,
        MachineError::TooMany(_) => code::ADMIN_LIMIT_EXCEEDED,
        MachineError::Refused { .. } | MachineError::Entry(_) => code::OTHER,
        MachineError::Kerberos(_)
        | MachineError::NoServer(_)
        | MachineError::Unreachable(_)
        | MachineError::Broken(_)
        | MachineError::Closed => code::UNAVAILABLE,
    };
    Found::failed(code, error.to_string())
}

#[cfg(test)]
mod tests;
