//! A PAM service as libpam reads it, and what its lines make of the answers of their modules.
//!
//! Pure: files and answers are passed in. The grammar is that of pam.d(5), with Debian's `@include`; the decision is
//! libpam's own (`_pam_dispatch_aux`), which `tests/pam_stack.rs` compares with libpam itself.

use std::io;
use std::path::Path;

/// The folder of the services.
pub const SERVICES: &str = "/etc/pam.d";

/// Includes within includes (`PAM_SUBSTACK_MAX_LEVEL` in libpam).
const DEPTH: usize = 16;
/// The most lines of one service: more than any has, and a bound on files that include each other again and again.
const RULES: usize = 500;

/// The values that a module answers and a control may name, by their number in libpam (`_pam_types.h`).
const VALUES: [&str; 32] = [
    "success",
    "open_err",
    "symbol_err",
    "service_err",
    "system_err",
    "buf_err",
    "perm_denied",
    "auth_err",
    "cred_insufficient",
    "authinfo_unavail",
    "user_unknown",
    "maxtries",
    "new_authtok_reqd",
    "acct_expired",
    "session_err",
    "cred_unavail",
    "cred_expired",
    "cred_err",
    "no_module_data",
    "conv_err",
    "authtok_err",
    "authtok_recover_err",
    "authtok_lock_busy",
    "authtok_disable_aging",
    "try_again",
    "ignore",
    "abort",
    "authtok_expired",
    "module_unknown",
    "bad_item",
    "conv_again",
    "incomplete",
];

/// What a module answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value(u8);

impl Value {
    /// PAM_SUCCESS
    pub const SUCCESS: Value = Value(0);
    /// PAM_PERM_DENIED, which is also libpam's answer where nothing decides (`PAM_MUST_FAIL_CODE`).
    pub const PERM_DENIED: Value = Value(6);
    /// PAM_AUTH_ERR
    pub const AUTH_ERR: Value = Value(7);
    /// PAM_USER_UNKNOWN
    pub const USER_UNKNOWN: Value = Value(10);
    /// PAM_MODULE_UNKNOWN, which libpam answers in place of a module that is missing.
    pub const MODULE_UNKNOWN: Value = Value(28);
    /// PAM_IGNORE
    pub const IGNORE: Value = Value(25);

    /// The value with this number.
    pub fn of(number: i32) -> Option<Self> {
        let number = u8::try_from(number).ok()?;
        VALUES.get(usize::from(number)).map(|_| Value(number))
    }

    /// Its name in libpam's header.
    pub fn name(self) -> String {
        let name = VALUES.get(usize::from(self.0)).copied().unwrap_or_default();
        format!("PAM_{}", name.to_uppercase())
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

/// The four management groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who is it?
    Auth,
    /// May the account be used?
    Account,
    /// Changes of a password.
    Password,
    /// Before and after.
    Session,
}

impl Kind {
    /// Its name on a line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Auth => "auth",
            Kind::Account => "account",
            Kind::Password => "password",
            Kind::Session => "session",
        }
    }

    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Auth, Kind::Account, Kind::Password, Kind::Session];

    fn parse(word: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(word))
    }
}

/// What an answer does to the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Ignore,
    Ok,
    Done,
    Bad,
    Die,
    Reset,
    Jump(usize),
}

/// The action of each value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Control([Action; VALUES.len()]);

impl Control {
    /// The same for every value.
    fn all(action: Action) -> Self {
        Control([action; VALUES.len()])
    }

    /// One of the keywords (pam.d(5) gives each as a list of values).
    fn keyword(word: &str) -> Option<Self> {
        let (success, expired, default) = match word.to_ascii_lowercase().as_str() {
            "required" => (Action::Ok, Action::Ok, Action::Bad),
            "requisite" => (Action::Ok, Action::Ok, Action::Die),
            "sufficient" => (Action::Done, Action::Done, Action::Ignore),
            "optional" => (Action::Ok, Action::Ok, Action::Ignore),
            _ => return None,
        };
        let mut actions = [default; VALUES.len()];
        actions[usize::from(Value::SUCCESS.0)] = success;
        // new_authtok_reqd
        actions[12] = expired;
        actions[usize::from(Value::IGNORE.0)] = Action::Ignore;
        Some(Control(actions))
    }

