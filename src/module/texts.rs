//! The texts that the module shows without an answer of the broker, in the languages other than English.
//!
//! They are those of the catalogue (`src/texts/catalogue`), as a test checks. The catalogue itself stays out
//! of the applications' processes.

use crate::protocol::PasswordError;
use crate::texts::Language;

/// The texts of one language.
struct Texts {
    unavailable: &'static str,
    change_unknown: &'static str,
    new_empty: &'static str,
    new_too_long: &'static str,
    new_characters: &'static str,
}

/// Returns the texts of `language`; `None` for English.
fn of(language: Language) -> Option<&'static Texts> {
    Some(match language {
        Language::English => return None,
        Language::Italian => &Texts {
            unavailable: "Il servizio di accesso non riesce a raggiungere Active Directory. Riprovi tra \
                          poco.",
            change_unknown: "Non è certo che la Sua password sia stata cambiata. Provi ad accedere con \
                             quella nuova.",
            new_empty: "La nuova password è vuota.",
            new_too_long: "La nuova password è troppo lunga.",
            new_characters: "La nuova password contiene caratteri che nessuna password può avere.",
        },
        Language::German => &Texts {
            unavailable: "Der Anmeldedienst kann Active Directory nicht erreichen. Versuchen Sie es gleich \
                          noch einmal.",
            change_unknown: "Es ist nicht sicher, ob Ihr Kennwort geändert wurde. Versuchen Sie, sich mit \
                             dem neuen anzumelden.",
            new_empty: "Ihr neues Kennwort ist leer.",
            new_too_long: "Ihr neues Kennwort ist zu lang.",
            new_characters: "Ihr neues Kennwort enthält Zeichen, die kein Kennwort haben kann.",
        },
        Language::Spanish => &Texts {
            unavailable: "El servicio de inicio de sesión no puede conectar con Active Directory. Inténtelo \
                          de nuevo en un momento.",
            change_unknown: "No es seguro que su contraseña se haya cambiado. Intente iniciar sesión con la \
                             nueva.",
            new_empty: "Su nueva contraseña está vacía.",
            new_too_long: "Su nueva contraseña es demasiado larga.",
            new_characters: "Su nueva contraseña contiene caracteres que ninguna contraseña puede tener.",
        },
        Language::French => &Texts {
            unavailable: "Le service de connexion ne parvient pas à joindre Active Directory. Réessayez \
                          dans un instant.",
            change_unknown: "Il n'est pas certain que votre mot de passe ait été changé. Essayez de vous \
                             connecter avec le nouveau.",
            new_empty: "Votre nouveau mot de passe est vide.",
            new_too_long: "Votre nouveau mot de passe est trop long.",
            new_characters: "Votre nouveau mot de passe contient des caractères qu'aucun mot de passe ne \
                             peut avoir.",
        },
        Language::Portuguese => &Texts {
            unavailable: "O serviço de login não consegue acessar o Active Directory. Tente novamente em \
                          instantes.",
            change_unknown: "Não é certo que sua senha tenha sido alterada. Tente entrar com a nova.",
            new_empty: "Sua nova senha está vazia.",
            new_too_long: "Sua nova senha é longa demais.",
            new_characters: "Sua nova senha contém caracteres que nenhuma senha pode ter.",
        },
    })
}

/// Returns the text for a broker that did not answer, after which a change of a password may be made if
/// `uncertain`; `None` in English, whose texts are in the table of outcomes.
pub(super) fn unanswered(uncertain: bool, language: Language) -> Option<String> {
    let texts = of(language)?;
    Some(if uncertain { texts.change_unknown } else { texts.unavailable }.to_owned())
}

/// Returns the text for a new password that can never be one.
pub(super) fn new_password(error: PasswordError, language: Language) -> String {
    let Some(texts) = of(language) else { return format!("Your new password was not accepted: {error}.") };
    let text = match error {
        PasswordError::Empty => texts.new_empty,
        PasswordError::TooLong => texts.new_too_long,
        PasswordError::Nul | PasswordError::NotUtf8 => texts.new_characters,
    };
    text.to_owned()
}

#[cfg(all(test, feature = "broker"))]
mod tests {
    use super::*;
    use crate::texts::Text;
    use crate::verdict::Outcome;

    #[test]
    fn the_texts_are_those_of_the_catalogue() {
        for language in Language::ALL.iter().copied().filter(|language| !language.is_default()) {
            for (uncertain, outcome) in [(false, Outcome::Unavailable), (true, Outcome::ChangeUnknown)] {
                let shown = Text::Outcome(outcome).to(language);
                assert_eq!(unanswered(uncertain, language), shown, "{language:?}");
            }
            for (error, text) in [
                (PasswordError::Empty, Text::NewEmpty),
                (PasswordError::TooLong, Text::NewTooLong),
                (PasswordError::Nul, Text::NewCharacters),
                (PasswordError::NotUtf8, Text::NewCharacters),
            ] {
                assert_eq!(Some(new_password(error, language)), text.to(language), "{language:?}");
            }
        }
        assert_eq!(unanswered(false, Language::English), None);
    }
}
