//! Checks of the documents that need no lab: paths, commands, keys, arguments, numbers, imports.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod foreign;
mod imports;
mod pictures;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _, Parser as _};
use motion_ad::config::keys::{KEYS, TABLES};
use motion_ad::config::{Config, DEFAULT_USER, RIGHTS};
use motion_ad::helper::Cli;
use motion_ad::module::arguments::{ARGUMENTS, Arguments};
use motion_ad::name::NameMap;
use motion_ad::verdict::Outcome;
use motion_ad_support::blocks;

/// Documents in addition to README.md and docs/.
const DOCUMENTS: [&str; 5] =
    ["CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md", "CHANGELOG.md", "packaging/RELEASING.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns every document with its name.
fn documents() -> impl Iterator<Item = (String, String)> {
    let more = DOCUMENTS.iter().map(|name| (*name).to_owned());
    blocks::documents(root()).unwrap().into_iter().chain(more).map(|name| (name.clone(), read(name)))
}

/// Returns the blocks of README.md and docs/ in this language.
fn fenced(language: &str) -> Vec<blocks::Block> {
    let names = blocks::documents(root()).unwrap();
    let all = names.iter().flat_map(|name| blocks::blocks(root(), name).unwrap());
    all.filter(|block| block.language == language).collect()
}

/// Returns the inline code: text between backticks on one line.
fn inline(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("```"));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Returns the lines of indented and fenced blocks, without their comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    let code = text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !is_fence && (fenced || line.starts_with("    "))
    });
    code.map(|line| match line.split_once(" # ") {
        Some((command, _)) => command.trim(),
        None => line.trim(),
    })
}

/// Returns inline code and block lines that begin with `word`.
fn commands<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    inline(text)
        .chain(code(text))
        .filter(move |command| command.strip_prefix(word).is_some_and(|rest| rest.starts_with(' ')))
}

/// Returns the rows of the tables with this number of columns.
fn rows(text: &str, columns: usize) -> Vec<Vec<&str>> {
    text.lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|---"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>())
        .filter(|row| row.len() == columns)
        .collect()
}

#[test]
fn every_path_exists() {
    let is_ours = |token: &str| {
        ["src/", "tests/", "packaging/", "pam.d/", "docs/"].iter().any(|folder| token.starts_with(folder))
            || token.ends_with(".md")
            || token.starts_with("LICENSE-")
    };
    for (name, text) in documents() {
        let tokens = text.split(|c: char| !(c.is_alphanumeric() || "_-./".contains(c)));
        let paths: BTreeSet<_> =
            tokens.map(|token| token.trim_end_matches(['.', '/'])).filter(|t| is_ours(t)).collect();
        // A link is relative to the document.
        let beside = root().join(&name);
        let beside = beside.parent().unwrap();
        for path in paths {
            assert!(root().join(path).exists() || beside.join(path).exists(), "{name}: {path}");
        }
    }
}

#[test]
fn every_list_of_changes_begins_with_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let changes = read("CHANGELOG.md");
    let first = changes.lines().find(|line| line.starts_with("## ")).unwrap();
    assert!(first.starts_with(&format!("## [{version}] - ")), "CHANGELOG.md: {first}");
    let debian = read("packaging/debian/changelog");
    assert!(debian.starts_with(&format!("motion-ad ({version}) ")), "{}", debian.lines().next().unwrap());
    assert!(read("docs/upgrading.md").contains(&format!(" to {version}\n")), "docs/upgrading.md");
}

#[test]
fn a_vulnerability_is_reported_to_the_packages_maintainer() {
    let control = read("packaging/debian/control");
    let maintainer = control.lines().find(|line| line.starts_with("Maintainer: ")).unwrap();
    let (_, address) = maintainer.split_once(" <").unwrap();
    assert!(read("SECURITY.md").contains(&format!("<{address}")), "{maintainer}");
}

#[test]
fn every_make_target_exists() {
    let makefile = read("Makefile");
    let mut seen = 0;
    for (name, text) in documents() {
        for command in commands(&text, "make") {
            let target = command.split_whitespace().nth(1).unwrap();
            assert!(makefile.contains(&format!("\n{target}:")), "{name}: {command}");
            seen += 1;
        }
    }
    assert!(seen > 5);
}

