//! libpam's evaluation of a stack (`_pam_dispatch_aux`).

use super::control::{Action, Value};
use super::{DEPTH, Role, Rule};

/// Decision of libpam.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its answer to the application.
    pub value: Value,
    /// Indexes of the lines whose modules were called.
    pub called: Vec<usize>,
}

impl Decision {
    /// Returns true if the user gets access.
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

/// Evaluates `stack` as libpam does; `answer` supplies the answers of the modules.
pub fn decide(stack: &[&Rule], answer: &dyn Fn(&Rule) -> Value) -> Decision {
    let mut called = Vec::new();
    let mut state = (Impression::Undefined, Value::PERM_DENIED);
    // The state on entry to each level.
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
                    // A substack counts as one line.
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
    use super::super::Kind;
    use super::super::tests::service;
    use super::*;

    /// Evaluates a stack of modules that answer by the first letter of their name: s, f, i, u.
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
            // Spaces around the equals sign are optional, and so are those between two pairs.
            ("auth [success = done default =ignore] s\nauth required f\n", "PAM_SUCCESS s"),
            ("auth [success=okdefault=ignore] s\n", "PAM_SUCCESS s"),
            ("auth [default=ignore success=ok default=die] f\nauth required s\n", "PAM_SUCCESS f s"),
            // A control that cannot be parsed makes every answer bad; the module is still called.
            ("auth [success=maybe] f\nauth required s\n", "PAM_AUTH_ERR f s"),
            ("auth [success=+1 default=ignore] s\nauth required s2\n", "PAM_PERM_DENIED s s2"),
            // A line without a module or of no kind is a rejection, subject to its own control.
            ("auth sufficient\nauth required s\n", "PAM_SUCCESS s"),
            ("author sufficient s\nauth required s2\n", "PAM_SUCCESS s2"),
            ("author required s\nauth required s2\n", "PAM_PERM_DENIED s2"),
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
