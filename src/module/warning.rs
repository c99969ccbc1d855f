//! The warning for a user whose password expires soon.

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Returns the text for a password that expires in `seconds`. It rounds down, so that no user counts on time
/// that does not exist.
pub(super) fn text(seconds: u64) -> String {
    let left = match seconds {
        ..HOUR => return "Your password expires within the hour.".to_owned(),
        HOUR..DAY => counted(seconds / HOUR, "hour"),
        _ => counted(seconds / DAY, "day"),
    };
    format!("Your password expires in {left}.")
}

fn counted(count: u64, unit: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_then_hours_then_within_the_hour() {
        let cases = [
            (u64::MAX, "in 213503982334601 days"),
            (14 * DAY, "in 14 days"),
            (2 * DAY, "in 2 days"),
            (2 * DAY - 1, "in 1 day"),
            (DAY, "in 1 day"),
            (DAY - 1, "in 23 hours"),
            (2 * HOUR, "in 2 hours"),
            (2 * HOUR - 1, "in 1 hour"),
            (HOUR, "in 1 hour"),
            (HOUR - 1, "within the hour"),
            (0, "within the hour"),
        ];
        for (seconds, left) in cases {
            assert_eq!(text(seconds), format!("Your password expires {left}."), "{seconds}");
            #[cfg(feature = "broker")]
            assert_eq!(Some(text(seconds)), crate::texts::Text::expires(seconds).to(Default::default()));
        }
    }
}
