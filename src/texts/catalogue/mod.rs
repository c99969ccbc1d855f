//! The catalogue: one Fluent file for each language, compiled into the broker and the helper.

use std::sync::LazyLock;

use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentResource};

use super::{Language, Text};

type Bundle = FluentBundle<FluentResource>;

/// The catalogue, read once, when the first text is needed.
static BUNDLES: LazyLock<Vec<(Language, Bundle)>> = LazyLock::new(|| {
    let read = |language: &Language| Some((*language, bundle(*language, source(*language))?));
    Language::ALL.iter().filter_map(read).collect()
});

/// Returns the file of `language`.
fn source(language: Language) -> &'static str {
    match language {
        Language::English => include_str!("en.ftl"),
        Language::Italian => include_str!("it.ftl"),
        Language::German => include_str!("de.ftl"),
        Language::Spanish => include_str!("es.ftl"),
        Language::French => include_str!("fr.ftl"),
        Language::Portuguese => include_str!("pt.ftl"),
    }
}

/// Reads a file; `None` if it has a fault, which the tests rule out.
fn bundle(language: Language, source: &str) -> Option<Bundle> {
    let mut bundle = Bundle::new_concurrent(vec![language.code().parse().ok()?]);
    // The marks around a number, for texts that mix directions, would be rubbish on a terminal.
    bundle.set_use_isolating(false);
    bundle.add_resource(FluentResource::try_new(source.to_owned()).ok()?).ok()?;
    Some(bundle)
}

impl Text {
    /// Returns the text in `language`; `None` if the catalogue lacks it, which a test rules out.
    pub fn to(self, language: Language) -> Option<String> {
        let (_, bundle) = BUNDLES.iter().find(|(known, _)| *known == language)?;
        let (name, count) = self.message();
        let pattern = bundle.get_message(name)?.value()?;
        let mut arguments = FluentArgs::new();
        if let Some(count) = count {
            arguments.set("count", count);
        }
        let mut errors = Vec::new();
        let text = bundle.format_pattern(pattern, Some(&arguments), &mut errors);
        errors.is_empty().then(|| text.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::verdict::Outcome;

    /// Counts that need different forms in some language, and the largest that can occur.
    const COUNTS: [u64; 6] = [1, 2, 5, 21, 100, u64::MAX / 86_400];

    fn names(source: &str) -> Vec<&str> {
        let is_name = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase());
        source.lines().filter(is_name).filter_map(|line| Some(line.split_once(" = ")?.0)).collect()
    }

    #[test]
    fn each_text_exists_in_each_language_and_no_language_has_another_one() {
        let expected: Vec<_> = Text::all(1).into_iter().map(|text| text.message().0).collect();
        for language in Language::ALL {
            let source = source(*language);
            assert!(bundle(*language, source).is_some(), "{language:?}");
            let found = names(source);
            assert_eq!(found, names(super::source(Language::English)), "{language:?}: the order");
            let (one, other): (BTreeSet<_>, BTreeSet<_>) =
                (expected.iter().copied().collect(), found.iter().copied().collect());
            assert_eq!((found.len(), one), (expected.len(), other), "{language:?}");
        }
    }

    #[test]
    fn each_text_has_its_count_in_each_language_and_nothing_else_that_varies() {
        for language in Language::ALL {
            for count in COUNTS {
                for text in Text::all(count) {
                    let shown = text.to(*language);
                    let shown = shown.unwrap_or_else(|| panic!("{text:?} in {language:?}: no text"));
                    let digits: String = shown.chars().filter(char::is_ascii_digit).collect();
                    let expected = text.message().1.map(|count| count.to_string()).unwrap_or_default();
                    assert_eq!(digits, expected, "{language:?}: {shown}");
                    assert!(
                        shown.ends_with('.') && !shown.contains(['{', '}', '\n']),
                        "{language:?}: {shown}"
                    );
                    assert!(shown.chars().count() <= 140, "{language:?}: {shown}");
                }
            }
        }
    }

    #[test]
    fn english_is_what_the_table_of_outcomes_says() {
        for outcome in Outcome::ALL {
            let shown = Text::Outcome(*outcome).to(Language::English);
            assert_eq!(shown.as_deref(), outcome.text(), "{outcome}");
        }
    }

    /// A stranger must not learn from the language what the English text hides.
    #[test]
    fn no_language_tells_more_than_another() {
        for language in Language::ALL {
            for outcome in Outcome::ALL {
                let shown = Text::Outcome(*outcome).to(*language);
                assert_eq!(shown.is_some(), outcome.text().is_some(), "{outcome} in {language:?}");
                // Two outcomes that look the same in English look the same.
                for other in Outcome::ALL {
                    let (same, in_english) =
                        (shown == Text::Outcome(*other).to(*language), outcome.text() == other.text());
                    assert_eq!(same, in_english, "{outcome} and {other} in {language:?}");
                }
            }
        }
        let hidden = [Outcome::WrongPassword, Outcome::NotChecked, Outcome::UnknownUser, Outcome::Unmapped];
        assert!(hidden.iter().all(|outcome| Text::Outcome(*outcome).to(Language::Italian).is_none()));
    }

    #[test]
    fn one_day_is_no_days() {
        let cases = [
            (Language::English, "1 day.", "2 days."),
            (Language::Italian, "1 giorno.", "2 giorni."),
            (Language::German, "1 Tag ab.", "2 Tagen ab."),
            (Language::Spanish, "1 día.", "2 días."),
            (Language::French, "1 jour.", "2 jours."),
            (Language::Portuguese, "1 dia.", "2 dias."),
        ];
        assert_eq!(cases.len(), Language::ALL.len());
        for (language, one, two) in cases {
            for (count, end) in [(1, one), (2, two)] {
                let shown = Text::ExpiresInDays(count).to(language).unwrap();
                assert!(shown.ends_with(end), "{shown}");
            }
            let hours = Text::ExpiresInHours(1).to(language) != Text::ExpiresInHours(2).to(language);
            assert!(hours, "{language:?}");
        }
    }

    #[test]
    fn a_broken_file_or_an_unknown_text_is_no_text() {
        assert!(bundle(Language::English, "disabled = { $count").is_none());
        assert!(bundle(Language::English, "disabled = a\ndisabled = b\n").is_none());
        assert_eq!(Text::Outcome(Outcome::Success).to(Language::English), None);
    }
}
