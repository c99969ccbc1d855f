//! The configuration of XCALLY's own integration: the `XC_ACTIVEDIRECTORY_*` properties of its `.env`.
//!
//! The file is parsed like Node's dotenv does since version 15: quotes, comments, `export`, values of several
//! lines. The crates for such files stop at an unquoted space or do not know values of several lines, and all
//! of them copy every value. This parser skips the value of the password in place.

pub mod change;

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::{Problem, text};

/// Path of XCALLY's file.
pub const ENV: &str = "/var/opt/motion2/.env";

/// Prefix of the names of the properties.
pub const PREFIX: &str = "XC_ACTIVEDIRECTORY_";
/// The properties whose values are read, without the prefix. No other value is read.
const READ: [&str; 5] = ["STRATEGY", "ADMIN", "BASE_DN", "URL", "DOMAIN"];
/// The property that holds the administrator's password.
const PASSWORD: &str = "PASSWORD";

/// Maximum size of the file, in bytes.
const LONGEST: u64 = 1024 * 1024;

const QUOTES: [char; 3] = ['\'', '"', '`'];

/// The part of the file that concerns AD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// Every property that counts, in the order of the file.
    pub properties: Vec<Property>,
    /// The file's permission bits.
    pub mode: u32,
    /// The uid of its owner.
    pub owner: u32,
}

/// A property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its whole name.
    pub name: String,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// Its value.
    pub value: Value,
}

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The value is empty.
    Empty,
    /// The text of the value.
    Text(String),
    /// There is a value, but it is not read.
    Unread,
}

impl Property {
    /// Returns the name without the common prefix.
    pub fn short(&self) -> &str {
        self.name.strip_prefix(PREFIX).unwrap_or(&self.name)
    }

    /// Returns true if the property holds a password.
    pub fn is_secret(&self) -> bool {
        self.short() == PASSWORD && self.value != Value::Empty
    }
}

impl Env {
    /// Reads the file; returns `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the file exists, but cannot be read or is too long.
    pub fn load(path: &Path) -> Result<Option<Self>, Problem> {
        Ok(read(path)?.map(|(mut bytes, metadata)| Env {
            properties: parse(as_text(&mut bytes)),
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
        }))
    }
}

/// The bytes of a file, wiped after use because they hold passwords, and its owner and mode.
pub type Kept = (Zeroizing<Vec<u8>>, Metadata);

/// Reads the file; returns `None` if there is none.
///
/// # Errors
/// Returns an error if the file exists, but cannot be read or is too long.
pub fn read(path: &Path) -> Result<Option<Kept>, Problem> {
    let problem = |text: String| Problem { file: path.to_owned(), line: None, text };
    let read = |e: io::Error| problem(format!("cannot be read: {e}"));
    // Root reads this in a folder of the application, which may put another kind of file there: a symbolic
    // link to a file that the application may not read, or a FIFO that never ends.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            return Err(problem(
                "is a symbolic link, which is not followed: name the file itself".to_owned(),
            ));
        }
        other => other.map_err(read)?,
    };
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(problem("is no regular file".to_owned()));
    }
    // Allocated at full size, because growing would leave copies of the password behind.
    let capacity = usize::try_from(metadata.len().min(LONGEST)).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity + 1));
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > LONGEST {
        return Err(problem(format!("is longer than {LONGEST} bytes")));
    }
    // Node would read UTF-16 as UTF-8 and find nothing.
    text::unmarked(&bytes).map_err(|flaw| flaw.of(path))?;
    Ok(Some((bytes, metadata)))
}

