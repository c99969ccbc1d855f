//! A PAM service as libpam reads it, and the decision that its lines make from the answers of their modules.
//!
//! Pure: the caller passes files and answers in. The grammar is that of pam.d(5), with Debian's `@include`;
//! the decision is libpam's (`_pam_dispatch_aux`). `tests/pam_stack.rs` compares it with libpam itself.

mod control;
mod decide;

use std::io;
use std::path::Path;

pub use self::control::Value;
use self::control::{Action, Control};
pub use self::decide::{Decision, decide};
use crate::libpam::SERVICES;

/// Maximum depth of nested includes (`PAM_SUBSTACK_MAX_LEVEL` in libpam).
const DEPTH: usize = 16;
/// The characters between words. A carriage return, as editors of Windows write it, is a part of a word.
const SPACE: [char; 3] = [' ', '\t', '\n'];
/// Maximum number of lines of one service: above any real one, and a bound on circular includes.
const RULES: usize = 500;

/// The management groups of PAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Authenticates the user.
    Auth,
    /// Checks that the account may be used.
    Account,
    /// Changes a password.
    Password,
    /// Sets a session up and tears it down.
    Session,
}

impl Kind {
    /// Its keyword on a line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Auth => "auth",
            Kind::Account => "account",
            Kind::Password => "password",
            Kind::Session => "session",
        }
    }

    /// All groups.
    pub const ALL: [Kind; 4] = [Kind::Auth, Kind::Account, Kind::Password, Kind::Session];

    fn parse(word: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(word))
    }
}

/// Role of a line in the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Module,
    /// The start of a substack, which counts as PAM_IGNORE.
    Substack,
    /// A line that libpam cannot parse, and so rejects.
    Broken,
}

/// One effective line, with all includes resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The line's management group.
    pub kind: Kind,
    /// The line's file.
    pub file: String,
    /// Its number in that file, from 1.
    pub line: usize,
    /// Number of the line in the service's own file: of itself, or of the line that includes its file.
    pub top: usize,
    /// True after a leading `-`: libpam does not log that the module is missing, but still rejects.
    pub silent: bool,
    /// The module, as written.
    pub module: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The control, as written.
    pub written: String,
    role: Role,
    control: Control,
    depth: usize,
}

impl Rule {
    /// The module's file name.
    pub fn name(&self) -> &str {
        self.module.rsplit('/').next().unwrap_or_default()
    }

    /// File and line, for a message.
    pub fn place(&self) -> String {
        format!("{}, line {}", self.file, self.line)
    }

    /// Returns true if the line calls a module.
    pub fn is_module(&self) -> bool {
        self.role == Role::Module
    }

    /// Returns the maximum number of lines that libpam skips because of an answer of its module.
    pub fn jump(&self) -> usize {
        self.control.jump()
    }

    /// Returns true if no answer of its module has an effect on the decision.
    pub fn ignores(&self) -> bool {
        self.is_module() && self.control.ignores(false)
    }

    /// Returns true if no rejection by its module has an effect on the decision.
    pub fn ignores_rejections(&self) -> bool {
        self.is_module() && self.control.ignores(true)
    }

    /// Returns true if the stack rejects the user after its module has answered `value`.
    pub fn refuses(&self, value: Value) -> bool {
        matches!(self.control.action(value), Action::Bad | Action::Die)
    }

    /// Returns true if its module's success can end the stack or skip the lines behind it.
    pub fn can_end(&self) -> bool {
        matches!(self.control.action(Value::SUCCESS), Action::Done | Action::Jump(_))
    }
}

/// A line or file that libpam cannot parse. A login that reaches it is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The line in it, from 1; `None` if the file itself is at fault.
    pub line: Option<usize>,
    /// The problem.
    pub text: String,
    /// True if libpam does not even start (PAM_ABORT).
    pub is_fatal: bool,
}

/// A service with all of its includes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its lines in order.
    pub rules: Vec<Rule>,
    /// Its faults.
    pub faults: Vec<Fault>,
    /// The files that were read for it.
    pub files: Vec<String>,
}

