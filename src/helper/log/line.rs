//! A line of the broker's log, read back into its fields.

/// A field's name and value.
pub(crate) type Field = (String, String);

/// Parses a line of `name=value` fields. A value in quotation marks has escapes: `\"`, `\\` and `\u{HEX}`.
/// The rest of a line that was cut short, or that another program wrote, is left out.
pub(crate) fn parse(line: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut rest = line.trim();
    while let Some((name, after)) = rest.split_once('=') {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            break;
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => match unquote(quoted) {
                Some(read) => read,
                None => break,
            },
            None => {
                let (value, after) = after.split_once(' ').unwrap_or((after, ""));
                (value.to_owned(), after)
            }
        };
        fields.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    fields
}

/// Returns the value that begins after the opening quotation mark, and the text after the closing one.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => match chars.next()? {
                'u' => {
                    let (code, after) = chars.as_str().strip_prefix('{')?.split_once('}')?;
                    value.push(u32::from_str_radix(code, 16).ok().and_then(char::from_u32)?);
                    chars = after.chars();
                }
                c => value.push(c),
            },
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Line;

    #[test]
    fn what_the_broker_writes_is_read_back() {
        let values = [
            "john.doe",
            "Mary Ann",
            "x\" outcome=success",
            "a=b",
            "ACME\\x",
            "a\nb\tc",
            "a\u{1b}[2J\u{202e}b\u{85}",
            "\\u{41}",
            "jörg",
            "\"",
        ];
        for value in values {
            let line = Line::new("login").with("user", value).with("ms", 12);
            let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let expected = [field("event", "login"), field("user", value), field("ms", "12")];
            assert_eq!(parse(line.text()), expected, "{value:?}");
        }
    }

    #[test]
    fn what_is_cut_short_or_no_field_is_left_out() {
        let names = |line: &str| parse(line).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names("event=login user=\"x"), ["event"]);
        assert_eq!(names("event=login user=\"x\\u{110000}\" outcome=success"), ["event"]);
        assert_eq!(names("event=login Stopped the unit = now"), ["event"]);
        assert_eq!(names("Started motion-ad.service"), [""; 0]);
        assert_eq!(names(""), [""; 0]);
        let line = Line::new("login").with("user", "x".repeat(1000));
        assert_eq!(parse(line.text())[1].1.chars().count(), 513);
    }
}