/// Returns the bytes as text, without a copy: question marks replace the bytes that are not UTF-8.
pub(crate) fn as_text(bytes: &mut [u8]) -> &str {
    let mut begin = 0;
    while let Err(error) = std::str::from_utf8(bytes.get(begin..).unwrap_or_default()) {
        begin += error.valid_up_to();
        match bytes.get_mut(begin) {
            Some(byte) => *byte = b'?',
            None => break,
        }
    }
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Parses the properties in `text`. If a name is given twice, the last one counts.
pub(crate) fn parse(text: &str) -> Vec<Property> {
    let mut properties = Vec::<Property>::new();
    for (name, value) in assignments(text).filter(|(name, _)| name.starts_with(PREFIX)) {
        properties.retain(|earlier| earlier.name != name);
        properties.push(property(name, line_of(text, name), value));
    }
    properties
}

/// Returns the port of an LDAP URL that names an address of loopback; 389 if it names none, and 0 if its port
/// is no number of one. `None` for any other URL.
pub fn port_here(url: &str) -> Option<u16> {
    let url = url.trim().to_ascii_lowercase();
    let place = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    let place = place.split(['/', '?']).next().unwrap_or_default();
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let (host, port) = place.rsplit_once(':').filter(|(_, port)| is_port(port)).unwrap_or((place, ""));
    let port = if port.is_empty() { 389 } else { port.parse().unwrap_or_default() };
    ["127.0.0.1", "localhost", "[::1]"].contains(&host).then_some(port)
}

/// Returns every name with its value as it is written.
pub(crate) fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            match assignment(rest) {
                Some((name, value, after)) => {
                    rest = next_line(after);
                    return Some((name, value));
                }
                None => rest = next_line(rest),
            }
        }
        None
    })
}

fn property(name: &str, line: usize, raw: &str) -> Property {
    let (quote, inner) = unquoted(raw);
    let is_read = name.strip_prefix(PREFIX).is_some_and(|short| READ.contains(&short));
    let value = match inner {
        "" => Value::Empty,
        _ if !is_read => Value::Unread,
        inner => Value::Text(unescaped(quote, inner)),
    };
    Property { name: name.to_owned(), line, value }
}

/// Parses the assignment at the beginning of `text`: its name, its value with quotes, and the text after the
/// value.
fn assignment(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.trim_start_matches(is_space);
    let exported = text.strip_prefix("export").filter(|rest| rest.starts_with(is_space));
    exported.and_then(|rest| named(rest.trim_start_matches(is_space))).or_else(|| named(text))
}

fn named(text: &str) -> Option<(&str, &str, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let (name, rest) = text.split_at(text.find(|c| !is_word(c)).unwrap_or(text.len()));
    let equals = rest.trim_start_matches(is_space).strip_prefix('=');
    // `name: value`, as in YAML, requires the space.
    let value = equals.or_else(|| rest.strip_prefix(':')?.strip_prefix(is_space))?;
    if name.is_empty() {
        return None;
    }
    let (value, rest) = quoted(value).unwrap_or_else(|| {
        let end = value.find(['#', '\r', '\n']).unwrap_or(value.len());
        value.split_at(end)
    });
    Some((name, value, rest))
}

/// Parses a value between quotes, after which only a comment follows on the line. A quote after a backslash
/// ends the value only if there is no other.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(is_space);
    let quote = text.chars().next().filter(|c| QUOTES.contains(c))?;
    let ends = || text.match_indices(quote).map(|(at, _)| at).skip(1);
    let is_escaped = |at: &usize| text.get(..*at).is_some_and(|before| before.ends_with('\\'));
    let last = ends().find(|at| !is_escaped(at));
    let escaped: Vec<_> = ends().take_while(is_escaped).collect();
    let is_end = |at: &usize| {
        let after = text.get(at + 1..).unwrap_or_default();
        let line = after.split(['\r', '\n']).next().unwrap_or_default().trim_start_matches(is_space);
        line.is_empty() || line.starts_with('#')
    };
    let end = last.into_iter().chain(escaped.into_iter().rev()).find(is_end)?;
    text.split_at_checked(end + 1)
}

