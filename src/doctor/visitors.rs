//! The effect of a PAM service's lines on users: they should admit the users of AD and no other user, and
//! send no password to AD twice. Pure: the caller passes the service in.

use std::collections::BTreeSet;

use super::stack::{Decision, Kind, Rule, Service, Value, decide};

/// File name of our module.
pub(super) const MODULE: &str = "pam_motion_ad.so";

/// Modules with a missing file.
pub(super) type Missing = BTreeSet<String>;

/// Returns true if the line calls our module.
pub(super) fn is_ours(rule: &Rule) -> bool {
    rule.is_module() && rule.name() == MODULE
}

/// Returns the lines of `services` that call our module. A file that several services include has its lines
/// in each of them, and they are returned once.
pub(super) fn ours<'a>(services: impl IntoIterator<Item = &'a Service>) -> Vec<&'a Rule> {
    let mut rules: Vec<&Rule> = Vec::new();
    for rule in services.into_iter().flat_map(|service| &service.rules).filter(|rule| is_ours(rule)) {
        if !rules.iter().any(|known| known.place() == rule.place()) {
            rules.push(rule);
        }
    }
    rules
}

/// Returns true if the line calls our module with the argument `observe`.
pub(super) fn observes(rule: &Rule) -> bool {
    is_ours(rule) && rule.arguments.iter().any(|argument| argument == "observe")
}

/// Known behaviour of a module that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// Always accepts.
    Permits,
    /// Always rejects.
    Denies,
    /// Sends the same password to AD.
    AsksAd,
    /// Knows local users, without AD.
    Local,
    /// Accepts only users that its line names.
    Names,
    /// Judges the circumstances, not the user.
    Neutral,
    /// Does not judge.
    Silent,
    /// Any other module.
    Unknown,
}

/// Modules of Debian's libpam-modules and of the packages that query AD.
const OTHERS: &[(&str, Other)] = &[
    ("pam_permit.so", Other::Permits),
    ("pam_deny.so", Other::Denies),
    ("pam_sss.so", Other::AsksAd),
    ("pam_winbind.so", Other::AsksAd),
    ("pam_krb5.so", Other::AsksAd),
    ("pam_ldap.so", Other::AsksAd),
    ("pam_unix.so", Other::Local),
    ("pam_localuser.so", Other::Local),
    ("pam_extrausers.so", Other::Local),
    ("pam_pwdfile.so", Other::Local),
    ("pam_access.so", Other::Neutral),
    ("pam_cap.so", Other::Neutral),
    ("pam_env.so", Other::Neutral),
    ("pam_group.so", Other::Neutral),
    ("pam_limits.so", Other::Neutral),
    ("pam_nologin.so", Other::Neutral),
    ("pam_securetty.so", Other::Neutral),
    ("pam_shells.so", Other::Neutral),
    ("pam_time.so", Other::Neutral),
    ("pam_faillock.so", Other::Neutral),
    ("pam_faildelay.so", Other::Silent),
    ("pam_warn.so", Other::Silent),
    ("pam_echo.so", Other::Silent),
];

/// Returns the known behaviour of the line's module.
pub(super) fn other(rule: &Rule) -> Other {
    // pam_succeed_if(8): `user = NAME`, `user in NAME:NAME`. Other conditions, as on groups, are unknown.
    let names = |words: &[String]| match words {
        [what, how, _] => what == "user" && ["=", "in"].contains(&how.as_str()),
        _ => false,
    };
    if rule.name() == "pam_succeed_if.so" && rule.arguments.windows(3).any(names) {
        return Other::Names;
    }
    let known = OTHERS.iter().find(|(name, _)| *name == rule.name());
    known.map_or(Other::Unknown, |(_, other)| *other)
}

/// A user at login.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor {
    /// Answer of our module.
    pub(super) ours: Value,
    /// True if a local user has that name and password; for account lines, if the host knows the name.
    pub(super) local: bool,
    /// Answer of modules that query AD themselves.
    pub(super) asks_ad: Value,
    /// True if modules of unknown behaviour accept.
    pub(super) unknown: bool,
}

/// A user of AD with the right password, whom SSSD knows by the typed name.
pub(super) const RIGHT: Visitor =
    Visitor { ours: Value::SUCCESS, local: false, asks_ad: Value::SUCCESS, unknown: true };
/// The same user with a wrong password.
const WRONG: Visitor =
    Visitor { ours: Value::AUTH_ERR, local: false, asks_ad: Value::AUTH_ERR, unknown: false };

/// Decides for `visitor`; the modules in `missing` cannot be called.
pub(super) fn visit(stack: &[&Rule], visitor: Visitor, missing: &Missing) -> Decision {
    let (refused, unknown) = (Value::AUTH_ERR, Value::USER_UNKNOWN);
    decide(stack, &|rule| {
        let says = |yes: bool, no: Value| if yes { Value::SUCCESS } else { no };
        if is_ours(rule) {
            // A line that observes never gives access.
            let admits = observes(rule) && visitor.ours == Value::SUCCESS;
            return if admits { Value::PERM_DENIED } else { visitor.ours };
        }
        match other(rule) {
            _ if missing.contains(&rule.module) => Value::MODULE_UNKNOWN,
            Other::Permits => Value::SUCCESS,
            Other::Denies => refused,
            Other::AsksAd => visitor.asks_ad,
            Other::Local => says(visitor.local, unknown),
            // No line names all users of AD, but it may name a local administrator.
            Other::Names => says(visitor.local, refused),
            // It records the failure and returns an error.
            Other::Neutral if rule.arguments.iter().any(|argument| argument == "authfail") => refused,
            Other::Neutral => Value::SUCCESS,
            Other::Silent => Value::IGNORE,
            Other::Unknown => says(visitor.unknown, refused),
        }
    })
}