#[test]
fn every_command_of_the_lab_exists() {
    let script = read("tests/lab/lab");
    let mut seen = 0;
    for (name, text) in documents() {
        for command in commands(&text, "tests/lab/lab") {
            let word = command.split_whitespace().nth(1).unwrap();
            assert!(script.lines().any(|line| line.starts_with(&format!("lab {word}"))), "{name}: {command}");
            seen += 1;
        }
    }
    assert!(seen > 3);
}

/// Returns the words of a shell command, up to a pipe or a redirection.
fn words(command: &str) -> Vec<String> {
    let words = command.split_whitespace().take_while(|word| !["|", "<", ">"].contains(word));
    words.map(|word| word.trim_matches('\'').to_owned()).filter(|word| word != "sudo").collect()
}

/// Returns the help texts of a command and of its subcommands.
fn helps(command: &Command) -> Vec<String> {
    let own = command.get_after_help().unwrap().to_string();
    command.get_subcommands().flat_map(helps).chain([own]).collect()
}

#[test]
fn every_line_of_the_helper_is_understood() {
    let help = helps(&Cli::command());
    // In the help texts, an example is indented by two spaces, and its explanation by three more.
    let help: Vec<_> =
        help.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("  ")).collect();
    let examples =
        help.iter().filter(|line| line.contains("motion-ad ")).map(|line| line.split("   ").next().unwrap());
    let documents: Vec<_> = documents().collect();
    let documented = documents.iter().flat_map(|(_, text)| commands(text, "motion-ad"));
    let mut seen = 0;
    for line in documented.filter(|line| !line.contains('·')).chain(examples) {
        if let Err(e) = Cli::try_parse_from(words(line)) {
            panic!("{line}: {e}");
        }
        seen += 1;
    }
    assert!(seen > 12);
}

#[test]
fn every_configuration_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("names.map"), "").unwrap();
    fs::write(path("sssd.conf"), "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ad\n")
        .unwrap();
    let map = format!("[names]\nmap_file = {:?}\n", path("names.map"));
    let configurations = fenced("toml");
    for block in &configurations {
        let text = match block.text.contains("[names]\n") {
            true => block.text.replace("[names]\n", &map),
            false => format!("{}{map}", block.text),
        };
        fs::write(path("config.toml"), text).unwrap();
        if let Err(e) = Config::load(&path("config.toml"), &path("sssd.conf")) {
            panic!("{}: {e}", block.place);
        }
    }
    assert!(configurations.len() > 4);
}

/// Each block has the same effect at the end of the shipped file as it has alone.
#[test]
fn every_configuration_can_be_put_at_the_end_of_the_shipped_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("names.map"), "").unwrap();
    fs::write(path("sssd.conf"), "[sssd]\ndomains = acme.com\n[domain/acme.com]\nid_provider = ad\n")
        .unwrap();
    let shipped = read("packaging/config.toml");
    let settings = |text: &str| {
        // The default path of the map does not exist on this machine.
        let map = format!("map_file = {:?}\n", path("names.map"));
        let text = match text.contains("\n[names]\n") {
            true => text.replace("\n[names]\n", &format!("\n[names]\n{map}")),
            false => format!("names.{map}{text}"),
        };
        fs::write(path("config.toml"), text).unwrap();
        Config::load(&path("config.toml"), &path("sssd.conf")).map_err(|e| e.to_string())
    };
    for block in fenced("toml") {
        let alone = settings(&format!("\n{}", block.text));
        assert!(alone.is_ok(), "{}: {alone:?}", block.place);
        assert_eq!(settings(&format!("{shipped}\n{}", block.text)), alone, "{}", block.place);
    }
}

#[test]
fn every_key_that_is_named_exists() {
    let mut texts: Vec<_> =
        documents().map(|(_, text)| inline(&text).map(str::to_owned).collect::<Vec<_>>()).collect();
    let advice = Outcome::ALL.iter().flat_map(|outcome| outcome.advice().split_whitespace());
    texts.push(advice.map(|word| word.trim_end_matches([';', ',']).to_owned()).collect());
    let mut seen = 0;
    for word in texts.iter().flatten().filter(|word| !word.starts_with("names.map")) {
        let word = word.split(" = ").next().unwrap();
        let Some((table, key)) = word.split_once('.') else { continue };
        if TABLES.iter().any(|(known, _)| *known == table) && !key.contains(['.', '/']) {
            assert!(KEYS.iter().any(|known| (known.table, known.name) == (table, key)), "{word}");
            seen += 1;
        }
    }
    assert!(seen > 6);
}

