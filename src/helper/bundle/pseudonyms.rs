//! Replaces the names of users, each by the same pseudonym everywhere.
//!
//! A name is known from the log, from names.map, or from its form: `name@domain`, or the `CN=` of a name in
//! AD.

use std::collections::{BTreeSet, HashMap};

use crate::helper::log::line::parse;

/// Fields of a log line that hold a name as the user typed it, or the account's.
const FIELDS: [&str; 3] = ["user", "principal", "login"];
/// Shortest name that is replaced wherever it stands. Shorter ones are replaced in log lines and in names.map
/// alone.
const SHORTEST: usize = 3;
/// Beginning of a pseudonym, before its number.
const PSEUDONYM: &str = "pseudonym-";

/// The pseudonyms, and the names that keep theirs.
#[derive(Default)]
pub(super) struct Pseudonyms {
    /// Each name in small letters, with its number.
    known: HashMap<String, usize>,
    /// Names that are no user's: of the system, of outcomes.
    kept: BTreeSet<String>,
}

impl Pseudonyms {
    /// Pseudonyms for all names but `kept`.
    pub(super) fn new(kept: impl IntoIterator<Item = String>) -> Self {
        Pseudonyms { known: HashMap::new(), kept: kept.into_iter().map(|name| name.to_lowercase()).collect() }
    }

    /// Replaces the names in the fields of log lines, and remembers them for [`Pseudonyms::text`].
    pub(super) fn log(&mut self, text: &str) -> String {
        text.split_inclusive('\n').map(|line| self.line(line)).collect()
    }

    fn line(&mut self, line: &str) -> String {
        let mut line = line.to_owned();
        for field in FIELDS {
            let Some((begin, end)) = value(&line, field) else { continue };
            let raw = line.get(begin..end).unwrap_or_default();
            let typed =
                parse(&format!("user={raw}")).pop().map_or_else(|| raw.to_owned(), |(_, value)| value);
            let replaced = self.name(&typed);
            line.replace_range(begin..end, &replaced);
        }
        line
    }

    /// Replaces the names of a name map, and remembers them.
    pub(super) fn map(&mut self, text: &str) -> String {
        let line = |line: &str| {
            let (names, comment) = line.split_once('#').unwrap_or((line, ""));
            let comment = if comment.is_empty() { "" } else { "# (a comment)" };
            match names.split_once('=') {
                Some((name, account)) => {
                    format!("{} = {} {comment}", self.name(name.trim()), self.name(account.trim()))
                }
                None => format!("{}{comment}", names.trim()),
            }
        };
        text.lines().map(line).map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// Returns the pseudonym of a name as typed: `DOMAIN\name`, `name@domain` or `name`. The domain stays.
    fn name(&mut self, typed: &str) -> String {
        let is_domain = |domain: &str| domain.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-'));
        let (before, rest) = match typed.split_once('\\') {
            Some((domain, name)) if is_domain(domain) => (domain, name),
            _ => ("", typed),
        };
        // Without a full stop it is no domain, but perhaps a password in the wrong field.
        let (name, after) = match rest.rsplit_once('@') {
            Some((name, domain)) if is_domain(domain) && domain.contains('.') => (name, domain),
            _ => (rest, ""),
        };
        let before = if before.is_empty() { String::new() } else { format!("{before}\\") };
        let after = if after.is_empty() { String::new() } else { format!("@{after}") };
        format!("{before}{}{after}", self.pseudonym(name))
    }

    fn pseudonym(&mut self, name: &str) -> String {
        let small = name.to_lowercase();
        // A machine's account, the name of a service at a host, and a text that is replaced already.
        if name.is_empty()
            || name.ends_with('$')
            || name.contains('/')
            || self.kept.contains(&small)
            || small.starts_with(PSEUDONYM)
        {
            return name.to_owned();
        }
        let next = self.known.len().saturating_add(1);
        format!("{PSEUDONYM}{}", self.known.entry(small).or_insert(next))
    }

    /// Learns the names that `text` holds by their form.
    pub(super) fn learn(&mut self, text: &str) {
        let mut before = "";
        for word in words(text) {
            if let Word::Name(name) = word
                && let Some((local, domain)) = name.split_once('@')
                && domain.contains('.')
                // Not the host of a service.
                && !before.ends_with('/')
            {
                self.pseudonym(local);
            }
            before = word.text();
        }
        for part in text.split("CN=").skip(1) {
            // Of a name in AD; a certificate's has no DC.
            let end = part.find(['\n', '"', ')']).unwrap_or(part.len());
            let name = part.get(..end).unwrap_or_default();
            if let Some((first, rest)) = name.split_once(',')
                && rest.contains("DC=")
                && (rest.contains("OU=") || rest.starts_with("CN=Users,"))
            {
                self.pseudonym(first.trim_end_matches('\\'));
            }
        }
        // Names that belong to two accounts, as the doctor lists them.
        for (before, _) in
            text.match_indices(" (userPrincipalName of ").filter_map(|(at, _)| text.split_at_checked(at))
        {
            if let Some(name) = before.rsplit([' ', ',', ':']).next() {
                self.pseudonym(name);
            }
        }
    }

    /// Replaces each known name.
    pub(super) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // Names with spaces and other signs are no single word.
        let mut phrases: Vec<_> = self.known.iter().filter(|(name, _)| !name.chars().all(is_part)).collect();
        phrases.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, number) in phrases.into_iter().filter(|(name, _)| name.len() >= SHORTEST) {
            text = replaced(&text, name, &format!("{PSEUDONYM}{number}"));
        }
        words(&text).map(|word| self.word(word)).collect()
    }

    fn word(&self, word: Word<'_>) -> String {
        let Word::Name(word) = word else { return word.text().to_owned() };
        let (name, domain) = word.split_at(word.find('@').unwrap_or(word.len()));
        // The full stop after a sentence.
        let (bare, stop) = name.split_at(name.trim_end_matches('.').len());
        match self.known.get(&bare.to_lowercase()) {
            Some(number) if bare.len() >= SHORTEST || !domain.is_empty() => {
                format!("{PSEUDONYM}{number}{stop}{domain}")
            }
            _ => word.to_owned(),
        }
    }
}

