//! The man pages, the completions and `docs/log-and-codes.md`. Each must cover every command, key and code,
//! and the programs that read them must not complain.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../packaging/codes.rs"]
mod codes;
#[path = "../packaging/completions.rs"]
mod completions;
#[path = "../packaging/outcomes.rs"]
mod outcomes;
#[path = "../packaging/man/pages.rs"]
mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::CommandFactory as _;
use motion_ad::broker::metrics::Event;
use motion_ad::config::keys::{KEYS, TABLES};
use motion_ad::helper::Cli;
use motion_ad::module::arguments::ARGUMENTS;
use motion_ad::module::code::Code;
use motion_ad::module::handle::{EXPIRES_IN, OUTCOME, SESSION};
use motion_ad::protocol::report::EndReason;
use motion_ad::verdict::Outcome;
use motion_ad_support::skipped;
use tempfile::TempDir;

/// Writes all pages, and returns each by file name, in the plain text that a reader sees.
fn written() -> (TempDir, BTreeMap<String, String>) {
    let folder = tempfile::tempdir().unwrap();
    pages::write(&folder.path().join("man")).unwrap();
    let files = fs::read_dir(folder.path().join("man")).unwrap().map(|entry| entry.unwrap().path());
    let page = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let plain = ["\\fB", "\\fI", "\\fR", "\\&"].iter().fold(text, |text, mark| text.replace(mark, ""));
        (
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            plain.replace("\\-", "-").replace("\\\\", "\\"),
        )
    };
    let pages = files.map(page).collect();
    (folder, pages)
}

/// Returns every visible command by the name of its page.
fn commands(command: &clap::Command, name: &str) -> Vec<(String, clap::Command)> {
    let mut all = vec![(name.to_owned(), command.clone())];
    for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        all.extend(commands(one, &format!("{name}-{}", one.get_name())));
    }
    all
}

fn helper() -> Vec<(String, clap::Command)> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    commands(&cli, "motion-ad")
}

#[test]
fn every_command_has_a_page_and_every_option_stands_on_it() {
    let (_folder, pages) = written();
    let mut seen = 0;
    for (name, command) in helper() {
        let page = pages.get(&format!("{name}.1")).unwrap_or_else(|| panic!("{name} has no page"));
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let shown = match argument.get_long() {
                Some(long) => format!("--{long}"),
                None => argument.get_value_names().unwrap()[0].to_string(),
            };
            assert!(page.contains(&shown), "{name}(1) has no {shown}");
            // The list of options puts values in brackets, the synopsis does not.
            if argument.get_long().is_some() && argument.get_action().takes_values() {
                let value = format!("{shown} {}", argument.get_value_names().unwrap()[0]);
                assert!(page.contains(&value), "the synopsis of {name}(1) has no {value}");
            }
            seen += 1;
        }
        for below in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            assert!(page.contains(&format!("{name}-{}(1)", below.get_name())), "{name}(1)");
        }
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn every_page_is_of_something_and_leads_to_the_others() {
    let (_folder, pages) = written();
    let mut expected: BTreeSet<_> = helper().iter().map(|(name, _)| format!("{name}.1")).collect();
    expected.extend(
        ["motion-ad.toml.5", "names.map.5", "motion-ad-broker.8", "motion-ad-ldap.8", "pam_motion_ad.8"]
            .map(str::to_owned),
    );
    assert_eq!(pages.keys().cloned().collect::<BTreeSet<_>>(), expected);
    for (name, page) in &pages {
        for other in pages.keys().filter(|other| *other != name) {
            let (title, section) = other.rsplit_once('.').unwrap();
            assert!(page.contains(&format!("{title}({section})")), "{name} does not lead to {other}");
        }
    }
}

#[test]
fn every_argument_key_code_and_outcome_stands_in_the_manual() {
    let (_folder, pages) = written();
    let (module, configuration) = (&pages["pam_motion_ad.8"], &pages["motion-ad.toml.5"]);
    for argument in ARGUMENTS {
        let item = module.split(".TP\n").find(|item| {
            item.strip_prefix(argument.name).is_some_and(|rest| rest.starts_with(['=', '\n', ' ']))
        });
        let item = item.unwrap_or_else(|| panic!("pam_motion_ad(8) has no {}", argument.name));
        for fact in ["Default: ", "Entry points: ", "Since: ", "Cost: "] {
            assert!(item.contains(fact), "{}: {fact}", argument.name);
        }
    }
    for code in Code::ALL {
        assert!(module.contains(code.name()), "{}", code.name());
    }
    for outcome in Outcome::ALL {
        assert!(module.contains(outcome.name()), "{outcome}");
    }
    for (table, _) in TABLES {
        let section = configuration.split(".SH ").find(|text| text.starts_with(&format!("[{table}]")));
        let section = section.unwrap_or_else(|| panic!("motion-ad.toml(5) has no [{table}]"));
        for key in KEYS.iter().filter(|key| key.table == *table) {
            assert!(section.contains(&format!(".TP\n{} (", key.name)), "{table}.{}", key.name);
        }
    }
}

