//! `config.toml` and the name map: whether they can be understood, and read by the broker's user.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::User;

use super::application;
use super::broker::USER;
use super::facts::{Facts, user};
use super::finding::{Finding, quote};
use super::join::is_not_joined;
use super::pam::comment_out;
use crate::config::{ConfigError, Problem, Store};

/// Folders that the broker's unit does not see, or sees as its own (`ProtectHome=`, `PrivateTmp=`).
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
/// Where files of the configuration belong.
const FOLDER: &str = "/etc/motion-ad";

pub(super) async fn file(facts: &Facts) -> Finding {
    let settings = facts.settings().await;
    match &settings.error {
        None => {
            let domain =
                settings.config.as_ref().map(|config| config.domain.name.as_str()).unwrap_or_default();
            Finding::ok(format!("{}: domain {domain}", facts.options().config.display()))
        }
        Some(error) if is_not_joined(error) => Finding::because("join"),
        Some(ConfigError::Broken(problem)) if problem.file == facts.options().sssd => {
            Finding::because("join")
        }
        Some(error) => broken(error),
    }
}

pub(super) async fn map(facts: &Facts) -> Finding {
    let settings = facts.settings().await;
    match (&settings.map, &settings.config) {
        (Some(error), _) => broken(error),
        (None, Some(config)) => {
            let count = config.names.map.lines().len();
            Finding::ok(format!("{}: {count} names", config.map_file.display()))
        }
        (None, None) => Finding::because("config-file"),
    }
}

/// The line that cannot be understood is taken out of force; a file that is missing is made anew.
fn broken(error: &ConfigError) -> Finding {
    let finding = Finding::failure(error.to_string());
    let ConfigError::Broken(Problem { file, line, .. }) = error else { return finding };
    let shown = file.display().to_string();
    match line {
        Some(line) => finding.mend(comment_out(&shown, *line)),
        None if file.exists() => finding.mend(format!("mv {0} {0}.broken && touch {0}", quote(&shown))),
        None => finding.mend(format!("touch {}", quote(&shown))),
    }
}

/// The line of config.toml that gives `key` of `table` its value, where it stands on a line of its own.
pub(super) fn line_of(facts: &Facts, table: &str, key: &str) -> Option<usize> {
    let text = fs::read_to_string(&facts.options().config).ok()?;
    line_in(&text, table, key)
}

fn line_in(text: &str, table: &str, key: &str) -> Option<usize> {
    let mut here = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if let Some(name) = line.strip_prefix('[') {
            here = name.split(']').next().unwrap_or_default().trim().to_owned();
        }
        let Some((name, _)) = line.split_once('=') else { continue };
        let name = name.trim();
        if (here == table && name == key) || (here.is_empty() && name == format!("{table}.{key}")) {
            return Some(number);
        }
    }
    None
}

/// Takes `key` of `table` out of force, where that is a matter of one line.
pub(super) fn forget(facts: &Facts, table: &str, key: &str) -> Option<String> {
    let file = facts.options().config.display().to_string();
    line_of(facts, table, key).map(|line| comment_out(&file, line))
}

/// A file that the broker reads, and whether others may not.
struct Read {
    path: PathBuf,
    is_secret: bool,
}

/// Each file that the broker reads can be read by its user, in what the unit lets it see.
pub(super) async fn readable(facts: &Facts) -> Finding {
    if !facts.is_root() {
        return Finding::skipped("needs root");
    }
    let user = match user(USER).await {
        Ok(user) => user,
        Err(cause) => return Finding::skipped(cause),
    };
    let mut files = vec![(facts.options().config.clone(), false)];
    if let Some(config) = facts.config().await {
        files.push((config.map_file.clone(), false));
        files.extend(config.tls.ca_file.clone().map(|file| (file, false)));
        if let Store::Redis(redis) = &config.sessions.store {
            files.extend(redis.ca_file.clone().map(|file| (file, false)));
            files.extend(redis.password_file.clone().map(|file| (file, true)));
        }
    }
    let files = files.into_iter().map(|(path, is_secret)| Read { path, is_secret });
    let files: Vec<_> = files.filter(|file| file.path.exists()).collect();
    for file in &files {
        if let Some(finding) = unreadable(facts, &user, file).await {
            return finding;
        }
    }
    Finding::ok(format!("{} may read {} files", user.name, files.len()))
}

