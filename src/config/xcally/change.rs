//! Changes one property of XCALLY's `.env` and leaves everything else in the file as it is.

use super::{assignments, is_space, next_line, unquoted};

/// Returns the value of `name` as it is written, with its quotes; `None` if the file does not set it. If a
/// name is given twice, the last one counts.
pub fn written<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    assignments(text).filter(|(found, _)| *found == name).last().map(|(_, raw)| raw.trim_matches(is_space))
}

/// Returns the value of `name` without its quotes; `None` if the file does not set it.
pub fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    written(text, name).map(|raw| unquoted(raw).1)
}

/// Returns true if `name` has this value.
pub fn has(text: &str, name: &str, expected: &[u8]) -> bool {
    value(text, name).is_some_and(|value| value.as_bytes() == expected)
}

/// Quotes the value for [`set`]; returns `None` if no quotes can hold it.
pub fn quoted(value: &str) -> Option<String> {
    let is_plain = |quote: &char| !value.contains(*quote);
    let is_odd = |c: char| c.is_control() || c == '\\';
    let quote = ['\'', '`'].into_iter().find(is_plain).filter(|_| !value.contains(is_odd))?;
    Some(format!("{quote}{value}{quote}"))
}

/// Sets the value of `name` to `written`, which includes the quotes; `None` removes the property. Returns
/// `None` if dotenv would then read anything else differently: `name:` at the end of the file takes an added
/// line for its own value.
pub fn set(text: &str, name: &str, written: Option<&str>) -> Option<String> {
    fn all(text: &str) -> Vec<(&str, &str)> {
        assignments(text).map(|(name, raw)| (name, raw.trim_matches(is_space))).collect()
    }
    let mut expected = all(text);
    let last = expected.iter().rposition(|(found, _)| *found == name);
    match (last.and_then(|last| expected.get_mut(last)), written) {
        (Some((_, raw)), Some(written)) => *raw = written,
        (None, Some(written)) => expected.push((name, written)),
        (_, None) => drop(last.map(|last| expected.remove(last))),
    }
    let changed = replaced(text, name, written);
    (all(&changed) == expected).then_some(changed)
}

fn replaced(text: &str, name: &str, written: Option<&str>) -> String {
    let Some((found, raw)) = assignments(text).filter(|(found, _)| *found == name).last() else {
        let Some(written) = written else { return text.to_owned() };
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return format!("{text}{end}{name}={written}\n");
    };
    let at = |part: &str| part.as_ptr().addr() - text.as_ptr().addr();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    match written {
        Some(written) => {
            // The space around the value stays, and so does the text after it.
            let begin = at(raw) + (raw.len() - raw.trim_start_matches(is_space).len());
            let end = begin + raw.trim_matches(is_space).len();
            [part(0, begin), written, part(end, text.len())].concat()
        }
        None => {
            let begin = part(0, at(found)).rfind(['\n', '\r']).map_or(0, |before| before + 1);
            let rest = next_line(part(at(raw) + raw.len(), text.len()));
            // CRLF is one end of a line, not two.
            let rest = rest.strip_prefix('\n').filter(|_| text.contains("\r\n")).unwrap_or(rest);
            [part(0, begin), rest].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str, name: &str, written: Option<&str>) -> String {
        super::set(text, name, written).unwrap()
    }

    const FILE: &str = "# XCALLY\nXC_PORT=80\nexport URL = 'ldap://ad.acme.com' # the old one\r\n\
        PASSWORD='line one\n\
        URL=ldap://evil'\nBASE=\nDOMAIN=acme.com # x\nLAST=1";

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        let changed = set(FILE, "URL", Some("'ldap://127.0.0.1:3890'"));
        assert_eq!(changed, FILE.replace("'ldap://ad.acme.com'", "'ldap://127.0.0.1:3890'"));
        let changed = set(FILE, "PASSWORD", Some("'x'"));
        assert_eq!(changed, FILE.replace("'line one\nURL=ldap://evil'", "'x'"));
        let changed = set(FILE, "BASE", Some("'dc=x'"));
        assert_eq!(changed, FILE.replace("BASE=\n", "BASE='dc=x'\n"));
        let changed = set(FILE, "DOMAIN", Some("'b'"));
        assert_eq!(changed, FILE.replace("acme.com # x", "'b' # x"));
        assert_eq!(set(FILE, "LAST", Some("'2'")), FILE.replace("LAST=1", "LAST='2'"));
        // The last one, which counts.
        assert_eq!(set("A=1\nA=2\n", "A", Some("'3'")), "A=1\nA='3'\n");
        let example = "ADMIN='<admin>' | Example 'cn=admin,dc=example,dc=org'\nB=1\n";
        assert_eq!(set(example, "ADMIN", Some("'x'")), "ADMIN='x'\nB=1\n");
    }

    #[test]
    fn a_property_that_is_not_there_is_added_and_one_can_be_taken_out() {
        assert_eq!(set(FILE, "NEW", Some("'1'")), format!("{FILE}\nNEW='1'\n"));
        assert_eq!(set("", "NEW", Some("'1'")), "NEW='1'\n");
        assert_eq!(set(FILE, "NEW", None), FILE);
        for name in ["XC_PORT", "BASE", "DOMAIN", "LAST", "PASSWORD"] {
            let without = set(FILE, name, None);
            assert_eq!(written(&without, name), None, "{name}: {without:?}");
            assert_eq!(assignments(&without).count(), assignments(FILE).count() - 1, "{name}: {without:?}");
        }
        assert_eq!(set("A=1\r\nB=2\r\nC=3\r\n", "B", None), "A=1\r\nC=3\r\n");
        assert_eq!(set("A=1\n\nB=2\n", "A", None), "\nB=2\n");
    }

    #[test]
    fn what_was_written_goes_back_as_it_was() {
        for name in ["URL", "PASSWORD", "DOMAIN", "BASE", "LAST", "XC_PORT"] {
            let old = written(FILE, name).unwrap();
            let there = set(FILE, name, Some("'new'"));
            assert!(has(&there, name, b"new"), "{name}");
            assert_eq!(set(&there, name, Some(old)), FILE, "{name}");
        }
        assert_eq!(written(FILE, "NEW"), None);
        assert!(!has(FILE, "DOMAIN", b"acme.co") && !has(FILE, "NEW", b""));
    }

    #[test]
    fn a_file_whose_end_takes_an_added_line_for_a_value_is_not_changed() {
        for open in ["A='x", "A='x\nB=1\n", "A=\"x\n\n", "A=1\nB:", "B:\n"] {
            let added = super::set(open, "URL", Some("'ldap://127.0.0.1:3890'"));
            assert!(added.is_none_or(|text| has(&text, "URL", b"ldap://127.0.0.1:3890")), "{open:?}");
        }
        assert_eq!(super::set("A=1\nB:", "URL", Some("'u'")), None);
    }

    #[test]
    fn a_value_is_quoted_so_that_dotenv_reads_it_as_it_is() {
        assert_eq!(quoted("ou=A,dc=b").as_deref(), Some("'ou=A,dc=b'"));
        assert_eq!(quoted("o'brien").as_deref(), Some("`o'brien`"));
        for odd in ["a\nb", "a\\b", "'`"] {
            assert_eq!(quoted(odd), None, "{odd:?}");
        }
        for value in ["a b # c", "o'brien", "", "\"x\""] {
            assert!(has(&format!("A={}\n", quoted(value).unwrap()), "A", value.as_bytes()), "{value}");
        }
    }
}