    /// `value=action …` from between brackets. What is not named is bad.
    fn list(text: &str) -> Option<Self> {
        let mut actions = [None; VALUES.len()];
        let mut default = Action::Bad;
        for pair in text.split_whitespace() {
            let (value, action) = pair.split_once('=')?;
            let action = match action {
                "ignore" => Action::Ignore,
                "ok" => Action::Ok,
                "done" => Action::Done,
                "bad" => Action::Bad,
                "die" => Action::Die,
                "reset" => Action::Reset,
                number => Action::Jump(number.parse().ok().filter(|jump| *jump > 0)?),
            };
            match VALUES.iter().position(|known| *known == value) {
                Some(index) => *actions.get_mut(index)? = Some(action),
                None if value == "default" => default = action,
                None => return None,
            }
        }
        Some(Control(actions.map(|action| action.unwrap_or(default))))
    }

    fn action(&self, value: Value) -> Action {
        self.0.get(usize::from(value.0)).copied().unwrap_or(Action::Bad)
    }
}

/// What a line stands for in the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Module,
    /// The beginning of a substack; it answers PAM_IGNORE.
    Substack,
    /// libpam could not understand it, and refuses.
    Broken,
}

/// One line that counts, after every include.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The group that it is for.
    pub kind: Kind,
    /// Where it stands.
    pub file: String,
    /// Its line there, from 1.
    pub line: usize,
    /// `-` stands before it: libpam does not log that the module is missing. It refuses all the same.
    pub silent: bool,
    /// The module as written.
    pub module: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The control as written.
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

    /// Where it stands, for people.
    pub fn place(&self) -> String {
        format!("{}, line {}", self.file, self.line)
    }

    /// Whether it calls a module.
    pub fn is_module(&self) -> bool {
        self.role == Role::Module
    }
}

/// What libpam cannot understand. Such a line refuses whoever comes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub file: String,
    /// The line there, from 1; none where the file itself is at fault.
    pub line: Option<usize>,
    /// What is wrong.
    pub text: String,
    /// libpam does not even begin (PAM_ABORT).
    pub is_fatal: bool,
}

/// A service with all that it includes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its lines in order.
    pub rules: Vec<Rule>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
    /// The files that were read.
    pub files: Vec<String>,
}

impl Service {
    /// Reads `/etc/pam.d/NAME` with everything that it includes; `read` reads a file.
    pub fn load(name: &str, read: &dyn Fn(&Path) -> io::Result<String>) -> Self {
        let mut reader = Reader { read, service: Service::default() };
        if let Err(error) = reader.file(name, None, 0, 0) {
            let text = error.to_string();
            reader.service.faults.push(Fault { file: full(name), line: None, text, is_fatal: true });
        }
        reader.service
    }

    /// The lines for `kind`.
    pub fn stack(&self, kind: Kind) -> Vec<&Rule> {
        self.rules.iter().filter(|rule| rule.kind == kind).collect()
    }
}

struct Reader<'a> {
    read: &'a dyn Fn(&Path) -> io::Result<String>,
    service: Service,
}

/// The path of a service or of a file that is included.
fn full(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("{SERVICES}/{name}") }
}

impl Reader<'_> {
    /// Reads the lines of one file; of `only` one kind, where a line of that kind includes it.
    fn file(&mut self, name: &str, only: Option<Kind>, includes: usize, depth: usize) -> io::Result<()> {
        let file = full(name);
        if includes > DEPTH {
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
            self.line(Place { file: &file, line, includes, depth }, &text, only)?;
        }
        match open {
            Some(line) => Err(io::Error::other(format!("line {line} of {file} goes on, and the file ends"))),
            None => Ok(()),
        }
    }

    /// Takes one line. What is an error here is one of the whole file.
    fn line(&mut self, at: Place<'_>, text: &str, only: Option<Kind>) -> io::Result<()> {
        let mut words = words(text).into_iter();
        let Some(first) = words.next() else { return Ok(()) };
        if first.eq_ignore_ascii_case("@include") {
            let name = words.next().unwrap_or_default();
            return match (self.file(&name, only, at.includes + 1, at.depth), only) {
                (Ok(()), _) => Ok(()),
                // libpam has no kind for a line that refuses instead.
                (Err(error), None) => Err(error),
                (Err(error), Some(kind)) => {
                    self.service.rules.push(at.broken(kind));
                    self.fault(at, error.to_string())
                }
            };
        }
        let (silent, word) = match first.strip_prefix('-') {
            Some(word) => (true, word),
            None => (false, first.as_str()),
        };
        let Some(kind) = Kind::parse(word) else {
            // libpam takes it for what is most sensitive.
            self.service.rules.push(at.broken(only.unwrap_or(Kind::Auth)));
            let [auth, account, password, session] = Kind::ALL.map(Kind::name);
            return self.fault(at, format!("{word:?} is none of {auth}, {account}, {password}, {session}"));
        };
        if only.is_some_and(|only| only != kind) {
            return Ok(());
        }
        let written = words.next().unwrap_or_default();
        let module = words.next().unwrap_or_default();
        let rule = Rule { silent, module, arguments: words.collect(), written, ..at.broken(kind) };
        let is_substack = rule.written.eq_ignore_ascii_case("substack");
        if is_substack || rule.written.eq_ignore_ascii_case("include") {
            let (name, depth) = (rule.module.clone(), at.depth + usize::from(is_substack));
            if is_substack {
                self.service.rules.push(Rule {
                    role: Role::Substack,
                    control: Control::all(Action::Ignore),
                    ..rule
                });
            }
            return match self.file(&name, Some(kind), at.includes + 1, depth) {
                Ok(()) => Ok(()),
                Err(error) => {
                    self.service.rules.push(at.broken(kind));
                    self.fault(at, error.to_string())
                }
            };
        }
        match Control::keyword(&rule.written).or_else(|| Control::list(&rule.written)) {
            Some(control) if !rule.module.is_empty() => {
                self.service.rules.push(Rule { role: Role::Module, control, ..rule });
            }
            control => {
                let text = match control {
                    Some(_) => "no module is named".to_owned(),
                    None => format!("{:?} is no control", rule.written),
                };
                self.service.rules.push(rule);
                return self.fault(at, text);
            }
        }
        Ok(())
    }

    /// Notes what is wrong with a line; the next ones are read all the same.
    fn fault(&mut self, at: Place<'_>, text: String) -> io::Result<()> {
        let (file, line) = (at.file.to_owned(), Some(at.line));
        self.service.faults.push(Fault { file, line, text, is_fatal: false });
        Ok(())
    }
}

