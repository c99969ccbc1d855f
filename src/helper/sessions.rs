//! `motion-ad sessions`: the sessions, their end, and their events.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::show::{self, Columns, span};
use super::{
    Cli, Complete, Exit, Failure, Page, SessionsEnd, SessionsKick, SessionsList, SessionsShow, SessionsWatch,
    ask, ask_verdict, complain, request, unanswered,
};
use crate::client::{self, AskError};
use crate::protocol::report::{Events, Session, Sessions};
use crate::protocol::{Operation, Reply, Request, Secret};
use crate::verdict::Verdict;

/// Time that the broker waits for an event before it answers without one.
const POLL: Duration = Duration::from_secs(30);
/// Minimum number of an id's characters in a list; more if these do not distinguish the sessions.
const SHORT: usize = 8;
/// Minimum length of an abbreviated id, in characters.
const SHORTEST: usize = 4;
/// Length of a complete id, in characters.
const WHOLE: usize = 36;
/// The end of what `end` prints.
const NOBODY: &str = "no user is disconnected: `motion-ad sessions kick` does that\n";
/// Time that a user who presses the tabulator key waits for the broker.
const TYPING: Duration = Duration::from_secs(1);
/// Pause after a failed query to the broker.
const RETRY: Duration = Duration::from_secs(1);

/// Lists the open sessions.
pub(super) fn list(cli: &Cli, args: &SessionsList) -> Result<Page, Failure> {
    let all = open_sessions(cli, args.user.as_deref().unwrap_or_default())?;
    let text = if args.json { show::json(&all)? } else { table(&all) };
    Ok(Page { text, exit: Exit::Yes })
}

/// Returns every open session, or those of `user`, page by page.
fn open_sessions(cli: &Cli, user: &str) -> Result<Vec<Session>, Failure> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        // Each page gets the full timeout.
        let page = ask_sessions(cli, &request(cli, "sessions", Operation::ListSessions { cursor }, user))?;
        all.extend(page.list);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

/// Shows one session.
pub(super) fn show(cli: &Cli, args: &SessionsShow) -> Result<Page, Failure> {
    let id = whole_id(cli, &args.id)?;
    let request = request(cli, "sessions", Operation::ShowSession { session: id }, "");
    let found = ask_sessions(cli, &request)?.list.into_iter().next();
    let is_open = found.as_ref().is_some_and(|session| session.ended.is_none());
    let text = match &found {
        _ if args.json => show::json(&found)?,
        Some(session) => facts(session),
        None => no_such(&args.id),
    };
    Ok(Page { text, exit: if is_open { Exit::Yes } else { Exit::No } })
}

/// Ends sessions, which disconnects no user.
pub(super) fn end(cli: &Cli, args: &SessionsEnd) -> Result<Page, Failure> {
    let mut page = Page { text: String::new(), exit: Exit::Yes };
    let by_id = |id| Operation::CloseSession { session: Some(id) };
    close(cli, &args.ids, by_id, "ended", &mut page)?;
    if page.text.contains(": ended\n") {
        page.text += NOBODY;
    }
    Ok(page)
}

/// Evicts sessions: those with these ids, or all of a user.
pub(super) fn kick(cli: &Cli, args: &SessionsKick) -> Result<Page, Failure> {
    let mut page = Page { text: String::new(), exit: Exit::Yes };
    let ids = match &args.user {
        Some(user) => open_sessions(cli, user)?.into_iter().map(|session| session.id).collect(),
        None => args.ids.clone(),
    };
    if let (Some(user), []) = (&args.user, ids.as_slice()) {
        return Ok(Page { text: format!("{}: no session is open\n", show::escape(user)), exit: Exit::No });
    }
    let by_id = |id| Operation::KickSession { session: id };
    close(cli, &ids, by_id, "evicted", &mut page)?;
    Ok(page)
}

/// Has the broker end each session by `operation`; `done` is the word for one that it ended now.
fn close(
    cli: &Cli,
    ids: &[String],
    operation: impl Fn(String) -> Operation,
    done: &str,
    page: &mut Page,
) -> Result<(), Failure> {
    for given in ids {
        let id = whole_id(cli, given)?;
        let request = request(cli, "sessions", operation(id.clone()), "");
        let verdict = ask_verdict(cli, &request, &Secret::default())?;
        let said = match verdict {
            verdict if !verdict.outcome.is_success() => return Err(answered(verdict)),
            Verdict { session: None, .. } => {
                page.exit = Exit::No;
                page.text += &no_such(given);
                continue;
            }
            Verdict { reason, .. } if reason.is_empty() => done,
            _ => "had ended already",
        };
        page.text += &format!("{}: {said}\n", show::escape(&id));
    }
    Ok(())
}