#[test]
fn the_rights_at_the_redis_are_the_ones_that_are_tested() {
    let written: String = fenced("redis").into_iter().map(|block| block.text).collect();
    for line in [format!("user motion on >PASSWORD {RIGHTS}"), DEFAULT_USER.to_owned()] {
        assert!(written.lines().any(|written| written == line), "{line}");
    }
}

#[test]
fn every_line_of_a_name_map_is_understood() {
    let maps = fenced("names");
    for map in &maps {
        NameMap::parse(&map.text).unwrap_or_else(|e| panic!("{}: {e}", map.place));
    }
    assert!(!maps.is_empty());
}

#[test]
fn every_argument_of_the_module_is_accepted() {
    let service = read("pam.d/motion");
    let listed = service
        .lines()
        .filter_map(|line| line.strip_prefix("#   "))
        .map(|line| line.split(' ').next().unwrap());
    let mut seen = 0;
    for argument in listed.filter(|argument| !argument.is_empty()) {
        let written = CString::new(argument.replace("PATH", "/run/x")).unwrap();
        assert_eq!(Arguments::parse(&[&written]).1, [], "{argument}");
        seen += 1;
    }
    assert_eq!(seen, ARGUMENTS.len());
    for (name, text) in documents() {
        for argument in inline(&text).filter_map(|word| word.strip_suffix('=')) {
            let exists = ARGUMENTS.iter().any(|known| known.name == argument);
            let is_systemds = ["IPAddressDeny", "LoadCredential"].contains(&argument);
            assert!(exists || is_systemds, "{name}: {argument}=");
        }
    }
}

/// The comments of the shipped service advise the same arguments on all lines, and each line has those that
/// mean something there.
#[test]
fn an_argument_is_on_each_line_of_the_shipped_service_that_it_concerns() {
    const ENTRY_POINTS: [(&str, &[&str]); 4] = [
        ("auth", &["authenticate", "setcred"]),
        ("account", &["acct_mgmt"]),
        ("password", &["chauthtok"]),
        ("session", &["open_session", "close_session"]),
    ];
    let service = read("pam.d/motion");
    let lines = service.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let lines: Vec<Vec<_>> = lines.map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.iter().map(|line| line[0]).collect::<Vec<_>>(), ENTRY_POINTS.map(|(kind, _)| kind));
    let written: BTreeSet<_> = lines.iter().flat_map(|line| &line[3..]).copied().collect();
    assert!(!written.is_empty());
    for argument in written {
        let name = argument.split('=').next().unwrap();
        let known = ARGUMENTS.iter().find(|known| known.name == name).unwrap();
        for (line, (kind, entry_points)) in lines.iter().zip(ENTRY_POINTS) {
            let is_common = known.entry_points.starts_with("all");
            let concerns = is_common || known.entry_points.split(", ").any(|one| entry_points.contains(&one));
            assert_eq!(line[3..].contains(&argument), concerns, "{argument} on the {kind} line");
        }
    }
}

#[test]
fn every_command_is_run_in_the_lab_or_says_why_not() {
    let commands = fenced("sh");
    let unrun: Vec<_> = commands.iter().filter_map(|block| block.unrun.as_ref()).collect();
    assert!(commands.len() > 20 && unrun.len() <= 4, "{unrun:?}");
    for block in &commands {
        let place = &block.place;
        assert!(block.host != block.unrun.is_some(), "{place}: see tests/support/src/blocks.rs");
        assert!(block.unrun.as_ref().is_none_or(|reason| reason.len() > 20), "{place}: why is it not run?");
    }
    let known = ["sh", "toml", "pam", "names", "redis", "text"];
    for (name, text) in documents().filter(|(name, _)| name == "README.md" || name.starts_with("docs/")) {
        let all = blocks::blocks(root(), &name).unwrap();
        if let Some(block) = all.iter().find(|block| !known.contains(&block.language.as_str())) {
            panic!("{}: nobody knows what {} is", block.place, block.language);
        }
        // Without a fence, a block has no language that says how to test it.
        assert_eq!(
            code(&text).filter(|line| !line.is_empty()).count(),
            all.iter().map(lines).sum::<usize>(),
            "{name}"
        );
    }
}

/// Returns the number of non-empty lines of a block.
fn lines(block: &blocks::Block) -> usize {
    block.text.lines().filter(|line| !line.is_empty()).count()
}