/// Returns the quote at the beginning of a value, and the value without its pair of quotes, if it has one.
fn unquoted(raw: &str) -> (Option<char>, &str) {
    let raw = raw.trim_matches(is_space);
    let quote = raw.chars().next().filter(|c| QUOTES.contains(c));
    let inner = quote.and_then(|quote| raw.strip_prefix(quote)?.strip_suffix(quote));
    (quote, inner.unwrap_or(raw))
}

/// Replaces the two known escapes, which exist only between double quotes.
fn unescaped(quote: Option<char>, inner: &str) -> String {
    let inner = inner.replace("\r\n", "\n").replace('\r', "\n");
    match quote {
        Some('"') => inner.replace("\\n", "\n").replace("\\r", "\r"),
        _ => inner,
    }
}

/// Returns true for the characters that ECMAScript's `\s` and `trim` treat as space.
fn is_space(c: char) -> bool {
    (c.is_whitespace() && c != '\u{85}') || c == '\u{feff}'
}

fn next_line(text: &str) -> &str {
    match text.find(['\r', '\n']) {
        Some(end) => text.get(end + 1..).unwrap_or_default(),
        None => "",
    }
}

/// Returns the line of `text` on which its part `part` begins. A line ends with LF, CR or CRLF.
fn line_of(text: &str, part: &str) -> usize {
    let before = text.get(..part.as_ptr().addr() - text.as_ptr().addr()).unwrap_or_default();
    1 + before.replace("\r\n", "\n").matches(['\r', '\n']).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the value of the property A in a file.
    fn value(text: &str) -> Option<String> {
        let (_, raw) = assignments(text).filter(|(name, _)| *name == "A").last()?;
        let (quote, inner) = unquoted(raw);
        Some(unescaped(quote, inner))
    }

    /// Each value is as dotenv 16.6.1 reads it under Node.
    #[test]
    fn a_value_is_what_dotenv_makes_of_it() {
        let cases = [
            // Names, and characters around them.
            ("A=1", Some("1")),
            ("A = 1 ", Some("1")),
            ("\u{feff}A=1", Some("1")),
            ("A=\u{a0}1\u{a0}", Some("1")),
            ("export A=1", Some("1")),
            (" export   A = 1", Some("1")),
            ("exportA=1", None),
            ("export=1\nA=2", Some("2")),
            ("A: 1", Some("1")),
            ("A:1", None),
            ("A  :  1", None),
            ("A\n=1", Some("1")),
            ("A", None),
            ("A B=1", None),
            ("=1\nA=2", Some("2")),
            ("\u{e4}=1\nA=2", Some("2")),
            ("# A=1", None),
            ("A=1\nA=2", Some("2")),
            ("B-.C_1=x\nA=2", Some("2")),
            // Empty values.
            ("A=", Some("")),
            ("A=\nB=2", Some("")),
            ("A=\r\nB=2\r\n", Some("")),
            ("A=\"\"", Some("")),
            ("A=#x", Some("")),
            ("A= # x", Some("")),
            // Without quotes.
            ("A=a b c", Some("a b c")),
            ("A=a # b", Some("a")),
            ("A=a#b", Some("a")),
            ("A=cn=x,dc=y", Some("cn=x,dc=y")),
            ("A=1\rA=2", Some("2")),
            ("A=a\\\nb", Some("a\\")),
            ("A=\n\n1", Some("")),
            ("A=$B", Some("$B")),
            // With quotes.
            ("A='cn=x,dc=y'", Some("cn=x,dc=y")),
            ("A='a#b' # c", Some("a#b")),
            ("A=\"a # b\"", Some("a # b")),
            ("A=' a '", Some(" a ")),
            ("A=`a'b\"c`", Some("a'b\"c")),
            ("A=\n'x'", Some("x")),
            ("A='a'", Some("a")),
            ("A='a\nb'\nB=2", Some("a\nb")),
            ("A=\"a\r\nb\"\r\nB=2", Some("a\nb")),
            ("A=`a\nb`", Some("a\nb")),
            // Escapes.
            ("A=\"a\\nb\"", Some("a\nb")),
            ("A='a\\nb'", Some("a\\nb")),
            ("A=\"a\\tb\"", Some("a\\tb")),
            ("A=\"a\\\\nb\"", Some("a\\\nb")),
            ("A=\"a\\\"b\"", Some("a\\\"b")),
            ("A='a\\'b'", Some("a\\'b")),
            ("A='a\\'\nB=2", Some("a\\")),
            // Characters that are not a pair of quotes.
            ("A=\"unclosed\nB=2", Some("\"unclosed")),
            ("A='un\nB='x'", Some("'un")),
            ("A='a' tail", Some("'a' tail")),
            ("A=\"x\" \"y\"", Some("x\" \"y")),
            ("A='", Some("'")),
            (
                "A='<x>' | Example 'cn=admin,dc=example,dc=org'",
                Some("<x>' | Example 'cn=admin,dc=example,dc=org"),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(value(text).as_deref(), expected, "{text:?}");
        }
    }

    const FILE: &str = "# XCALLY\nXC_PORT=80\nXC_ACTIVEDIRECTORY_STRATEGY=inetOrgPerson\n\
        XC_ACTIVEDIRECTORY_PASSWORD='line one\nXC_ACTIVEDIRECTORY_URL=ldap://evil'\n\
        export XC_ACTIVEDIRECTORY_URL='ldap://ad.acme.com' # the old one\r\n\
        XC_ACTIVEDIRECTORY_BASE_DN=\nXC_ACTIVEDIRECTORY_TLS=yes\nXC_ACTIVEDIRECTORY_DOMAIN=\n\
        XC_ACTIVEDIRECTORY_DOMAIN=acme.com\n";

    #[test]
    fn properties_stand_in_order_with_their_lines_and_the_password_is_not_read() {
        let properties = parse(FILE);
        let seen: Vec<_> = properties.iter().map(|p| (p.short(), p.line, p.value.clone())).collect();
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(
            seen,
            [
                ("STRATEGY", 3, text("inetOrgPerson")),
                ("PASSWORD", 4, Value::Unread),
                ("URL", 6, text("ldap://ad.acme.com")),
                ("BASE_DN", 7, Value::Empty),
                ("TLS", 8, Value::Unread),
                ("DOMAIN", 10, text("acme.com")),
            ]
        );
        assert!(!format!("{properties:?}").contains("line one"));
        assert_eq!(properties.iter().map(Property::is_secret).filter(|secret| *secret).count(), 1);
        assert!(!parse("XC_ACTIVEDIRECTORY_PASSWORD=''").iter().any(Property::is_secret));
    }

    #[test]
    fn a_file_that_is_not_utf_8_is_read_around_that() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"# f\xfcr AD\xff\nXC_ACTIVEDIRECTORY_URL=ldap://\xe4d\n").unwrap();
        let env = Env::load(file.path()).unwrap().unwrap();
        assert_eq!(env.properties[0].value, Value::Text("ldap://?d".into()));
        assert_eq!(env.mode, 0o600);
        assert_eq!(Env::load(Path::new("/nonexistent/.env")), Ok(None));
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(LONGEST + 1).unwrap();
        let error = Env::load(file.path()).unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }

    #[test]
    fn what_lies_in_wait_in_the_folder_of_the_application_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let env = folder.path().join(".env");
        let refused = |why: &str| {
            let problem = Env::load(&env).unwrap_err().to_string();
            assert!(problem.contains(why), "{problem}");
            std::fs::remove_file(&env).unwrap();
        };
        std::os::unix::fs::symlink("/etc/hostname", &env).unwrap();
        refused("is a symbolic link");
        // No process writes to it, so a plain open would wait forever.
        let made = std::process::Command::new("mkfifo").arg(&env).status().unwrap();
        assert!(made.success());
        refused("is no regular file");
        std::os::unix::fs::symlink("/dev/zero", &env).unwrap();
        refused("is a symbolic link");
        let problem = Env::load(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(problem.contains("is no regular file"), "{problem}");
    }
}