/// Replaces `name`, which is in small letters, in any case of letters.
fn replaced(text: &str, name: &str, by: &str) -> String {
    let small = text.to_lowercase();
    if small.len() != text.len() {
        // Small letters that have another length: the places would differ.
        return text.replace(name, by);
    }
    let mut done = String::new();
    let mut last = 0;
    for (at, found) in small.match_indices(name) {
        done += text.get(last..at).unwrap_or_default();
        done += by;
        last = at.saturating_add(found.len());
    }
    done + text.get(last..).unwrap_or_default()
}

/// A part of a text.
enum Word<'a> {
    /// A possible name, with its domain.
    Name(&'a str),
    Other(&'a str),
}

impl<'a> Word<'a> {
    fn text(&self) -> &'a str {
        match self {
            Word::Name(text) | Word::Other(text) => text,
        }
    }
}

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '$')
}

/// Divides a text into possible names and the rest.
fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let is_name = is_part(first);
        let end = rest.find(|c: char| (is_part(c) || (is_name && c == '@')) != is_name).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(if is_name { Word::Name(word) } else { Word::Other(word) })
    })
}

/// Returns the place of a field's value in a log line, with its quotation marks.
fn value(line: &str, field: &str) -> Option<(usize, usize)> {
    let start = line.find(&format!(" {field}="))?.checked_add(field.len())?.checked_add(2)?;
    let rest = line.get(start..)?;
    let length = match rest.strip_prefix('"') {
        Some(quoted) => {
            let mut is_escaped = false;
            let end = quoted.find(|c| {
                let is_end = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                is_end
            });
            end.map_or(rest.trim_end().len(), |end| end.saturating_add(2))
        }
        None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
    };
    Some((start, start.checked_add(length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_same_pseudonym_everywhere() {
        let mut names = Pseudonyms::new(["root".to_owned(), "motion".to_owned()]);
        let map = names.map("# Jane's line\njd = john.doe@acme.com # John\nboss = ACME\\Jane\n");
        assert_eq!(
            map,
            "# (a comment)\npseudonym-1 = pseudonym-2@acme.com # (a comment)\n\
             pseudonym-3 = ACME\\pseudonym-4\n"
        );
        let log = names.log(
            "Nov 28 host motion-ad-broker[1]: event=login user=JD principal=john.doe@acme.com \
             outcome=success ms=1\n\
             event=login user=\"ACME\\\\john.doe\" principal=john.doe@acme.com outcome=denied reason=\"of \
             CN=John Doe,OU=People,DC=acme,DC=com\"\n\
             event=login user=\"Mary \\\"Ann\" outcome=unmapped\nevent=login user=root outcome=unmapped\n",
        );
        names.learn(&log);
        let log = names.text(&log);
        assert_eq!(
            log,
            "Nov 28 host motion-ad-broker[1]: event=login user=pseudonym-1 principal=pseudonym-2@acme.com \
             outcome=success ms=1\n\
             event=login user=ACME\\pseudonym-2 principal=pseudonym-2@acme.com outcome=denied reason=\"of \
             CN=pseudonym-6,OU=People,DC=acme,DC=com\"\n\
             event=login user=pseudonym-5 outcome=unmapped\nevent=login user=root outcome=unmapped\n"
        );
        let text = names
            .text("JOHN.DOE, john.doe. and john.doe2 or x.john.doe; jane@acme.com; JD; John Doe; motion");
        assert_eq!(
            text,
            "pseudonym-2, pseudonym-2. and john.doe2 or x.john.doe; pseudonym-4@acme.com; JD; pseudonym-6; \
             motion"
        );
    }

    #[test]
    fn hosts_machines_and_services_keep_their_names() {
        let mut names = Pseudonyms::new([]);
        let text = "XCALLY$@ACME.COM ldap/ad.acme.com@ACME.COM clash (userPrincipalName of \
                    CN=a,OU=P,DC=acme) CN=acme-CA,O=Acme x@acme.com";
        names.learn(text);
        assert_eq!(
            names.text(text),
            "XCALLY$@ACME.COM ldap/ad.acme.com@ACME.COM pseudonym-3 (userPrincipalName of CN=a,OU=P,DC=acme) \
             CN=acme-CA,O=Acme pseudonym-1@acme.com"
        );
    }
}