/// Where a line is met.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    line: usize,
    includes: usize,
    depth: usize,
}

impl Place<'_> {
    /// A line that refuses.
    fn broken(self, kind: Kind) -> Rule {
        Rule {
            kind,
            file: self.file.to_owned(),
            line: self.line,
            silent: false,
            module: String::new(),
            arguments: Vec::new(),
            written: String::new(),
            role: Role::Broken,
            control: Control::all(Action::Bad),
            depth: self.depth,
        }
    }
}

/// The lines with their numbers, comments taken off, and those that end in a backslash joined to the next; and where
/// one begins that goes on beyond the end.
fn assemble(text: &str) -> (Vec<(usize, String)>, Option<usize>) {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        // A comment or an empty line, also within a continued one.
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (line, cut) = match line.split_once('#') {
            Some((line, _)) => (line, true),
            None => (line.trim_end(), false),
        };
        let (begun, mut whole) = open.take().unwrap_or((number, String::new()));
        match line.strip_suffix('\\').filter(|_| !cut) {
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

/// The words of a line; what stands between brackets is one word without them, in which `\]` is a bracket.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
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
            end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(rest.get(..end).unwrap_or_default().to_owned());
        }
        rest = rest.get(end..).unwrap_or_default().trim_start();
    }
    words
}

/// What libpam decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its answer to the application.
    pub value: Value,
    /// The lines whose modules were called, by their index.
    pub called: Vec<usize>,
}