/// Lists words for a shell that completes: the short ids of open sessions, or the names of their users.
/// Prints nothing if the user may not know them, or if the broker does not answer at once.
pub(super) fn complete(cli: &Cli, args: &Complete) -> Page {
    let request = Request {
        service: "sessions".into(),
        ..client::request(Operation::ListSessions { cursor: None }, "", TYPING)
    };
    let open = ask_sessions(cli, &request).unwrap_or_default().list;
    let length = telling(&open);
    let word = |session: &Session| match args.what.as_str() {
        "names" => session.user.clone(),
        _ => session.id.chars().take(length).collect(),
    };
    let words: BTreeSet<_> = open.iter().map(word).filter(|word| is_word(word)).collect();
    Page { text: words.into_iter().map(|word| word + "\n").collect(), exit: Exit::Yes }
}

/// Returns true if every shell takes `text` as one word without a special meaning.
fn is_word(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain)
}

fn no_such(id: &str) -> String {
    let hint = match id.len() < WHOLE {
        true => "; one that has ended is known by its whole id",
        false => "",
    };
    format!("{}: no such session{hint}\n", show::escape(id))
}

/// Returns the complete id of the open session that `given` abbreviates.
fn whole_id(cli: &Cli, given: &str) -> Result<String, Failure> {
    if given.len() >= WHOLE || given.len() < SHORTEST {
        return Ok(given.to_owned());
    }
    let all = open_sessions(cli, "")?;
    let ids: Vec<_> =
        all.iter().map(|session| session.id.as_str()).filter(|id| id.starts_with(given)).collect();
    match ids.as_slice() {
        [] => Ok(given.to_owned()),
        [one] => Ok((*one).to_owned()),
        several => Err(Failure::SessionId(format!(
            "{given}: {} sessions begin with this; give more of the id: {}",
            several.len(),
            several.join(", ")
        ))),
    }
}

/// Returns the number of leading characters that distinguish the ids of these sessions.
fn telling(sessions: &[Session]) -> usize {
    let mut ids: Vec<_> = sessions.iter().map(|session| session.id.as_str()).collect();
    ids.sort_unstable();
    let common =
        |(one, other): (&&str, &&str)| one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let longest = ids.iter().zip(ids.iter().skip(1)).map(common).max();
    longest.map_or(SHORT, |common| SHORT.max(common.saturating_add(1)))
}

fn ask_sessions(cli: &Cli, request: &Request) -> Result<Sessions, Failure> {
    ask(cli, request, &Secret::default(), |reply| match reply {
        Reply::Sessions(sessions) => Some(Ok(*sessions)),
        Reply::Verdict(verdict) => Some(Err(answered(verdict))),
        _ => None,
    })?
}

fn answered(verdict: Verdict) -> Failure {
    Failure::Answered { outcome: verdict.outcome, reason: verdict.reason }
}

/// Formats a line for each session. Omits columns in which the sessions do not differ, or have no value.
fn table(sessions: &[Session]) -> String {
    let length = telling(sessions);
    let short = |session: &Session| session.id.chars().take(length).collect::<String>();
    let differs = |value: fn(&Session) -> &str| {
        let mut values = sessions.iter().map(value);
        let first = values.next().unwrap_or_default();
        values.any(|other| other != first)
    };
    let has_origin = sessions.iter().any(|session| !session.rhost.is_empty());
    let has_service = differs(|session| &session.service);
    let has_server = differs(|session| &session.host);
    let mut heading = vec!["SESSION", "NAME"];
    let optional = [(has_service, "SERVICE"), (has_origin, "FROM"), (has_server, "SERVER")];
    heading.extend(optional.into_iter().filter_map(|(is_shown, name)| is_shown.then_some(name)));
    heading.extend(["PROCESS", "SINCE"]);
    let mut columns = Columns::of(&heading);
    for session in sessions {
        let mut cells = vec![short(session), session.user.clone()];
        let optional =
            [(has_service, &session.service), (has_origin, &session.rhost), (has_server, &session.host)];
        cells.extend(optional.into_iter().filter(|(is_shown, _)| *is_shown).map(|(_, cell)| cell.clone()));
        cells.extend([session.pid.to_string(), span(age(session.since))]);
        columns.line(&cells);
    }
    match sessions {
        [] => "no session is open\n".to_owned(),
        _ => columns.fitting(show::columns()).right([heading.len().saturating_sub(2)]).text(),
    }
}