impl Service {
    /// Reads `/etc/pam.d/NAME` and all that it includes; `read` reads one file.
    pub fn load(name: &str, read: &dyn Fn(&Path) -> io::Result<String>) -> Self {
        let mut reader = Reader { read, service: Service::default() };
        if let Err(error) = reader.file(name, None, Within::default()) {
            let text = error.to_string();
            reader.service.faults.push(Fault { file: full(name), line: None, text, is_fatal: true });
        }
        reader.service
    }

    /// Returns the lines for `kind`.
    pub fn stack(&self, kind: Kind) -> Vec<&Rule> {
        self.rules.iter().filter(|rule| rule.kind == kind).collect()
    }
}

struct Reader<'a> {
    read: &'a dyn Fn(&Path) -> io::Result<String>,
    service: Service,
}

/// Returns the path of a service or an included file.
fn full(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("{SERVICES}/{name}") }
}

/// Returns true if libpam finds a module's name in its path: the file's name up to the last dot.
fn is_named(module: &str) -> bool {
    let file = module.rsplit('/').next().unwrap_or_default();
    let name = file.rsplit_once('.').map_or(file, |(name, _)| name);
    !["", "?"].contains(&name)
}

impl Reader<'_> {
    /// Reads the lines of one file; only those of kind `only` if a line of that kind includes it.
    fn file(&mut self, name: &str, only: Option<Kind>, within: Within) -> io::Result<()> {
        let file = full(name);
        if within.includes > DEPTH {
            return Err(io::Error::other(format!("more than {DEPTH} files include each other")));
        }
        let text = (self.read)(Path::new(&file))
            .map_err(|e| io::Error::new(e.kind(), format!("{file} cannot be read: {e}")))?;
        if !self.service.files.contains(&file) {
            self.service.files.push(file.clone());
        }
        let (lines, open) = assemble(&text);
        for (line, text) in lines {
            if self.service.rules.len() >= RULES {
                return Err(io::Error::other(format!("the service has more than {RULES} lines")));
            }
            let top = if within.includes == 0 { line } else { within.top };
            self.line(Place { file: &file, line, within: Within { top, ..within } }, &text, only)?;
        }
        match open {
            Some(line) => Err(io::Error::other(format!("line {line} of {file} goes on, and the file ends"))),
            None => Ok(()),
        }
    }

    /// Parses one line. An error makes the whole file invalid.
    fn line(&mut self, at: Place<'_>, text: &str, only: Option<Kind>) -> io::Result<()> {
        let mut words = words(text).into_iter();
        let Some(first) = words.next() else { return Ok(()) };
        if first.eq_ignore_ascii_case("@include") {
            let name = words.next().unwrap_or_default();
            return match (self.file(&name, only, at.within.include(false)), only) {
                (Ok(()), _) => Ok(()),
                // libpam cannot replace the include by a line that rejects, because that would need a kind.
                (Err(error), None) => Err(error),
                (Err(error), Some(kind)) => {
                    self.service.rules.push(at.broken(kind));
                    self.fault(at, error.to_string());
                    Ok(())
                }
            };
        }
        let (silent, word) = match first.strip_prefix('-') {
            Some(word) => (true, word),
            None => (false, first.as_str()),
        };
        // libpam takes an unknown kind for the most sensitive one, and reads the rest of the line.
        let known = Kind::parse(word);
        let kind = known.or(only).unwrap_or(Kind::Auth);
        if only.is_some_and(|only| only != kind) {
            return Ok(());
        }
        if known.is_none() {
            let [auth, account, password, session] = Kind::ALL.map(Kind::name);
            self.fault(at, format!("{word:?} is none of {auth}, {account}, {password}, {session}"));
        }
        let (written, module) = (words.next(), words.next());
        let has_module = module.is_some();
        let (written, module) = (written.unwrap_or_default(), module.unwrap_or_default());
        let rule = Rule { silent, module, arguments: words.collect(), written, ..at.broken(kind) };
        let is_substack = rule.written.eq_ignore_ascii_case("substack");
        if is_substack || rule.written.eq_ignore_ascii_case("include") {
            let name = rule.module.clone();
            if is_substack {
                self.service.rules.push(Rule {
                    role: Role::Substack,
                    control: Control::all(Action::Ignore),
                    ..rule
                });
            }
            if let Err(error) = self.file(&name, Some(kind), at.within.include(is_substack)) {
                self.service.rules.push(at.broken(kind));
                self.fault(at, error.to_string());
            }
            return Ok(());
        }
        if has_module && !is_named(&rule.module) {
            let Place { file, line, .. } = at;
            let text = format!("line {line} of {file}: {:?} leaves no name for a module", rule.module);
            return Err(io::Error::other(text));
        }
        let control = Control::keyword(&rule.written).or_else(|| Control::list(&rule.written));
        match &control {
            None => self.fault(at, format!("{:?} is no control", rule.written)),
            Some(_) if !has_module => self.fault(at, "no module is named".to_owned()),
            Some(_) => {}
        }
        // A module is called whatever the control; without one, libpam's rejection is subject to the control.
        let role = if has_module && known.is_some() { Role::Module } else { Role::Broken };
        let control = control.unwrap_or(Control::all(Action::Bad));
        self.service.rules.push(Rule { role, control, ..rule });
        Ok(())
    }

    /// Records a fault of one line; the lines after it still count.
    fn fault(&mut self, at: Place<'_>, text: String) {
        let (file, line) = (at.file.to_owned(), Some(at.line));
        self.service.faults.push(Fault { file, line, text, is_fatal: false });
    }
}

