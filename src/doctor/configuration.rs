//! `config.toml` and the name map: whether they are valid, and whether the broker's user can read them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::User;

use super::application;
use super::bridge;
use super::broker::USER;
use super::commands::Place;
use super::edit::Edit;
use super::facts::{Facts, user};
use super::finding::Finding;
use super::fix::{Run, access};
use super::join::is_not_joined;
use crate::config::{CONFIG, ConfigError, Problem, Store, distance};

/// Folders that the units hide, or replace by private ones (`ProtectHome=`, `PrivateTmp=`).
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
/// Folder of the configuration's files.
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
        Some(error) => {
            let options = facts.options();
            let text = fs::read_to_string(&options.config).unwrap_or_default();
            let finding = broken(error, "motion-ad.toml(5)");
            match Edit::meant(&options.config, &text, &options.sssd) {
                Some(edit) => Finding { fix: Vec::new(), ..finding }.edit(edit),
                None => finding,
            }
        }
    }
}

pub(super) async fn map(facts: &Facts) -> Finding {
    let settings = facts.settings().await;
    match (&settings.map, &settings.config) {
        (Some(error), _) => broken(error, "names.map(5)"),
        (None, Some(config)) => {
            let count = config.names.map.lines().len();
            Finding::ok(format!("{}: {count} names", config.map_file.display()))
        }
        (None, None) => Finding::because("config-file"),
    }
}

/// Leaves an invalid file to the administrator: a fix that dropped the line might drop a rule.
fn broken(error: &ConfigError, manual: &str) -> Finding {
    let finding = Finding::failure(error.to_string());
    let ConfigError::Broken(Problem { file, line, .. }) = error else { return finding };
    let shown = file.display();
    finding.advise(
        Place::Here,
        match line {
            Some(line) => {
                format!("correct line {line} of {shown}, do not leave it out: {manual} says what it may hold")
            }
            None if file.exists() => format!("make {shown} a file that can be read"),
            None => format!(
                "restore {shown} from a backup; if nothing was in it but comments, an empty file is enough"
            ),
        },
    )
}

/// Returns the line of config.toml that sets `key` of `table`, if the key has a line for itself.
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

/// A file that the broker or the bridge reads.
struct Read {
    path: PathBuf,
    /// The secret in it, if it holds one.
    secret: Option<&'static str>,
}