fn facts(session: &Session) -> String {
    let mut facts = Columns::plain();
    facts.pair("session", Some(&session.id));
    facts.pair("name", Some(&session.user));
    facts.pair("principal", Some(&session.principal));
    facts.pair("objectGUID", Some(&session.guid));
    facts.pair("service", Some(&session.service));
    facts.pair("from", Some(&session.rhost));
    facts.pair("terminal", Some(&session.tty));
    facts.pair("server", Some(&session.host));
    facts.row(["process", &format!("{} of uid {}", session.pid, session.uid)]);
    facts.row(["since", &moment(session.since)]);
    if let Some(ended) = &session.ended {
        facts.row(["ended", &moment(ended.at)]);
        facts.pair("reason", Some(ended.reason.name()));
        facts.pair("detail", Some(&ended.detail));
    }
    facts.text()
}

/// Returns the seconds since a time in milliseconds.
fn age(milliseconds: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(milliseconds)).as_secs()
}

fn moment(milliseconds: u64) -> String {
    let at = i64::try_from(milliseconds / 1000).ok();
    let at = at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "after the year 9999".to_owned())
}

/// One line of `sessions watch`.
#[derive(Serialize)]
struct Told<'a> {
    event: &'static str,
    cursor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    evicted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a Session>,
}

/// Prints events until the reader of the output is gone.
pub(super) fn watch(cli: &Cli, args: &SessionsWatch) -> Result<Exit, Failure> {
    thread::spawn(end_with_the_reader);
    let mut cursor = args.after.clone();
    let mut is_silent = false;
    loop {
        let request = client::request(Operation::WatchSessions { cursor: cursor.clone() }, "", POLL);
        let request = Request { service: "sessions".into(), ..request };
        let problem = match client::ask(&cli.socket, &request, &Secret::default()) {
            Ok(Reply::Events(events)) => {
                is_silent = false;
                let mut out = io::stdout().lock();
                match out.write_all(lines(cursor.as_deref(), &events)?.as_bytes()).and_then(|()| out.flush())
                {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Yes),
                    written => written?,
                }
                cursor = Some(events.cursor);
                continue;
            }
            Ok(Reply::Verdict(verdict)) => answered(verdict),
            Ok(_) => Failure::Ask { socket: cli.socket.clone(), error: AskError::Unexpected },
            // Waiting cannot change a refusal.
            Err(AskError::Refused(reason)) if reason.contains("is no cursor") => {
                return Err(Failure::Cursor(reason));
            }
            Err(error @ AskError::Refused(_)) => return Err(unanswered(cli, error)),
            Err(error) => unanswered(cli, error),
        };
        if !std::mem::replace(&mut is_silent, true) {
            complain(&format!("{problem}; trying again"));
        }
        thread::sleep(RETRY);
    }
}

/// Returns the lines for `events`, which the broker returned for the cursor `asked`.
fn lines(asked: Option<&str>, events: &Events) -> Result<String, Failure> {
    let plain = |event, cursor| Told { event, cursor, evicted: None, session: None };
    let mut told = Vec::new();
    match asked {
        None => told.push(plain("ready", &events.cursor)),
        // A reader that resumes after this line sees the gap again, and does not miss the loss.
        Some(asked) if events.gap && !events.list.is_empty() => told.push(plain("gap", asked)),
        Some(_) if events.gap => told.push(plain("gap", &events.cursor)),
        Some(_) => {}
    }
    told.extend(events.list.iter().map(|event| {
        let ended = event.session.ended.as_ref();
        Told {
            event: if ended.is_some() { "ended" } else { "opened" },
            cursor: &event.cursor,
            evicted: Some(ended.is_some_and(|ended| ended.reason.is_eviction())),
            session: Some(&event.session),
        }
    }));
    told.iter().map(show::json_line).collect()
}

