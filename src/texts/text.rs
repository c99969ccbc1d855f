//! A text for a user, independent of its language.

use std::time::Duration;

use crate::verdict::Outcome;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Declares the texts as one table: each with its name in the catalogue, and a count if it has one.
macro_rules! texts {
    ($($(#[doc = $doc:literal])+ $variant:ident $(($count:ident))? = $name:literal;)+) => {
        /// A text for a user.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Text {
            /// The text of an outcome.
            Outcome(Outcome),
            $($(#[doc = $doc])+ $variant $((texts!(@type $count)))?,)+
        }

        impl Text {
            /// Returns its name in the catalogue, and its count.
            pub(super) fn message(self) -> (&'static str, Option<u64>) {
                match self {
                    Text::Outcome(outcome) => (outcome.name(), None),
                    $(Text::$variant $(($count))? => ($name, texts!(@option $($count)?)),)+
                }
            }

            /// Every text of the table, with this count.
            #[cfg(test)]
            pub(super) fn all(count: u64) -> Vec<Text> {
                let outcomes = Outcome::ALL.iter().filter(|outcome| outcome.text().is_some());
                let mut all: Vec<_> = outcomes.map(|outcome| Text::Outcome(*outcome)).collect();
                $(all.push(Text::$variant $((texts!(@value $count count)))?);)+
                all
            }
        }
    };
    (@type $count:ident) => { u64 };
    (@value $count:ident $value:ident) => { $value };
    (@option $count:ident) => { Some($count) };
    (@option) => { None };
}

texts! {
    /// The password expires within the hour.
    ExpiresNow = "expires_now";
    /// The password expires in some hours.
    ExpiresInHours(count) = "expires_in_hours";
    /// The password expires in some days.
    ExpiresInDays(count) = "expires_in_days";
    /// The new password is the present one.
    NewSame = "new_same";
    /// The new password is empty.
    NewEmpty = "new_empty";
    /// The new password is longer than any password can be.
    NewTooLong = "new_too_long";
    /// The new password has characters that none can have.
    NewCharacters = "new_characters";
    /// The present password is too young to be changed.
    TooYoung = "too_young";
    /// The same, with the age in days.
    TooYoungDays(count) = "too_young_days";
    /// The same, with the age in hours.
    TooYoungHours(count) = "too_young_hours";
    /// The same, with the age in minutes.
    TooYoungMinutes(count) = "too_young_minutes";
    /// The same, with the age in seconds.
    TooYoungSeconds(count) = "too_young_seconds";
    /// The new password is shorter than the policy allows.
    TooShort = "too_short";
    /// The same, with the least number of characters.
    TooShortFor(count) = "too_short_for";
    /// The new password has too few kinds of characters.
    Kinds = "kinds";
    /// The new password contains a name of the user.
    Name = "name";
    /// The new password is too simple in some other way.
    Complexity = "complexity";
    /// The new password is an earlier one.
    History = "history";
    /// The same, with the number of earlier ones that are remembered.
    HistoryOf(count) = "history_of";
    /// The new password is an earlier one, or on a list.
    HistoryOrList = "history_or_list";
    /// The same, with the number of earlier ones that are remembered.
    HistoryOrListOf(count) = "history_or_list_of";
    /// The user may not change the password, or not yet.
    AgeOrRight = "age_or_right";
}

impl Text {
    /// Returns the warning for a password that expires in `seconds`. It rounds down, so that no user counts
    /// on time that does not exist.
    pub fn expires(seconds: u64) -> Self {
        match seconds {
            ..HOUR => Text::ExpiresNow,
            HOUR..DAY => Text::ExpiresInHours(seconds / HOUR),
            _ => Text::ExpiresInDays(seconds / DAY),
        }
    }

    /// Returns the refusal to change a password that is younger than `age`, in the largest whole unit of it.
    pub fn too_young(age: Duration) -> Self {
        let seconds = age.as_secs();
        let whole = |unit| (seconds >= unit && seconds.is_multiple_of(unit)).then_some(seconds / unit);
        let days = || whole(DAY).map(Text::TooYoungDays);
        let hours = || whole(HOUR).map(Text::TooYoungHours);
        let minutes = || whole(MINUTE).map(Text::TooYoungMinutes);
        days().or_else(hours).or_else(minutes).unwrap_or(Text::TooYoungSeconds(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_in_its_largest_whole_unit() {
        let cases = [
            (86_400, Text::TooYoungDays(1)),
            (172_800, Text::TooYoungDays(2)),
            (5400, Text::TooYoungMinutes(90)),
            (7200, Text::TooYoungHours(2)),
            (61, Text::TooYoungSeconds(61)),
        ];
        for (seconds, text) in cases {
            assert_eq!(Text::too_young(Duration::from_secs(seconds)), text);
        }
    }
}