/// The chain of includes that leads to a file.
#[derive(Clone, Copy, Default)]
struct Within {
    /// Line of the service's own file.
    top: usize,
    includes: usize,
    /// Number of substacks among the includes.
    depth: usize,
}

impl Within {
    fn include(self, is_substack: bool) -> Self {
        Within { includes: self.includes + 1, depth: self.depth + usize::from(is_substack), ..self }
    }
}

/// Position of a line.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    line: usize,
    within: Within,
}

impl Place<'_> {
    /// Returns a line that rejects.
    fn broken(self, kind: Kind) -> Rule {
        Rule {
            kind,
            file: self.file.to_owned(),
            line: self.line,
            top: self.within.top,
            silent: false,
            module: String::new(),
            arguments: Vec::new(),
            written: String::new(),
            role: Role::Broken,
            control: Control::all(Action::Bad),
            depth: self.within.depth,
        }
    }
}

/// Returns the lines with their numbers, without comments, each joined with its continuations; and the start
/// of a line that continues beyond the end of the file.
fn assemble(text: &str) -> (Vec<(usize, String)>, Option<usize>) {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let line = line.trim_start_matches(SPACE);
        // A comment or an empty line, which may also interrupt a continued one.
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (line, cut) = match line.split_once('#') {
            Some((line, _)) => (line, true),
            None => (line, false),
        };
        let (begun, mut whole) = open.take().unwrap_or((number, String::new()));
        // Otherwise the line's end stays: in a bracket that is not closed it is a part of the word.
        match line.trim_end_matches(SPACE).strip_suffix('\\').filter(|_| !cut) {
            Some(line) => {
                whole.push_str(line);
                whole.push(' ');
                open = Some((begun, whole));
            }
            None => {
                whole.push_str(line);
                lines.push((begun, whole));
            }
        }
    }
    (lines, open.map(|(begun, _)| begun))
}