impl Decision {
    /// Whether the person comes in.
    pub fn is_success(&self) -> bool {
        self.value == Value::SUCCESS
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Impression {
    Undefined,
    Positive,
    Negative,
}

/// Goes through `stack` as libpam does, its modules answering by `answer`.
pub fn decide(stack: &[&Rule], answer: &dyn Fn(&Rule) -> Value) -> Decision {
    let mut called = Vec::new();
    let mut state = (Impression::Undefined, Value::PERM_DENIED);
    // What held when each level was entered.
    let mut entered = [state; DEPTH + 2];
    let mut previous = 0;
    let mut index = 0;
    let depth_at = |index: usize| stack.get(index).map(|rule| rule.depth);
    while let Some(rule) = stack.get(index) {
        let depth = rule.depth;
        if previous < depth
            && let Some(slot) = entered.get_mut(depth)
        {
            *slot = state;
        }
        previous = depth;
        let value = match rule.role {
            Role::Module => {
                called.push(index);
                answer(rule)
            }
            Role::Substack => Value::IGNORE,
            Role::Broken => Value::PERM_DENIED,
        };
        let mut decided = false;
        match rule.control.action(value) {
            Action::Ignore => {}
            Action::Reset => state = entered.get(depth).copied().unwrap_or(state),
            action @ (Action::Ok | Action::Done) => {
                let open =
                    state.0 == Impression::Undefined || state == (Impression::Positive, Value::SUCCESS);
                if open {
                    state = (Impression::Positive, value);
                }
                decided = action == Action::Done && state.0 == Impression::Positive;
            }
            action @ (Action::Bad | Action::Die) => {
                if state.0 != Impression::Negative {
                    let value = if value == Value::IGNORE { Value::PERM_DENIED } else { value };
                    state = (Impression::Negative, value);
                }
                decided = action == Action::Die;
            }
            Action::Jump(mut left) => {
                while left > 0 && depth_at(index + 1).is_some_and(|next| next >= depth) {
                    index += 1;
                    // A substack is skipped as one.
                    while depth_at(index + 1).is_some_and(|next| next > depth) {
                        index += 1;
                    }
                    left -= 1;
                }
                if left > 0 {
                    state = (Impression::Negative, Value::PERM_DENIED);
                }
            }
        }
        if decided {
            while depth_at(index + 1).is_some_and(|next| next >= depth) {
                index += 1;
            }
        }
        index += 1;
    }
    let value = match state {
        (Impression::Positive, value) => value,
        (_, Value::SUCCESS) => Value::PERM_DENIED,
        (_, value) => value,
    };
    Decision { value, called }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A service of these files, by name; the first is the service.
    fn service(files: &[(&str, &str)]) -> Service {
        let files: HashMap<String, String> =
            files.iter().map(|(name, text)| (full(name), (*text).to_owned())).collect();
        Service::load("motion", &|path| {
            let found = files.get(path.to_str().unwrap_or_default());
            found.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    /// The modules of a stack that is a service of its own.
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
    fn files_that_include_each_other_end() {
        let twice = "auth include motion\nauth include motion\nauth required pam_a.so\n";
        let read = service(&[("motion", twice)]);
        assert!(read.rules.len() <= RULES + DEPTH, "{}", read.rules.len());
    }

    /// What comes of a stack whose modules answer by the first letter of their name: s, f, i, u.
    fn outcome(files: &[(&str, &str)]) -> String {
        let read = service(files);
        let stack = read.stack(Kind::Auth);
        let decision = decide(&stack, &|rule| match rule.module.as_bytes() {
            [b's', ..] => Value::SUCCESS,
            [b'f', ..] => Value::AUTH_ERR,
            [b'u', ..] => Value::USER_UNKNOWN,
            _ => Value::IGNORE,
        });
        let called = decision.called.iter().map(|index| stack[*index].name()).collect::<Vec<_>>();
        format!("{:?} {}", decision.value, called.join(" "))
    }

    #[test]
    fn decisions_as_in_the_manual() {
        let cases = [
            ("", "PAM_PERM_DENIED "),
            ("auth required s\n", "PAM_SUCCESS s"),
            ("auth required f\nauth required s\n", "PAM_AUTH_ERR f s"),
            ("auth requisite f\nauth required s\n", "PAM_AUTH_ERR f"),
            ("auth sufficient s\nauth required f\n", "PAM_SUCCESS s"),
            ("auth sufficient f\nauth required s\n", "PAM_SUCCESS f s"),
            ("auth required f\nauth sufficient s\nauth required u\n", "PAM_AUTH_ERR f s u"),
            ("auth optional f\n", "PAM_PERM_DENIED f"),
            ("auth optional s\n", "PAM_SUCCESS s"),
            ("auth required i\n", "PAM_PERM_DENIED i"),
            ("auth [success=1 default=ignore] s\nauth requisite f\nauth required s2\n", "PAM_SUCCESS s s2"),
            ("auth [success=1 default=ignore] f\nauth requisite f2\nauth required s\n", "PAM_AUTH_ERR f f2"),
            ("auth [success=2 default=ignore] s\nauth required s2\n", "PAM_PERM_DENIED s"),
            ("auth [success=ok] u\n", "PAM_USER_UNKNOWN u"),
            ("auth required s\nauth [default=reset] f\n", "PAM_PERM_DENIED s f"),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&[("motion", text)]), expected, "{text}");
        }
    }

    #[test]
    fn the_end_of_a_substack_is_not_the_end_of_its_stack() {
        let sub = [("sub", "auth sufficient s\nauth required f\n")];
        let with = |text| outcome(&[&[("motion", text)], &sub[..]].concat());
        assert_eq!(with("auth substack sub\nauth required f2\n"), "PAM_AUTH_ERR s f2");
        assert_eq!(with("auth include sub\nauth required f2\n"), "PAM_SUCCESS s");
        assert_eq!(with("auth [success=1] s\nauth substack sub\nauth required s2\n"), "PAM_SUCCESS s s2");
        assert_eq!(with("auth required s0\nauth substack sub\nauth required s2\n"), "PAM_SUCCESS s0 s s2");
    }
}
