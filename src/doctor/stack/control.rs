//! The answers of modules, and the action that a control takes on each.

/// Answers of modules, which a control may name, at their numbers in libpam (`_pam_types.h`).
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

/// Answer of a module.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value(u8);

impl Value {
    /// PAM_SUCCESS
    pub const SUCCESS: Value = Value(0);
    /// PAM_PERM_DENIED, which is also libpam's answer if no line decides (`PAM_MUST_FAIL_CODE`).
    pub const PERM_DENIED: Value = Value(6);
    /// PAM_AUTHINFO_UNAVAIL
    pub const AUTHINFO_UNAVAIL: Value = Value(9);
    /// PAM_AUTH_ERR
    pub const AUTH_ERR: Value = Value(7);
    /// PAM_USER_UNKNOWN
    pub const USER_UNKNOWN: Value = Value(10);
    /// PAM_MODULE_UNKNOWN, which libpam answers for a missing module.
    pub const MODULE_UNKNOWN: Value = Value(28);
    /// PAM_IGNORE
    pub const IGNORE: Value = Value(25);

    /// Returns the value with this number.
    pub fn of(number: i32) -> Option<Self> {
        let number = u8::try_from(number).ok()?;
        VALUES.get(usize::from(number)).map(|_| Value(number))
    }

    /// Returns its name in libpam's header.
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

/// Effect of an answer on the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Ignore,
    Ok,
    Done,
    Bad,
    Die,
    Reset,
    Jump(usize),
}

/// Returns `text` without its leading spaces, as C's `isspace` knows them.
fn unspaced(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r'])
}

/// Returns the action that `text` begins with, and the text after it.
fn action(text: &str) -> Option<(Action, &str)> {
    let words = [
        ("ignore", Action::Ignore),
        ("ok", Action::Ok),
        ("done", Action::Done),
        ("bad", Action::Bad),
        ("die", Action::Die),
        ("reset", Action::Reset),
    ];
    if let Some(found) = words.iter().find_map(|(word, action)| Some((*action, text.strip_prefix(word)?))) {
        return Some(found);
    }
    let after = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.strip_suffix(after).filter(|digits| !digits.is_empty())?;
    // A number beyond every stack, too.
    let lines = digits.parse().unwrap_or(usize::MAX);
    (lines > 0).then_some((Action::Jump(lines), after))
}

/// Number of `new_authtok_reqd`.
const EXPIRED: usize = 12;

/// An action for each value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Control([Action; VALUES.len()]);

impl Control {
    /// The same action for every value.
    pub(super) fn all(action: Action) -> Self {
        Control([action; VALUES.len()])
    }

    /// Parses a keyword, which pam.d(5) defines as a list of values.
    pub(super) fn keyword(word: &str) -> Option<Self> {
        let (success, expired, default) = match word.to_ascii_lowercase().as_str() {
            "required" => (Action::Ok, Action::Ok, Action::Bad),
            "requisite" => (Action::Ok, Action::Ok, Action::Die),
            "sufficient" => (Action::Done, Action::Done, Action::Ignore),
            "optional" => (Action::Ok, Action::Ok, Action::Ignore),
            _ => return None,
        };
        let (succeeded, ignored) = (usize::from(Value::SUCCESS.0), usize::from(Value::IGNORE.0));
        let action = |value| match value {
            EXPIRED => expired,
            value if value == succeeded => success,
            value if value == ignored => Action::Ignore,
            _ => default,
        };
        Some(Control(std::array::from_fn(action)))
    }

    /// Parses `value=action …` from between brackets, as libpam does (`_pam_parse_control`): spaces are
    /// optional, the first `default` counts, and values that are not named are bad.
    pub(super) fn list(text: &str) -> Option<Self> {
        let mut actions = [None; VALUES.len()];
        let mut rest = unspaced(text);
        while !rest.is_empty() {
            let known = VALUES.iter().enumerate();
            let named =
                known.into_iter().find_map(|(index, name)| Some((Some(index), rest.strip_prefix(name)?)));
            let (value, after) = named.or_else(|| Some((None, rest.strip_prefix("default")?)))?;
            let (action, after) = action(unspaced(unspaced(after).strip_prefix('=')?))?;
            match value {
                Some(index) => *actions.get_mut(index)? = Some(action),
                None => actions.iter_mut().for_each(|slot| *slot = slot.or(Some(action))),
            }
            rest = unspaced(after);
        }
        Some(Control(actions.map(|action| action.unwrap_or(Action::Bad))))
    }

    /// Returns the length of its longest jump.
    pub(super) fn jump(&self) -> usize {
        let jumps = self.0.iter().filter_map(|action| match action {
            Action::Jump(lines) => Some(*lines),
            _ => None,
        });
        jumps.max().unwrap_or_default()
    }

    /// Returns true if no answer has an effect, or none that rejects.
    pub(super) fn ignores(&self, rejections_only: bool) -> bool {
        let admits = |value: usize| value == usize::from(Value::SUCCESS.0) || value == EXPIRED;
        let mut actions = self.0.iter().enumerate();
        actions.all(|(value, action)| *action == Action::Ignore || (rejections_only && admits(value)))
    }

    pub(super) fn action(&self, value: Value) -> Action {
        self.0.get(usize::from(value.0)).copied().unwrap_or(Action::Bad)
    }
}