async fn unreadable(facts: &Facts, user: &User, file: &Read) -> Option<Finding> {
    let shown = file.path.display().to_string();
    let word = quote(&shown);
    if let Some(hidden) = HIDDEN.into_iter().find(|folder| file.path.starts_with(folder)) {
        let name = file.path.file_name().map(PathBuf::from).unwrap_or_default();
        let to = Path::new(FOLDER).join(name).display().to_string();
        let config = quote(&facts.options().config.display().to_string());
        let (mode, script) = (if file.is_secret { "0640" } else { "0644" }, format!("s|{shown}|{to}|"));
        return Some(Finding::failure(format!("{shown}: the broker's unit hides {hidden} from it")).mend(
            format!(
                "install -m {mode} -g {USER} {word} {} && sed -i {} {config}",
                quote(&to),
                quote(&script)
            ),
        ));
    }
    let mend = match file.is_secret {
        true => format!("chown root:{USER} {word} && chmod 0640 {word}"),
        false => {
            let folder = file.path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
            format!("chmod a+rx {} && chmod a+r {word}", quote(&folder))
        }
    };
    if file.is_secret && fs::metadata(&file.path).is_ok_and(|found| found.mode() & 0o007 != 0) {
        return Some(
            Finding::failure(format!("every user may read {shown}, which holds a password")).mend(mend),
        );
    }
    match application::reads(user, &shown).await {
        Ok(()) => None,
        Err(cause) => {
            Some(Finding::failure(format!("{} may not read {shown}: {cause}", user.name)).mend(mend))
        }
    }
}

/// Every user that the broker is to answer exists.
pub(super) async fn users(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("config-file") };
    for name in &config.broker.users {
        if name.parse::<u32>().is_ok() {
            continue;
        }
        if let Err(cause) = user(name).await {
            return Finding::warning(format!("broker.users: {cause}"))
                .mend(format!("useradd --system --user-group --shell /usr/sbin/nologin {}", quote(name)));
        }
    }
    Finding::ok(config.broker.users.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::{Options, examine};
    use super::*;
    use crate::config::Config;

    fn options(folder: &Path) -> Options {
        Options {
            config: folder.join("config.toml"),
            sssd: folder.join("sssd.conf"),
            socket: folder.join("broker.sock"),
            login: None,
        }
    }

    /// A host in a domain that no DNS knows, with this configuration and this map.
    fn host(config: &str, map: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("names.map");
        let head = format!("names.map_file = {file:?}\ndomain.name = \"motion-ad.invalid\"\n");
        fs::write(folder.path().join("config.toml"), format!("{head}{config}")).unwrap();
        fs::write(file, map).unwrap();
        folder
    }

    async fn finds(folder: &Path) -> (Finding, Finding) {
        let facts = Facts::at_root(options(folder), folder);
        (file(&facts).await, map(&facts).await)
    }

    #[tokio::test]
    async fn a_line_that_is_broken_is_named_and_its_mend_mends_it() {
        let cases = [
            ("login.allow_group = []\n", "", "line 3: unknown field"),
            ("pool.connections = 0\n", "", "line 3: 0 was given"),
            ("[tls\n", "", "line 3"),
            ("", "a = a@acme.com\nnonsense\n", "line 2: expected"),
        ];
        for (config, text, seen) in cases {
            let folder = host(config, text);
            let (file, map) = finds(folder.path()).await;
            let found = if file.level == Level::Failure { file } else { map };
            assert_eq!(found.level, Level::Failure, "{config}{text}");
            assert!(found.seen.contains(seen), "{found:?}");
            let mend = &found.mend.first().unwrap().command;
            assert!(
                std::process::Command::new("sh").args(["-c", mend]).status().unwrap().success(),
                "{mend}"
            );
            let paths = options(folder.path());
            Config::load(&paths.config, &paths.sssd).unwrap();
        }
    }

    #[test]
    fn a_key_is_found_in_its_table() {
        let text = "tls.mode = \"auto\"\n[domain]\n # base_dn = \"dc=x\"\n  base_dn=\"dc=acme,dc=com\"\n[tls]\nca_file = \"/ca\"\n";
        let cases = [
            ("domain", "base_dn", Some(4)),
            ("tls", "ca_file", Some(6)),
            ("tls", "mode", Some(1)),
            ("domain", "ca_file", None),
        ];
        for (table, key, line) in cases {
            assert_eq!(line_in(text, table, key), line, "{table}.{key}");
        }
    }

    #[tokio::test]
    async fn a_map_that_is_gone_is_made_anew() {
        let folder = host("", "");
        fs::remove_file(folder.path().join("names.map")).unwrap();
        let (_, map) = finds(folder.path()).await;
        assert_eq!(map.mend[0].command, format!("touch {}", folder.path().join("names.map").display()));
    }

    #[tokio::test]
    async fn without_a_domain_the_join_is_the_cause() {
        let folder = host("", "");
        fs::write(folder.path().join("config.toml"), "").unwrap();
        let (file, map) = finds(folder.path()).await;
        assert_eq!((file.because, map.because), (Some("join"), Some("config-file")));
    }

    /// The whole, where nothing answers: bounded, in the order of the table, each check once.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_check_has_a_finding_where_nothing_answers() {
        let folder = host("", "");
        let begun = std::time::Instant::now();
        let found = examine(options(folder.path())).await;
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
        let ids: Vec<_> = found.iter().map(|(check, _)| check.id).collect();
        let table: Vec<_> =
            super::super::CHECKS.iter().filter(|c| !c.on_demand).map(|check| check.id).collect();
        assert_eq!(ids, table);
        let broker = found.iter().find(|(check, _)| check.id == "socket-file").unwrap();
        assert_eq!(broker.1.level, Level::Failure, "{:?}", broker.1);
    }
}