#[test]
fn every_line_of_a_service_is_one_that_the_module_accepts() {
    let services = fenced("pam");
    assert!(services.len() > 4);
    for service in &services {
        assert!(
            service.file.as_deref().is_some_and(|file| file.starts_with("/etc/pam.d/")),
            "{}",
            service.place
        );
        for line in service.text.lines() {
            let Some((_, arguments)) = line.split_once("pam_motion_ad.so") else { continue };
            let arguments: Vec<_> =
                arguments.split_whitespace().map(|word| CString::new(word).unwrap()).collect();
            let arguments: Vec<_> = arguments.iter().map(CString::as_c_str).collect();
            assert_eq!(Arguments::parse(&arguments).1, [], "{}: {line}", service.place);
        }
    }
}

/// Parses "`file`: NAME", the place of a constant or of a test.
fn place(cell: &str) -> Option<(&str, &str)> {
    let (file, name) = cell.strip_prefix('`')?.split_once("`: ")?;
    Some((file, name))
}

/// Returns the value of a constant as the tables write it.
fn value(definition: &str) -> String {
    let (_, value) = definition.trim_end_matches(';').split_once(" = ").unwrap();
    let call = |function: &str| value.strip_prefix(function)?.strip_prefix('(')?.strip_suffix(')');
    match (call("Duration::from_secs"), call("Duration::from_millis")) {
        (Some(seconds), _) => format!("{seconds} s"),
        (_, Some(milliseconds)) => format!("{milliseconds} ms"),
        _ => value.replace('_', ""),
    }
}

