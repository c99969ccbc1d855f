//! `motion-ad config`: whether the configuration is valid, and the settings in force.

use std::path::Path;

use super::show::{self, Columns};
use super::{Cli, ConfigShow, Exit, Failure, Page, doctor, is_denied, print, status};
use crate::config::CONFIG;
use crate::config::shown::shown;
use crate::protocol::report::{KeptSettings, Setting};

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

/// Shows each key with its value and its source. If the broker keeps the last good configuration in force
/// because the files cannot be used, shows that and fails.
pub(super) fn show(cli: &Cli, args: &ConfigShow) -> Result<Exit, Failure> {
    let print_all = |all: &[Setting]| {
        let text = if args.json { show::json(&all)? } else { table(all) };
        print(Page { text, exit: Exit::Yes })
    };
    let of_files = match shown(&cli.config, &cli.sssd) {
        Err(error) if is_denied(&cli.sssd) => return Err(Failure::Denied(error)),
        of_files => of_files,
    };
    if let Some(kept) = kept(cli) {
        print_all(&kept.settings)?;
        return Err(Failure::Kept(kept.problem));
    }
    print_all(&of_files?)
}

/// Returns the configuration that the broker keeps in force in place of its files, if it can be queried.
fn kept(cli: &Cli) -> Option<KeptSettings> {
    // The broker's configuration is the one at the usual place.
    let is_brokers = cli.config == Path::new(CONFIG);
    is_brokers.then(|| status::state(cli, "config").ok()?.kept).flatten()
}

fn table(all: &[Setting]) -> String {
    let mut columns = Columns::headed(["KEY", "VALUE", "FROM"]);
    for Setting { key, value, from } in all {
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
            |value: &str| Setting { key: "domain.site".into(), value: value.into(), from: "default".into() };
        assert_eq!(table(&[key("")]), " KEY          VALUE  FROM\n domain.site  -      default\n");
    }
}