impl Read {
    /// Returns those of `files` that are there.
    fn there(files: impl IntoIterator<Item = (PathBuf, Option<&'static str>)>) -> Vec<Self> {
        let files = files.into_iter().map(|(path, secret)| Read { path, secret });
        files.filter(|file| file.path.exists()).collect()
    }
}

/// Checks that broker and bridge can read each of their files, within what their units let them see.
pub(super) async fn readable(facts: &Facts) -> Finding {
    if !facts.is_root() {
        return Finding::skipped("needs root");
    }
    let user = match user(USER).await {
        Ok(user) => user,
        Err(cause) => return Finding::skipped(cause),
    };
    let files = of_broker(facts).await;
    let mut found: Vec<Finding> = closed_folder(Path::new(FOLDER)).into_iter().collect();
    let mut seen = format!("{} may read {} files", user.name, files.len());
    found.extend(all_unreadable(facts, &user, &files).await);
    if let Some(used) = bridge::used(facts).await {
        match certificate(facts, &used.settings).await {
            Ok(count) => seen += &format!(", {} may read {count}", bridge::USER),
            Err(finding) => found.push(finding),
        }
    }
    found.into_iter().reduce(Finding::and).unwrap_or_else(|| Finding::ok(seen))
}

/// Returns the number of files of the bridge's certificate and key.
///
/// # Errors
/// Returns the finding if the bridge's user may not read one of them: then the bridge does not start.
async fn certificate(facts: &Facts, settings: &crate::config::Bridge) -> Result<usize, Finding> {
    let user = match user(bridge::USER).await {
        Ok(user) => user,
        Err(cause) => {
            return Err(
                Finding::failure(format!("{cause}: the LDAP bridge runs as this user")).run(Run::MakeUser)
            );
        }
    };
    let files =
        Read::there([(settings.certificate.clone(), None), (settings.key.clone(), Some("a private key"))]);
    match all_unreadable(facts, &user, &files).await {
        Some(finding) => Err(finding),
        None => Ok(files.len()),
    }
}

/// Returns the broker's files.
async fn of_broker(facts: &Facts) -> Vec<Read> {
    // A config.toml elsewhere is a draft, which only the administrator reads.
    let is_in_force = facts.options().config == Path::new(CONFIG);
    let mut files: Vec<_> = is_in_force.then(|| (facts.options().config.clone(), None)).into_iter().collect();
    if let Some(config) = facts.config().await {
        files.push((config.map_file.clone(), None));
        files.extend(config.tls.ca_file.clone().map(|file| (file, None)));
        if let Store::Redis(redis) = &config.sessions.store {
            files.extend(redis.ca_file.clone().map(|file| (file, None)));
            files.extend(redis.password_file.clone().map(|file| (file, Some("a password"))));
        }
    }
    Read::there(files)
}

/// Returns one finding for all files that `user` may not read.
async fn all_unreadable(facts: &Facts, user: &User, files: &[Read]) -> Option<Finding> {
    let mut found = Vec::new();
    for file in files {
        found.extend(unreadable(facts, user, file).await);
    }
    found.into_iter().reduce(Finding::and)
}

/// Returns a finding if not every user may enter the configuration's folder, and so read none of its files.
fn closed_folder(folder: &Path) -> Option<Finding> {
    const MODE: u32 = 0o755;
    let mode = fs::metadata(folder).ok()?.mode() & 0o7777;
    let closed = Finding::failure(format!("{} has mode {mode:04o}, not {MODE:04o}", folder.display()));
    (mode & 0o005 != 0o005).then(|| closed.run_with(access(folder, None, MODE)))
}

async fn unreadable(facts: &Facts, user: &User, file: &Read) -> Option<Finding> {
    let shown = file.path.display().to_string();
    if let Some(hidden) = HIDDEN.into_iter().find(|folder| file.path.starts_with(folder)) {
        let name = file.path.file_name().map(PathBuf::from).unwrap_or_default();
        let to = Path::new(FOLDER).join(name).display().to_string();
        let config = facts.options().config.display();
        let seen = format!("{shown}: the unit of {} hides {hidden} from it", user.name);
        return Some(Finding::failure(seen).advise(
            Place::Here,
            format!("put the file at {to}, where {} may read it, and name it so in {config}", user.name),
        ));
    }
    let open = |finding: Finding| {
        let (owner, mode) = match file.secret {
            Some(_) => (Some(format!("root:{}", user.name)), 0o640),
            None => (None, 0o644),
        };
        match access(&file.path, owner.as_deref(), mode) {
            Some(run) => finding.run(run),
            None => finding.advise(
                Place::Here,
                format!("let {} read it; best is a copy in {FOLDER}, named in the configuration", user.name),
            ),
        }
    };
    if let Some(secret) = file.secret
        && fs::metadata(&file.path).is_ok_and(|found| found.mode() & 0o007 != 0)
    {
        return Some(open(Finding::failure(format!("every user may read {shown}, which holds {secret}"))));
    }
    match application::reads(user, &shown).await {
        Ok(()) => None,
        Err(cause) => Some(open(Finding::failure(format!("{} may not read {shown}: {cause}", user.name)))),
    }
}

/// Checks that every user in `broker.users` exists.
pub(super) async fn users(facts: &Facts) -> Finding {
    let Some(config) = facts.config().await else { return Finding::because("config-file") };
    for name in &config.broker.users {
        if name.parse::<u32>().is_ok() {
            continue;
        }
        if let Err(cause) = user(name).await {
            let near = near_user(facts, name);
            let near = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            return Finding::warning(format!("broker.users: {cause}{near}"))
                .advise(Place::Here, format!("correct {}", place_of(facts, "broker", "users")));
        }
    }
    Finding::ok(config.broker.users.join(", "))
}

/// Returns a key with its file and line, as shown to the administrator.
pub(super) fn place_of(facts: &Facts, table: &str, key: &str) -> String {
    let line = line_of(facts, table, key).map_or_else(String::new, |line| format!(", line {line}"));
    format!("{table}.{key} in {}{line}", facts.options().config.display())
}

/// Returns the local user whose name differs by one or two letters.
fn near_user(facts: &Facts, name: &str) -> Option<String> {
    let users = fs::read_to_string(facts.path("/etc/passwd")).ok()?;
    let names = users.lines().filter_map(|line| line.split(':').next());
    let near = names.map(|known| (distance(known, name), known)).min()?;
    (near.0 <= 2).then(|| near.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::{Fix, Options, examine};
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

    /// A host in a domain that DNS does not know, with this configuration and this map.
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
    async fn a_line_that_is_broken_is_named_and_no_rule_is_taken_away() {
        let cases = [
            ("login.allow_group = []\n", "", "line 3: unknown", false),
            ("[login]\nalow_groups = [\"A\"]\n", "", "did you mean `allow_groups`?", true),
            ("[login]\n[tls]\n[login]\nwarn_days = 3\n", "", "[login] is already open at line 3", true),
            ("pool.connections = 0\n", "", "line 3: 0 was given", false),
            ("[tls\n", "", "line 3", false),
            ("", "a = a@acme.com\nnonsense\n", "line 2: expected", false),
        ];
        for (config, text, seen, is_mended) in cases {
            let folder = host(config, text);
            let (file, map) = finds(folder.path()).await;
            let found = if file.level == Level::Failure { file } else { map };
            assert_eq!(found.level, Level::Failure, "{config}{text}");
            assert!(found.seen.contains(seen), "{found:?}");
            let paths = options(folder.path());
            match found.fix.as_slice() {
                [Fix::Edit(edit)] => {
                    assert!(is_mended, "{found:?}");
                    fs::write(edit.file(), edit.after()).unwrap();
                    Config::load(&paths.config, &paths.sssd).unwrap();
                }
                [Fix::Advice { text, .. }] => {
                    assert!(!is_mended && text.contains("do not leave it out"), "{text}")
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_key_is_found_in_its_table() {
        let text = "tls.mode = \"auto\"\n[domain]\n # base_dn = \"dc=x\"\n  base_dn=\"dc=acme,dc=com\"\n\
                    [tls]\nca_file = \"/ca\"\n";
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
    async fn a_map_that_is_gone_is_not_made_anew() {
        let folder = host("", "");
        fs::remove_file(folder.path().join("names.map")).unwrap();
        let (_, map) = finds(folder.path()).await;
        assert_eq!(map.level, Level::Failure);
        assert!(
            matches!(map.fix.as_slice(), [Fix::Advice { text, .. }] if text.contains("from a backup")),
            "{map:?}"
        );
    }

    #[tokio::test]
    async fn without_a_domain_the_join_is_the_cause() {
        let folder = host("", "");
        fs::write(folder.path().join("config.toml"), "").unwrap();
        let (file, map) = finds(folder.path()).await;
        assert_eq!((file.because, map.because), (Some("join"), Some("config-file")));
    }

    /// If nothing answers, all checks still finish in time, each once, in the order of the table.
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
