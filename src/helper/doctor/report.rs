//! The report of `motion-ad doctor` in words.

use std::time::Duration;

use super::{Found, count, first};
use crate::doctor::{CHECKS, Check, Finding, Fix, Group, Level, Place, Shown};
use crate::helper::show;

/// Column in which a finding's fixes begin.
const INDENT: usize = 11;

/// Returns the report, in lines that fit the terminal, if there is one.
pub(super) fn text(found: &Found, took: Option<Duration>) -> String {
    report(found, took, show::width())
}

pub(super) fn report(found: &Found, took: Option<Duration>, width: Option<usize>) -> String {
    let column = CHECKS.iter().map(|check| check.id.len()).max().unwrap_or_default();
    let mut text = String::new();
    for group in Group::ALL {
        let mut of_group = found.iter().filter(|(check, _)| check.group == group).peekable();
        if of_group.peek().is_none() {
            continue;
        }
        text += &format!("{}\n", group.name());
        for (check, finding) in of_group {
            text += &line(check, finding, column, width);
            for fix in &finding.fix {
                text += &of_fix(fix, width);
            }
        }
        text.push('\n');
    }
    let counts = [
        (count(found, Level::Failure), "failed"),
        (count(found, Level::Warning), "with a warning"),
        (count(found, Level::Ok), "ok"),
        (count(found, Level::Skipped), "skipped"),
    ];
    let counts = counts.iter().map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ");
    let took = took.map_or_else(String::new, |took| format!("; {:.1} s", took.as_secs_f64()));
    text += &format!("{counts}{took}\n");
    if let Some((check, _)) = first(found) {
        let id = check.id;
        let more = format!("begin with {id}; `motion-ad doctor --explain {id}` says more about it");
        text += &format!("{}\n", show::hang(&more, 0, width));
    }
    if found.iter().any(|(_, finding)| finding.fix.iter().any(Fix::is_automatic)) {
        let more = "`motion-ad doctor --fix` shows each fix, asks, applies it and checks again";
        text += &format!("{}\n", show::hang(more, 0, width));
    }
    text
}

/// Formats one check. On a narrow terminal, the observation goes below the name.
fn line(check: &Check, finding: &Finding, column: usize, width: Option<usize>) -> String {
    let seen = show::escape(&finding.seen);
    let head = format!("  {:<8} {:<column$}  ", word(finding.level), check.id);
    let fits = width.is_none_or(|width| head.len() + seen.chars().count() <= width);
    let text = match (fits, seen.is_empty()) {
        (_, true) | (true, false) => format!("{head}{seen}"),
        (false, false) => {
            format!("{}\n{}{}", head.trim_end(), " ".repeat(INDENT), show::hang(&seen, INDENT, width))
        }
    };
    format!("{}\n", text.trim_end())
}

fn of_fix(fix: &Fix, width: Option<usize>) -> String {
    let shown = Shown::from(fix.clone());
    let indent = " ".repeat(INDENT);
    let place = shown.place.map_or("", place);
    let head = match fix {
        Fix::Edit(_) => "fix (motion-ad doctor --fix applies it):".to_owned(),
        Fix::Run(_) => "fix:".to_owned(),
        Fix::Command { .. } if shown.kind == "look" => format!("look{place}:"),
        Fix::Command { .. } => format!("for you{place}:"),
        Fix::Advice { .. } => format!("for you{place}:"),
    };
    if let Some(diff) = &shown.diff {
        let lines = diff.lines().map(|line| format!("{indent}  {}\n", show::escape(line)));
        return format!("{indent}{head}\n{}", lines.collect::<String>());
    }
    let is_shell = shown.place != Some(Place::Windows);
    let text = match (&shown.command, &shown.text) {
        (Some(command), _) => {
            let command = show::escape(command);
            let fits = width.is_none_or(|width| INDENT + head.len() + 1 + command.chars().count() <= width);
            match (fits, is_shell) {
                (true, _) => format!("{head} {command}"),
                (false, true) => {
                    format!("{head}\n{indent}  {}", show::hang_shell(&command, INDENT + 2, width))
                }
                (false, false) => format!("{head}\n{indent}  {command}"),
            }
        }
        (None, Some(text)) => show::hang(&format!("{head} {}", show::escape(text)), INDENT, width),
        (None, None) => head,
    };
    format!("{indent}{text}\n")
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Skipped => "skipped",
        Level::Warning => "WARNING",
        Level::Failure => "FAILURE",
    }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Here => ", on this host",
        Place::Windows => ", on a domain controller that runs Windows",
        Place::Samba => ", on a domain controller that runs Samba",
        Place::Redis => ", on the host of the Redis",
        Place::Network => ", in the network",
        Place::Directory => ", in Active Directory",
        Place::User => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;

    #[test]
    fn the_report_has_a_line_for_each_and_says_where_to_begin() {
        assert_eq!(
            report(&found(), Some(Duration::from_millis(1250)), None),
            "package and PAM\n  \
               ok       root               as root\n  \
               WARNING  broker             slow\\u{1b}\n           \
               fix: systemctl restart motion-ad.service\n\n\
               host\n  FAILURE  srv-ldap           none\n           for you, on a domain controller that \
               runs Windows: nltest /dsregdns\n           for you, on a domain controller that runs Samba: \
               samba_dnsupdate --use-samba-tool\n           for you, in the network: open the port\n  \
               skipped  addresses          because of srv-ldap\n\n\
               1 failed, 1 with a warning, 1 ok, 1 skipped; 1.2 s\n\
               begin with srv-ldap; `motion-ad doctor --explain srv-ldap` says more about it\n\
               `motion-ad doctor --fix` shows each fix, asks, applies it and checks again\n"
        );
    }

    #[test]
    fn on_a_narrow_terminal_no_word_is_broken() {
        let check = Check::find("pam-order").unwrap();
        let long = "users cannot log in: the auth lines reject users whom AD accepts: \
                    /etc/pam.d/common-auth, line 20";
        let found: Found = vec![(check, Finding::failure(long).advise(Place::Here, long))];
        for width in [60, 80] {
            let text = report(&found, None, Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&text), words(&report(&found, None, None)));
        }
    }
}