/// Runs a program; returns `None` if it is not installed.
fn run(program: &str, arguments: &[&OsStr]) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env("MANROFFSEQ", "")
        .env("MANWIDTH", "80")
        .env("LC_ALL", "C.UTF-8");
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            Some((output.status.success(), text + &String::from_utf8_lossy(&output.stdout)))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => panic!("{program}: {e}"),
    }
}

/// Same as [`run`], but the check is skipped if the program is not installed.
fn looked(program: &str, arguments: &[&OsStr]) -> Option<(bool, String)> {
    let ran = run(program, arguments);
    if ran.is_none() {
        skipped(format_args!("{program} is not installed"));
    }
    ran
}

#[test]
fn man_and_mandoc_have_no_complaint() {
    let (folder, pages) = written();
    for name in pages.keys() {
        let path = folder.path().join("man").join(name);
        let options = ["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"].map(OsStr::new);
        if let Some((done, text)) = looked("man", &[&options[..], &[path.as_os_str()]].concat()) {
            // -Z prints troff's output, whose first line begins with `x`. Complaints come before it.
            let complaint = text.split("x T utf8").next().unwrap().trim();
            assert!(done && complaint.is_empty(), "{name}: {complaint}");
        }
        let options = ["-Tlint", "-Wwarning"].map(OsStr::new);
        if let Some((done, text)) = looked("mandoc", &[&options[..], &[path.as_os_str()]].concat()) {
            assert!(done, "{name}: {text}");
        }
    }
}

fn completion(folder: &Path, shell: &str) -> PathBuf {
    let (_, name, file) = completions::SHELLS.iter().find(|(_, name, _)| *name == shell).unwrap();
    folder.join(name).join(file)
}

#[test]
fn every_shell_understands_its_completion() {
    let folder = tempfile::tempdir().unwrap();
    completions::write(folder.path()).unwrap();
    for (_, shell, _) in completions::SHELLS {
        let path = completion(folder.path(), shell);
        let text = fs::read_to_string(&path).unwrap();
        for (name, command) in helper() {
            let words: Vec<_> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
            for word in words {
                assert!(text.contains(word), "{shell}: {name} --{word}");
            }
        }
        assert!(!text.contains("as-application"), "{shell} offers what is not for people");
        if let Some((done, text)) = looked(shell, &[OsStr::new("-n"), path.as_os_str()]) {
            assert!(done, "{shell}: {text}");
        }
    }
}

