//! The texts that users see, in each language.
//!
//! The module's argument `lang=` chooses the language, and each request carries it. The broker has the
//! catalogue (`catalogue`), so that the applications' processes do not carry it. The module has its own few
//! texts for a broker that does not answer.

use serde::{Deserialize, Serialize};

#[cfg(feature = "broker")]
mod catalogue;
#[cfg(feature = "broker")]
mod text;

#[cfg(feature = "broker")]
pub use self::text::Text;

/// Declares the languages as one table.
macro_rules! languages {
    ($($variant:ident = $code:literal;)+) => {
        /// A language that the texts for users exist in.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(from = "String", into = "&'static str")]
        pub enum Language {
            #[default]
            $(#[doc = concat!("The language `", $code, "`.")] $variant,)+
        }

        impl Language {
            /// Every language, the default one first.
            pub const ALL: &'static [Language] = &[$(Language::$variant,)+];

            /// Returns its code in ISO 639-1.
            pub fn code(self) -> &'static str {
                match self { $(Language::$variant => $code,)+ }
            }
        }
    };
}

languages! {
    English = "en";
    Italian = "it";
    German = "de";
    Spanish = "es";
    French = "fr";
    Portuguese = "pt";
}

impl Language {
    /// Returns the language with this code.
    pub fn of(code: &str) -> Option<Self> {
        Language::ALL.iter().copied().find(|language| language.code() == code)
    }

    /// Returns true for English, which a request does not name.
    pub fn is_default(&self) -> bool {
        *self == Language::default()
    }
}

/// A language of a later version is English here: a text is never a reason to deny a login.
impl From<String> for Language {
    fn from(code: String) -> Self {
        Language::of(&code).unwrap_or_default()
    }
}

impl From<Language> for &'static str {
    fn from(language: Language) -> Self {
        language.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_known_by_its_code_and_an_unknown_one_is_english() {
        for language in Language::ALL {
            assert_eq!(Language::of(language.code()), Some(*language));
        }
        for code in ["", "EN", "it_IT", "nl"] {
            assert_eq!((Language::of(code), Language::from(code.to_owned())), (None, Language::English));
        }
    }
}
