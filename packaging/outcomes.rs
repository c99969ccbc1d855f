//! Writes `clients/node/lib/outcomes.json`: for each outcome the PAM codes of a login, of a password change
//! and of a session, and the text for the user. The npm package reads it.

use motion_ad::module::code::{self, Phase};
use motion_ad::verdict::Outcome;
use serde_json::{Value, json};

/// Returns the file.
pub fn document() -> String {
    let rows: Vec<_> = Outcome::ALL.iter().map(|outcome| row(*outcome)).collect();
    format!("{{\n{}\n}}\n", rows.join(",\n"))
}

/// Returns one line. The keys of its object are in alphabetical order.
fn row(outcome: Outcome) -> String {
    let value: Value = json!({
        "login": code::account(outcome).name(),
        "change": code::change(outcome, Phase::Change).name(),
        "session": code::session(outcome).name(),
        "text": outcome.text(),
    });
    format!("  \"{outcome}\": {value}")
}