/// Returns the completions that bash offers for the last word of `line`.
fn bash_offers(file: &Path, line: &[&str]) -> BTreeSet<String> {
    let script = "file=$1; shift
        . \"$file\"
        how=$(complete -p motion-ad) || exit 1
        [[ $how =~ -F\\ ([^ ]+) ]] || exit 1
        COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)) COMP_LINE=\"$*\" COMP_POINT=${#COMP_LINE}
        \"${BASH_REMATCH[1]}\" motion-ad \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut arguments = vec![OsStr::new("--norc"), OsStr::new("-c"), OsStr::new(script), OsStr::new("bash")];
    arguments.push(file.as_os_str());
    arguments.extend(line.iter().map(OsStr::new));
    let (done, text) = run("bash", &arguments).expect("bash");
    assert!(done, "{text}");
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    let folder = tempfile::tempdir().unwrap();
    completions::write(folder.path()).unwrap();
    let file = completion(folder.path(), "bash");
    let offers = |line: &[&str]| bash_offers(&file, line);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(offers(&["motion-ad", "do"]), words(&["doctor"]));
    assert_eq!(offers(&["motion-ad", "se"]), words(&["sessions", "setup"]));
    assert_eq!(offers(&["motion-ad", "sessions", "wa"]), words(&["watch"]));
    assert_eq!(offers(&["motion-ad", "setup", "--a"]), words(&["--apply"]));
    assert!(offers(&["motion-ad", "doctor", "--explain", "key"]).contains("keytab"));
    for (name, command) in helper() {
        let line: Vec<_> = name.split('-').collect();
        // motion-ad is one word, and so is each of its commands.
        let line: Vec<_> = [&["motion-ad"][..], &line[2..], &["--"]].concat();
        let offered = offers(&line);
        for long in command.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(offered.contains(&format!("--{long}")), "{line:?}: {long}: {offered:?}");
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_document_of_codes_is_that_of_the_tables() {
    let kept = fs::read_to_string(root().join("docs/log-and-codes.md")).unwrap();
    assert!(
        kept == codes::document(),
        "write it anew: cargo run --example man -- --codes >docs/log-and-codes.md"
    );
    for outcome in Outcome::ALL {
        assert!(kept.contains(&format!("| `{outcome}` |")), "{outcome}");
    }
    for code in Code::ALL {
        assert!(kept.contains(&format!("| {} |", code.name())), "{}", code.name());
    }
}

#[test]
fn the_npm_package_knows_every_outcome_every_code_and_this_version() {
    let read = |name: &str| fs::read_to_string(root().join("clients/node").join(name)).unwrap();
    assert!(
        read("lib/outcomes.json") == outcomes::document(),
        "write it anew: cargo run --example man -- --outcomes >clients/node/lib/outcomes.json"
    );
    let types = read("index.d.ts");
    let is_type = |name: &str| types.contains(&format!("\n  | '{name}'"));
    for outcome in Outcome::ALL {
        assert!(is_type(outcome.name()), "{outcome}");
    }
    for code in Code::ALL {
        assert!(is_type(code.name()), "{}", code.name());
    }
    for reason in EndReason::ALL {
        assert!(is_type(reason.name()), "{}", reason.name());
        let is_listed = read("testing.js").contains(&format!("'{}'", reason.name()));
        assert!(is_listed || !reason.is_eviction(), "{}", reason.name());
    }
    for variable in [OUTCOME, SESSION, EXPIRES_IN] {
        assert!(read("src/call.rs").contains(&format!("c\"{variable}\"")), "{variable}");
    }
    assert!(read("package.json").contains(&format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"))));
}

/// Returns the sources below `path`, without their tests.
fn sources(path: &Path) -> String {
    if path.is_file() {
        let text = fs::read_to_string(path).unwrap();
        return text.split("#[cfg(test)]").next().unwrap().to_owned();
    }
    fs::read_dir(path).unwrap().map(|entry| sources(&entry.unwrap().path())).collect()
}

/// Returns each part of `text` between a `before` and the next `after`.
fn between<'a>(text: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split(after).next())
}

#[test]
fn every_event_of_the_log_is_explained_and_none_that_there_is_not() {
    let rooms = ["src/broker", "src/bridge", "src/bin", "src/log.rs", "src/login", "src/sessions"];
    let programs = rooms.map(|room| sources(&root().join(room))).concat();
    let mut written: BTreeSet<_> = between(&programs, "Line::new(\"", "\"").collect();
    written.extend(Event::ALL.map(Event::name));
    let explained: BTreeSet<_> = codes::EVENTS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(explained, written);
    assert_eq!(explained.len(), codes::EVENTS.len());
}

#[test]
fn the_lines_of_the_module_are_its_own() {
    let module = sources(&root().join("src/module")).replace("\\\n", "");
    let module = module.split_whitespace().collect::<Vec<_>>().join(" ");
    for (part, _) in codes::MODULE {
        assert!(module.contains(part), "{part}");
    }
}

#[test]
fn zsh_completes_ids_and_names_of_sessions_and_runs_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    completions::write(folder.path()).unwrap();
    let path = completion(folder.path(), "zsh");
    let text = fs::read_to_string(&path).unwrap();
    let actions = |action: &str| text.lines().filter(|line| line.contains(&format!(":{action}'"))).count();
    // The ids of kick, end and show, and --user of list and kick.
    assert_eq!((actions("_motion_ad_ids"), actions("_motion_ad_names")), (3, 2));
    let script = r#"
        compdef() { :; }
        compadd() { print -rl -- "$1" "${(@P)2}"; }
        motion-ad() {
            [[ $1 == complete && $2 != $none ]] && print -rl -- "$2-1" '$(touch hit)' '`touch hit`' '-x'
        }
        . "$0"
        _motion_ad_ids
        _motion_ad_names
        none=ids _motion_ad_ids
    "#;
    let words = |kind: &str| ["-a", &format!("{kind}-1"), "$(touch hit)", "`touch hit`", "-x"].join("\n");
    let hit = folder.path().join("hit");
    let script = format!("cd {} && {script}", folder.path().display());
    if let Some((done, said)) =
        looked("zsh", &[OsStr::new("-f"), OsStr::new("-c"), OsStr::new(&script), path.as_os_str()])
    {
        assert!(done, "{said}");
        assert_eq!(said.trim(), format!("{}\n{}\n-a", words("ids"), words("names")));
        assert!(!hit.exists());
    }
}

#[test]
fn bash_completes_ids_and_names_of_sessions_and_runs_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    completions::write(folder.path()).unwrap();
    let path = completion(folder.path(), "bash");
    // The helper itself prints plain words only; the completion does not rely on it.
    let script = r#"
        . "$0"
        motion-ad() {
            [[ $1 == complete ]] && printf '%s\n' "$2-1" "$2-2" other '$(touch hit)' '`touch hit`'
        }
        try() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _motion_ad_sessions motion-ad "${@: -1}" "${@: -2:1}"
            echo "${COMPREPLY[*]}"
        }
        try motion-ad sessions kick id
        try motion-ad sessions show ""
        try motion-ad sessions kick --user na
        try motion-ad sessions kick --us
        try motion-ad sessions wa
    "#;
    let output =
        Command::new("bash").arg("-c").arg(script).arg(&path).current_dir(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let all = "ids-1 ids-2 other $(touch hit) `touch hit`";
    assert_eq!(lines, ["ids-1 ids-2", all, "names-1 names-2", "--user", "watch"], "{:?}", output.stderr);
    assert!(!folder.path().join("hit").exists());
}
