//! `motion-ad config`: whether the configuration is valid, and the settings in force.

use super::show::{self, Columns};
use super::{Cli, ConfigShow, Exit, Failure, Page, doctor, is_denied};
use crate::config::shown::{Shown, shown};

/// Checks of the doctor that are about the configuration, including those that query AD.
const CHECKS: [&str; 10] = [
    "root",
    "config-file",
    "config-readable",
    "names-map",
    "map-targets",
    "ca-file",
    "base-dn",
    "groups",
    "broker-users",
    "sessions",
];

/// Checks that the files are valid, and that AD has the objects that they name.
pub(super) fn check(cli: &Cli) -> Result<Page, Failure> {
    doctor::only(cli, &CHECKS)
}

/// Shows each key with its value and its source.
pub(super) fn show(cli: &Cli, args: &ConfigShow) -> Result<Page, Failure> {
    let all = shown(&cli.config, &cli.sssd).map_err(|error| match is_denied(&cli.sssd) {
        true => Failure::Denied(error),
        false => error.into(),
    })?;
    let text = if args.json { show::json(&all)? } else { table(&all) };
    Ok(Page { text, exit: Exit::Yes })
}

fn table(all: &[Shown]) -> String {
    let mut columns = Columns::headed(["KEY", "VALUE", "FROM"]);
    for Shown { key, value, from } in all {
        columns.row([key, if value.is_empty() { "-" } else { value }, from]);
    }
    columns.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_exists() {
        for id in CHECKS {
            assert!(crate::doctor::Check::find(id).is_some(), "{id}");
        }
    }

    #[test]
    fn a_key_without_value_is_seen_as_such() {
        let key =
            |value: &str| Shown { key: "domain.site".into(), value: value.into(), from: "default".into() };
        assert_eq!(table(&[key("")]), " KEY          VALUE  FROM\n domain.site  -      default\n");
    }
}