/// Ends this process when its output is closed, even while there is nothing to write.
fn end_with_the_reader() {
    let out = io::stdout();
    // poll reports errors and hang-ups even if no event is requested (poll(2)).
    while let Err(rustix::io::Errno::INTR) = poll(&mut [PollFd::new(&out, PollFlags::empty())], None) {}
    std::process::exit(i32::from(Exit::Yes as u8));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::report::{EndReason, Ended, Event};

    fn session(id: &str) -> Session {
        Session {
            id: id.into(),
            user: "jörg\u{1b}[2J".into(),
            since: 1_784_000_000_000,
            ..Session::default()
        }
    }

    fn ended(reason: EndReason) -> Session {
        Session { ended: Some(Ended { at: 1, reason, detail: "x".into() }), ..session("a") }
    }

    fn events(list: &[Session], gap: bool) -> Events {
        let list: Vec<_> = list
            .iter()
            .enumerate()
            .map(|(number, session)| Event { cursor: number.to_string(), session: session.clone() })
            .collect();
        Events { list, cursor: "c".into(), gap }
    }

    /// Returns event, cursor and evicted of each line.
    fn told(asked: Option<&str>, events: &Events) -> Vec<(String, String, Option<bool>)> {
        let text = lines(asked, events).unwrap();
        assert!(!text.contains('\u{1b}'));
        text.lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["session"].is_object(), line["evicted"].is_boolean());
                let word = |name: &str| line[name].as_str().unwrap().to_owned();
                (word("event"), word("cursor"), line["evicted"].as_bool())
            })
            .collect()
    }

    #[test]
    fn each_event_is_a_line_that_can_be_gone_on_after() {
        let line = |event: &str, cursor: &str, evicted| (event.to_owned(), cursor.to_owned(), evicted);
        let cases = [
            (None, events(&[], false), vec![line("ready", "c", None)]),
            (Some("b"), events(&[], false), vec![]),
            (Some("b"), events(&[], true), vec![line("gap", "c", None)]),
            (
                Some("b"),
                events(&[session("a")], true),
                vec![line("gap", "b", None), line("opened", "0", Some(false))],
            ),
            (
                Some("b"),
                events(&[session("a"), ended(EndReason::Closed), ended(EndReason::Replaced)], false),
                vec![
                    line("opened", "0", Some(false)),
                    line("ended", "1", Some(false)),
                    line("ended", "2", Some(true)),
                ],
            ),
        ];
        for (asked, events, expected) in cases {
            assert_eq!(told(asked, &events), expected, "{asked:?} {events:?}");
        }
    }

    #[test]
    fn a_shell_gets_only_plain_words() {
        for (text, expected) in [
            ("john.doe", true),
            ("8f14e45f", true),
            ("john@acme.com", true),
            ("", false),
            ("-rf", false),
            ("a b", false),
            ("$(reboot)", false),
            ("`reboot`", false),
            ("a;b", false),
            ("a'b", false),
            ("ACME\\x", false),
            ("a\nb", false),
        ] {
            assert_eq!(is_word(text), expected, "{text:?}");
        }
    }

    #[test]
    fn people_see_who_is_logged_in_since_when() {
        let id = |end: &str| format!("8f14e45f-ceea-467f-a8b1-{end}");
        let twins = [session(&id("3c1a2e5f7d90")), session(&id("3c1a2e5f7d91"))];
        assert!(table(&twins).contains(" 8f14e45f-ceea-467f-a8b1-3c1a2e5f7d91 "), "{}", table(&twins));
        let other = Session {
            user: "x".repeat(100),
            rhost: "10.0.0.1".into(),
            host: "motion1".into(),
            ..session(&id("1"))
        };
        let wide = table(&[other, session("9f14e45f-ceea-467f-a8b1-3c1a2e5f7d91")]);
        assert!(wide.lines().all(|line| line.chars().count() <= 80), "{wide}");
        assert!(wide.contains(" 9f14e45f ") && wide.contains("…"), "{wide}");
        let text = table(&[session("8f14e45f")]);
        assert!(text.trim_start().starts_with("SESSION"), "{text}");
        assert!(text.contains("8f14e45f") && text.contains("jörg\\u{1b}[2J"), "{text}");
        assert_eq!(table(&[]), "no session is open\n");
        let text = facts(&ended(EndReason::TooOld));
        assert!(text.contains("2026-07-14T03:33:20Z") && text.contains("too_old"), "{text}");
    }
}