#[test]
fn every_bound_is_the_one_in_the_code() {
    let text = read("ARCHITECTURE.md");
    let mut seen = 0;
    for row in rows(&text, 3) {
        let Some((file, name)) = place(row[2]) else { continue };
        let source = read(file);
        let definition = source.lines().find(|line| line.contains(&format!("const {name}: ")));
        let value = value(definition.unwrap_or_else(|| panic!("{file} has no {name}")));
        let words = |text: &str| format!(" {text} ");
        assert!(words(row[1]).contains(&words(&value)), "{file}: {name} is {value}, not {}", row[1]);
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn every_test_that_shows_a_defence_exists() {
    let text = read("SECURITY.md");
    let mut seen = BTreeSet::new();
    for row in rows(&text, 3) {
        let Some((file, name)) = place(row[2]) else { continue };
        assert!(read(file).contains(&format!("fn {name}(")), "{file} has no test {name}");
        assert!(seen.insert((file, name)), "SECURITY.md has two rows for {name}");
    }
    assert!(seen.len() > 10, "{}", seen.len());
}

/// A row of the ledger names one or more tests.
#[test]
fn every_test_of_the_ledger_exists() {
    let text = read("docs/cve-ledger.md");
    let mut seen = 0;
    for line in text.lines().filter(|line| line.starts_with("| CVE-") || line.starts_with("| GHSA-")) {
        let rows = rows(line, 4);
        let [row] = &rows[..] else { panic!("not four columns: {line}") };
        for cell in row[3].split("; ") {
            let (file, name) = place(cell).unwrap_or_else(|| panic!("{}: {cell}", row[0]));
            assert!(read(file).contains(&format!("fn {name}(")), "{}: {file} has no test {name}", row[0]);
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

/// Returns the Rust files at `path`, which is a file or a folder.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    fs::read_dir(path).unwrap().flat_map(|entry| sources(&entry.unwrap().path())).collect()
}

/// Returns the modules of this project that `source` uses.
fn imports(source: &str) -> BTreeSet<String> {
    let after = |word| source.split(word).skip(1).map(|rest: &str| rest.to_owned()).collect::<Vec<_>>();
    let names = after("crate::").into_iter().chain(after("motion_ad::"));
    names
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>())
        .filter(|name| {
            root().join("src").join(name).exists() || root().join(format!("src/{name}.rs")).exists()
        })
        .collect()
}

#[test]
fn imports_point_one_way() {
    let text = read("ARCHITECTURE.md");
    let mut covered = BTreeSet::new();
    for row in rows(&text, 3) {
        let paths: Vec<_> = inline(row[0]).filter(|path| path.starts_with("src/")).collect();
        for path in paths {
            let own = Path::new(path).file_stem().unwrap().to_str().unwrap();
            let allowed: BTreeSet<_> = row[2].split(", ").collect();
            for file in sources(&root().join(path)) {
                covered.insert(file.clone());
                for import in imports(&read(&file)).iter().filter(|import| *import != own) {
                    assert!(allowed.contains(import.as_str()), "{}: {import}", file.display());
                }
            }
        }
    }
    covered.insert(root().join("src/lib.rs"));
    assert_eq!(covered, sources(&root().join("src")).into_iter().collect());
}

/// Only files of tests may use what they test from below.
const OF_TESTS: [&str; 5] = ["tests.rs", "suite.rs", "store/model.rs", "scripted.rs", "changepw.rs"];

#[test]
fn no_folder_has_a_circle_of_imports() {
    let source = root().join("src");
    let mut modules = imports::Modules::new();
    for file in sources(&source) {
        let is_of_tests = OF_TESTS.iter().any(|name| file.ends_with(name));
        let path = file.strip_prefix(&source).unwrap().with_extension("");
        let mut names: Vec<_> = path.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        names.pop_if(|last| last == "mod" || last == "lib");
        if !is_of_tests && !path.starts_with("bin") {
            modules.insert(names, read(&file));
        }
    }
    let arrows = imports::arrows(&modules);
    assert!(arrows.len() > 10 && arrows[&Vec::new()].len() > 10, "{arrows:?}");
    for (folder, parts) in &arrows {
        assert_eq!(imports::circle(parts), None, "src/{}", folder.join("/"));
    }
}

/// The module runs in applications, also in those that run with more rights than their user.
#[test]
fn the_module_reads_no_environment() {
    const WAYS: [&str; 6] =
        ["std::env", "env::", "libc::getenv", "libc::environ", "secure_getenv", "fn getenv"];
    let library = read("src/lib.rs");
    let lines: Vec<_> = library.lines().collect();
    let modules = lines.windows(2).filter(|pair| !pair[0].starts_with("#[cfg("));
    let modules: Vec<_> = modules.filter_map(|pair| pair[1].strip_prefix("pub mod ")).collect();
    assert!(modules.contains(&"module;") && modules.len() < 10, "{modules:?}");
    for module in modules.iter().map(|name| name.trim_end_matches(';')) {
        let folder = root().join("src").join(module);
        let path = if folder.exists() { folder } else { folder.with_extension("rs") };
        for file in sources(&path).into_iter().filter(|file| !file.ends_with("tests.rs")) {
            let code = imports::production(&read(&file));
            let found = WAYS.iter().find(|way| code.contains(**way));
            assert_eq!(found, None, "{}", file.display());
        }
    }
}

/// Tasks that live as long as the broker must not end unnoticed. `src/supervise.rs` starts and watches them.
#[test]
fn background_work_is_supervised() {
    for file in sources(&root().join("src")) {
        let text = read(&file);
        let marks = ["#[cfg(test)]\nmod tests", "#[cfg(test)]\npub(crate) mod tests"];
        let code = marks.iter().fold(text.as_str(), |code, mark| code.split(mark).next().unwrap());
        let is_shell =
            ["src/supervise.rs", "src/helper/"].iter().any(|path| file.starts_with(root().join(path)));
        for (number, line) in (1..).zip(code.lines()).filter(|_| !is_shell) {
            let is_endless = line.contains("tokio::spawn(") && line.contains("keep(");
            let is_thread = line.contains("thread::spawn(") || line.contains("thread::Builder");
            let is_test = file.file_name().is_some_and(|name| name == "tests.rs" || name == "suite.rs");
            assert!(is_test || !(is_endless || is_thread), "{}:{number}: {line}", file.display());
        }
    }
}

/// rustfmt breaks neither comments nor strings. Only a table that it must leave alone may be wider.
#[test]
fn no_line_of_rust_is_wider_than_rustfmt_makes_it() {
    let settings = read("rustfmt.toml");
    let width = settings.lines().find_map(|line| line.strip_prefix("max_width = ")).unwrap();
    let width: usize = width.parse().unwrap();
    let files = ["build.rs", "packaging", "src", "tests"].iter().flat_map(|path| sources(&root().join(path)));
    let mut wide = Vec::new();
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        // The indentation of the table that the line belongs to.
        let mut table = None;
        for (number, line) in (1..).zip(read(&file).lines()) {
            let indent = line.len() - line.trim_start().len();
            match table {
                _ if line.trim() == "#[rustfmt::skip]" => table = Some(indent),
                Some(of) if indent == of && line.ends_with(['}', ';']) => table = None,
                Some(_) => {}
                None if line.chars().count() > width => wide.push(format!("{}:{number}", file.display())),
                None => {}
            }
        }
    }
    assert!(wide.is_empty(), "{wide:#?}");
}