/// Splits a line into words. Text in brackets is one word without the brackets; `\]` is a bracket in it.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(SPACE);
    while let Some(first) = rest.chars().next() {
        let end;
        if first == '[' {
            let mut word = String::new();
            let mut escaped = false;
            let mut length = 1;
            for c in rest.chars().skip(1) {
                length += c.len_utf8();
                match (c, escaped) {
                    (']', false) => break,
                    (']', true) => {
                        word.pop();
                        word.push(']');
                    }
                    (c, _) => word.push(c),
                }
                escaped = c == '\\';
            }
            words.push(word);
            end = length;
        } else {
            end = rest.find(SPACE).unwrap_or(rest.len());
            words.push(rest.get(..end).unwrap_or_default().to_owned());
        }
        rest = rest.get(end..).unwrap_or_default().trim_start_matches(SPACE);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Reads the first of these files as a service; each has a name and a text.
    pub(super) fn service(files: &[(&str, &str)]) -> Service {
        let files: HashMap<String, String> =
            files.iter().map(|(name, text)| (full(name), (*text).to_owned())).collect();
        Service::load("motion", &|path| {
            let found = files.get(path.to_str().unwrap_or_default());
            found.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    /// The modules of a stack, in order.
    fn names(service: &Service, kind: Kind) -> Vec<&str> {
        service.stack(kind).iter().map(|rule| rule.name()).collect()
    }

    #[test]
    fn lines_as_people_write_them() {
        let text = "# comment\n\n\tauth\trequired pam_a.so x=1 [y z=\\]] # more\n\
            -account  [success=1 default=ignore] /lib/security/pam_b.so\n\
            SESSION Optional pam_c.so \\\n   # within\n  debug\n";
        let read = service(&[("motion", text)]);
        assert_eq!(read.faults, []);
        let [a, b, c] = read.rules.as_slice() else { panic!("{read:?}") };
        assert_eq!(
            (a.line, a.name(), a.arguments.as_slice()),
            (3, "pam_a.so", &["x=1".into(), "y z=]".into()][..])
        );
        assert_eq!((b.line, b.silent, b.name()), (4, true, "pam_b.so"));
        assert_eq!(b.written, "success=1 default=ignore");
        assert_eq!((c.kind, c.line, c.arguments.as_slice()), (Kind::Session, 5, &["debug".to_owned()][..]));
    }

    #[test]
    fn includes_bring_every_kind_or_one() {
        let all = "auth required pam_x.so\naccount required pam_y.so\n";
        let read = service(&[
            ("motion", "@include all\nauth include all\nauth substack /etc/pam.d/all\n"),
            ("all", all),
        ]);
        assert_eq!(read.faults, []);
        assert_eq!(names(&read, Kind::Auth), ["pam_x.so", "pam_x.so", "all", "pam_x.so"]);
        assert_eq!(names(&read, Kind::Account), ["pam_y.so"]);
        assert_eq!(read.files, ["/etc/pam.d/motion", "/etc/pam.d/all"]);
        assert_eq!(read.rules.last().unwrap().depth, 1);
    }

    #[test]
    fn what_libpam_cannot_understand_is_named_and_refuses() {
        let cases = [
            ("auth required\n", Some(1), "no module"),
            ("\nauth perhaps pam_a.so\n", Some(2), "\"perhaps\" is no control"),
            ("auth [success=no] pam_a.so\n", Some(1), "is no control"),
            ("auth [victory=ok] pam_a.so\n", Some(1), "is no control"),
            ("author required pam_a.so\n", Some(1), "none of auth"),
            ("@include absent\n", None, "/etc/pam.d/absent cannot be read"),
            ("auth include absent\n", Some(1), "/etc/pam.d/absent"),
            ("auth required pam_a.so\nauth required \\\n", None, "line 2 of /etc/pam.d/motion goes on"),
            ("auth include motion\n", Some(1), "include each other"),
            ("auth required .so\n", None, "line 1 of /etc/pam.d/motion: \".so\" leaves no name"),
            ("auth required /lib/security/?.so\n", None, "leaves no name"),
            ("auth required /lib/security/\n", None, "leaves no name"),
        ];
        for (text, line, part) in cases {
            let read = service(&[("motion", text)]);
            let fault = read.faults.first().unwrap_or_else(|| panic!("{text}"));
            assert_eq!(fault.line, line, "{text}");
            assert!(fault.text.contains(part), "{text}: {fault:?}");
            let decision = decide(&read.stack(Kind::Auth), &|_| Value::SUCCESS);
            assert!(fault.is_fatal || !decision.is_success(), "{text}");
        }
        assert!(service(&[]).faults[0].text.contains("cannot be read"));
    }

    #[test]
    fn words_end_where_libpam_ends_them() {
        // A line as an editor of Windows ends it, and words that a non-breaking space separates.
        let read = service(&[("motion", "auth required pam_a.so\r\nauth\u{a0}required pam_b.so\n")]);
        assert_eq!(read.rules[0].module, "pam_a.so\r");
        assert!(read.faults[0].text.contains("none of auth"), "{:?}", read.faults);
    }

    #[test]
    fn files_that_include_each_other_end() {
        let twice = "auth include motion\nauth include motion\nauth required pam_a.so\n";
        let read = service(&[("motion", twice)]);
        assert!(read.rules.len() <= RULES + DEPTH, "{}", read.rules.len());
    }
}