/// A problem with the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// They admit a user that AD rejects, because of this line; ours, if no other one is to blame.
    LetsIn(Kind, Rule),
    /// They reject a user that AD admits, because of this line, if it is known.
    KeepsOut(Kind, Option<Rule>),
    /// A wrong password counts twice, because this line also queries AD.
    Twice(Rule),
    /// This line admits a local user before AD is queried.
    LocalFirst(Rule),
}

/// Verdict on a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// AD alone decides.
    AdAlone,
    /// A local user gets access even if AD rejects the name.
    LocalToo,
    /// There is a problem.
    Trouble(Box<Trouble>),
}

/// Judges the lines by trying typical users. `knows` is true if SSSD knows users by the name that they type.
pub(super) fn judge(service: &Service, missing: &Missing, knows: bool) -> Judgement {
    for kind in [Kind::Auth, Kind::Account] {
        if let Some(trouble) = of_kind(service, kind, missing, knows) {
            return Judgement::Trouble(Box::new(trouble));
        }
    }
    let auth = service.stack(Kind::Auth);
    let Some(ours) = auth.iter().position(|rule| is_ours(rule)) else { return Judgement::AdAlone };
    let wrong = visit(&auth, WRONG, missing);
    let called = |decision: &Decision| {
        let called = decision.called.iter().filter_map(|index| Some((*index, *auth.get(*index)?)));
        called.collect::<Vec<_>>()
    };
    if let Some((_, rule)) = called(&wrong).into_iter().find(|(_, rule)| other(rule) == Other::AsksAd) {
        return Judgement::Trouble(Box::new(Trouble::Twice(rule.clone())));
    }
    let local = visit(&auth, Visitor { local: true, ..WRONG }, missing);
    if !local.is_success() {
        return Judgement::AdAlone;
    }
    match called(&local).into_iter().find(|(index, rule)| *index < ours && other(rule) == Other::Local) {
        Some((_, rule)) => Judgement::Trouble(Box::new(Trouble::LocalFirst(rule.clone()))),
        None => Judgement::LocalToo,
    }
}

/// Returns the problem with the lines of one kind. Wrong access comes first, because it is worse.
fn of_kind(service: &Service, kind: Kind, missing: &Missing, knows: bool) -> Option<Trouble> {
    let stack = service.stack(kind);
    let (at, ours) =
        stack.iter().enumerate().find(|(_, rule)| is_ours(rule)).map(|(at, rule)| (at, *rule))?;
    // An account line checks only the name, which the host may know.
    let local = kind == Kind::Account && knows;
    let refusal = if kind == Kind::Auth { Value::AUTH_ERR } else { Value::PERM_DENIED };
    let wrong = [
        Visitor { ours: refusal, local, ..WRONG },
        Visitor { ours: Value::USER_UNKNOWN, asks_ad: Value::USER_UNKNOWN, ..WRONG },
        // The right password of a user that the configured groups reject, which SSSD does not know about.
        Visitor { ours: Value::PERM_DENIED, local, asks_ad: Value::SUCCESS, ..WRONG },
        // AD does not answer.
        Visitor { ours: Value::AUTHINFO_UNAVAIL, ..WRONG },
    ];
    for visitor in wrong {
        let decision = visit(&stack, visitor, missing);
        if decision.is_success() {
            let lets_in = |rule: &&Rule| {
                !is_ours(rule) && rule.can_end() && !matches!(other(rule), Other::Denies | Other::Neutral)
            };
            let called = decision.called.iter().rev().filter_map(|index| stack.get(*index).copied());
            let rule = called.into_iter().find(lets_in).unwrap_or(ours);
            return Some(Trouble::LetsIn(kind, rule.clone()));
        }
    }
    let asks_ad = if knows { Value::SUCCESS } else { Value::USER_UNKNOWN };
    let right = visit(&stack, Visitor { asks_ad, local, ..RIGHT }, missing);
    let culprit = || culprit(&stack, &right, at, missing, knows).cloned();
    (!right.is_success()).then(|| Trouble::KeepsOut(kind, culprit()))
}

/// Returns the line to blame: the last one called, if ours was not reached; else the first one that rejects.
fn culprit<'a>(
    stack: &[&'a Rule],
    decision: &Decision,
    ours: usize,
    missing: &Missing,
    knows: bool,
) -> Option<&'a Rule> {
    let called = || decision.called.iter().copied();
    let index = match called().any(|index| index == ours) {
        false => called().last(),
        true => called().find(|index| {
            stack.get(*index).is_some_and(|rule| {
                let refuses = matches!(other(rule), Other::Denies | Other::Local | Other::Unknown)
                    || (other(rule) == Other::AsksAd && !knows);
                let counts = rule.refuses(Value::USER_UNKNOWN) || rule.refuses(Value::AUTH_ERR);
                !is_ours(rule) && ((refuses && counts) || missing.contains(&rule.module))
            })
        }),
    };
    stack.get(index?).copied()
}
