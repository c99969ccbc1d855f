//! Removes secrets from texts.

/// Replacement of a secret.
const MASKED: &str = "(masked)";
/// Parts of the names of settings whose values are secrets, in small letters.
const SECRETS: [&str; 8] =
    ["password", "passwd", "secret", "token", "authtok", "credential", "private_key", "api_key"];
/// Ends of the names of settings that hold the path of a file.
const FILES: [&str; 2] = ["_file", "loadcredential"];

/// Returns `text` without the passwords of URLs and without private keys.
pub(super) fn text(text: &str) -> String {
    let mut is_key = false;
    let mut masked = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let is_begin = line.contains("-----BEGIN ") && line.contains("PRIVATE KEY-----");
        if is_begin {
            masked += MASKED;
            masked.push('\n');
        }
        is_key |= is_begin;
        if !is_key {
            masked += &urls(line);
        }
        is_key &= !(line.contains("-----END ") && line.contains("PRIVATE KEY-----"));
    }
    masked
}

/// Returns a file of settings, one a line, in addition without the values of settings that are secrets, also
/// in comments.
pub(super) fn settings(file: &str) -> String {
    let line = |line: &str| {
        let end = if line.ends_with('\n') { "\n" } else { "" };
        match secret_at(line) {
            Some(value) => format!("{}{MASKED}{end}", line.get(..value).unwrap_or_default()),
            None => line.to_owned(),
        }
    };
    text(&file.split_inclusive('\n').map(line).collect::<String>())
}

/// Returns the place of the value if the line sets a secret: everything after the first such name.
fn secret_at(line: &str) -> Option<usize> {
    line.char_indices().filter(|(_, c)| matches!(c, '=' | ':')).find_map(|(at, _)| {
        let name = line.get(..at)?.trim_end().trim_end_matches(['"', '\'']);
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let begin = name
            .char_indices()
            .rev()
            .take_while(|(_, c)| is_part(*c))
            .last()
            .map_or(name.len(), |(at, _)| at);
        let name = name.get(begin..)?.to_lowercase().replace('-', "_");
        let is_secret =
            SECRETS.iter().any(|part| name.contains(part)) && !FILES.iter().any(|end| name.ends_with(end));
        is_secret.then_some(at.checked_add(1)?)
    })
}

/// Masks `user:password` in URLs, up to the last `@`, because a password may hold another.
fn urls(line: &str) -> String {
    let mut masked = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("://") {
        masked += before;
        masked += "://";
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`'))
            .unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        match url.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => {
                let name = user.split_once(':').map_or("", |(name, _)| name);
                masked += &format!("{name}:{MASKED}@{host}");
            }
            _ => masked += url,
        }
        rest = tail;
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_are_masked_and_the_rest_stays() {
        for (line, expected) in [
            ("ldap_default_authtok = hunter2\n", "ldap_default_authtok =(masked)\n"),
            ("# bind_password: hunter2 and more", "# bind_password:(masked)"),
            ("Environment=\"REDIS_PASSWORD=hunter2\"\n", "Environment=\"REDIS_PASSWORD=(masked)\n"),
            ("  \"clientSecret\": \"hunter2\",\n", "  \"clientSecret\":(masked)\n"),
            (
                "password_file = \"/etc/motion-ad/redis.password\"\n",
                "password_file = \"/etc/motion-ad/redis.password\"\n",
            ),
            (
                "store = \"rediss://motion:hun@ter:2@redis1/0\" # x\n",
                "store = \"rediss://motion:(masked)@redis1/0\" # x\n",
            ),
            ("store = \"redis://:hunter2@r1\"", "store = \"redis://:(masked)@r1\""),
            ("url = \"ldap://127.0.0.1:3890\"\n", "url = \"ldap://127.0.0.1:3890\"\n"),
            ("store = \"rediss://motion@redis\"", "store = \"rediss://motion@redis\""),
            (
                "LoadCredential=ldap-admin:/etc/motion-ad/ldap-admin\n",
                "LoadCredential=ldap-admin:/etc/motion-ad/ldap-admin\n",
            ),
            ("SetCredential=x:hunter2\n", "SetCredential=(masked)\n"),
            ("name = \"acme.com\"\n", "name = \"acme.com\"\n"),
            ("API-KEY = hunter2", "API-KEY =(masked)"),
        ] {
            assert_eq!(settings(line), expected);
            assert!(!settings(line).contains("hunter2"));
        }
    }

    #[test]
    fn private_keys_are_left_out_and_certificates_stay() {
        let pem = "a\n-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\nb\n\
                   -----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        let expected = "a\n(masked)\nb\n-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        assert_eq!(text(pem), expected);
        assert_eq!(text("x\n-----BEGIN PRIVATE KEY-----\nhunter2"), "x\n(masked)\n");
    }
}
