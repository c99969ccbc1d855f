//! Writes the man pages from what the programs are made of: `cargo run --example man -- FOLDER`.
//!
//! With `--config` in place of the folder it prints the `config.toml` that is shipped.

#[path = "man/page.rs"]
mod page;

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use motion_ad::broker::cli::Arguments as BrokerCli;
use motion_ad::config::keys::{self, KEYS, TABLES};
use motion_ad::helper::Cli;
use motion_ad::module::arguments::{ARGUMENTS, Expired};
use motion_ad::module::code::{self, Code};
use motion_ad::name::NameMap;
use motion_ad::verdict::Outcome;

use page::Page;

const PAGES: &[(&str, u8)] = &[
    ("motion-ad", 1),
    ("motion-ad-map", 1),
    ("motion-ad-check", 1),
    ("motion-ad-login", 1),
    ("motion-ad-status", 1),
    ("motion-ad-doctor", 1),
    ("motion-ad.toml", 5),
    ("names.map", 5),
    ("pam_motion_ad", 8),
    ("motion-ad-broker", 8),
];

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1).ok_or("usage: man FOLDER | --config")?;
    if argument == "--config" {
        print!("{}", keys::example());
        return Ok(());
    }
    let folder = Path::new(&argument);
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    helper(folder)?;
    command(&BrokerCli::command(), "motion-ad-broker", 8)?.write(folder)?;
    module().write(folder)?;
    configuration().write(folder)?;
    name_map()?.write(folder)?;
    let written = fs::read_dir(folder)?.count();
    if written != PAGES.len() {
        return Err(format!("{written} pages were written, but SEE ALSO knows {}", PAGES.len()).into());
    }
    Ok(())
}

/// `motion-ad`, and a page for each of its commands.
fn helper(folder: &Path) -> io::Result<()> {
    // Without its own command `help`, which has no page.
    let mut all = Cli::command().disable_help_subcommand(true);
    all.build();
    command(&all, "motion-ad", 1)?.write(folder)?;
    for one in all.get_subcommands().filter(|one| !one.is_hide_set()) {
        command(one, &format!("motion-ad-{}", one.get_name()), 1)?.write(folder)?;
    }
    Ok(())
}

/// A program, or one of its commands.
fn command(command: &Command, name: &str, section: u8) -> io::Result<Page> {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    // The first line of the long text is the short one, which has no full stop.
    let long = format!("{about}.{}", long.strip_prefix(&about).unwrap_or_default());
    let more = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let more = more.unwrap_or_default();
    let mut sections = sections(&more).into_iter().peekable();

    let man = Man::new(command.clone()).section(section.to_string());
    let mut page = Page::new(name, section, &about);
    page.rendered(|out| man.render_synopsis_section(out))?;
    page.section("DESCRIPTION").text(&long);
    if let Some((_, text)) = sections.next_if(|(heading, _)| heading.is_empty()) {
        page.text(text.trim());
    }
    if command.has_subcommands() {
        page.section("COMMANDS");
        for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            page.item(&format!("motion-ad-{}(1)", one.get_name()), "", &[&about]);
        }
    }
    page.rendered(|out| man.render_options_section(out))?;
    for (heading, text) in sections {
        page.section(&heading.to_uppercase());
        match heading {
            "Examples" => {
                let lines: Vec<_> =
                    text.lines().map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
                page.example(lines.join("\n").trim_end());
            }
            _ => {
                for line in text.lines().filter(|line| !line.is_empty()) {
                    let (name, text) = line.trim().split_once("  ").unwrap_or((line, ""));
                    page.item(name, "", &[text.trim()]);
                }
            }
        }
    }
    page.see_also(PAGES);
    Ok(page)
}

/// The parts of a help text, each with the heading before it; the first may have none.
fn sections(text: &str) -> Vec<(&str, String)> {
    let mut sections = vec![("", String::new())];
    for line in text.lines() {
        match line.strip_suffix(':').filter(|heading| heading.starts_with(char::is_uppercase)) {
            Some(heading) => sections.push((heading, String::new())),
            None => {
                if let Some((_, text)) = sections.last_mut() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    sections.retain(|(_, text)| !text.trim().is_empty());
    sections
}

fn module() -> Page {
    let mut page = Page::new("pam_motion_ad", 8, "Active Directory login for XCALLY Motion");
    page.section("SYNOPSIS");
    page.text("`pam_motion_ad.so` [ARGUMENT…], on lines of a service in /etc/pam.d");
    page.section("DESCRIPTION").text(
        "Asks the broker, motion-ad-broker(8), whether a person may log in, and answers PAM. It reads no \
         configuration but its arguments, remembers nothing but a verdict, starts no thread, and waits no longer than \
         its timeout.\n\n\
         `authenticate` refuses a wrong password as well as an account that is disabled, locked, expired, outside \
         its hours or outside the allowed groups, so that applications that call nothing else let nobody in by \
         mistake. What can never be a password (empty, over 1024 bytes, not UTF-8) is refused before anybody is asked.\n\n\
         `acct_mgmt` repeats what authenticate was told on the same handle for up to 60 seconds; otherwise it asks \
         for the account's state, without a password.\n\n\
         `setcred` and `open_session`, `close_session` do nothing and succeed. `chauthtok` refuses: passwords are \
         changed in AD.\n\n\
         PAM_USER stays as the application set it. The prompt is \"Password: \".",
    );
    page.section("ARGUMENTS").text(
        "An unknown argument is logged and ignored. A known one with a broken value refuses every login \
         (PAM_SERVICE_ERR) until it is mended. Of an argument given twice the last one counts.",
    );
    for argument in ARGUMENTS {
        let name = match argument.value {
            "" => argument.name.to_owned(),
            value => format!("{}={value}", argument.name),
        };
        let facts = format!("Default: {}. Entry points: {}.", argument.default, argument.entry_points);
        page.item(&name, "", &[argument.text, &facts]);
    }
    page.section("RETURN VALUES").text(
        "Both authenticate and acct_mgmt answer an outcome with the same code (see `expired=` for the one exception). \
         The names of the outcomes are those of the log and of motion-ad(1).",
    );
    for code in Code::ALL {
        page.item(code.name(), "", &[code.text()]);
        for outcome in
            Outcome::ALL.iter().filter(|outcome| code::authenticate(**outcome, Expired::Auth) == *code)
        {
            page.nested(outcome.name(), outcome.meaning());
        }
    }
    page.section("MESSAGES").text("What the person is told with `messages`:");
    for outcome in Outcome::ALL {
        if let Some(text) = outcome.text() {
            page.item(outcome.name(), "", &[text]);
        }
    }
    page.section("FILES");
    page.item("/etc/pam.d/motion", "", &["The service of XCALLY Motion."]);
    page.item(motion_ad::protocol::SOCKET, "", &["Where the broker listens."]);
    let service = include_str!("../pam.d/motion");
    let lines: Vec<_> = service.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    page.section("EXAMPLES").text("/etc/pam.d/motion as it is shipped:").example(&lines.join("\n"));
    page.see_also(PAGES);
    page
}

fn configuration() -> Page {
    let mut page =
        Page::new("motion-ad.toml", 5, "configuration of the Active Directory login for XCALLY Motion");
    page.section("SYNOPSIS").text(&format!("`{}`", motion_ad::config::CONFIG));
    page.section("DESCRIPTION").text(
        "Settings of motion-ad-broker(8) and motion-ad(1), in TOML. An empty file works on a joined host: the domain \
         and its domain controllers come from sssd.conf(5) as the realm join wrote it and from DNS, the certificate \
         authorities that vouch for them from AD.\n\n\
         An unknown key, a value that makes no sense and a contradiction are errors. They name file and line, and \
         every login is denied until they are mended: what the administrator asked for is unknown. The broker \
         notices a change by itself; `/usr/libexec/motion-ad/motion-ad-broker --check-config` says beforehand whether the file can be used.",
    );
    for (table, text) in TABLES {
        page.section(&format!("[{table}]")).text(text);
        for key in KEYS.iter().filter(|key| key.table == *table) {
            let default = match key.otherwise {
                "" => format!("Default: {}", key.value),
                otherwise => format!("Default: {otherwise}. Example: {}", key.value),
            };
            page.item(key.name, &format!("({})", key.kind), &[key.text, &default]);
        }
    }
    page.section("EXAMPLES").text("A domain with a CA of its own, whose agents alone may log in:");
    page.example("[tls]\nca_file = \"/etc/motion-ad/ca.pem\"\n\n[login]\nallow_groups = [\"XCALLY Agents\"]");
    page.see_also(PAGES);
    page
}

fn name_map() -> Result<Page, Box<dyn Error>> {
    const EXAMPLE: &str = "\
# the name as XCALLY knows it = the account in AD
jd = john.doe@acme.com
front desk = reception@sales.acme.com";
    NameMap::parse(EXAMPLE)?;
    let mut page = Page::new("names.map", 5, "XCALLY names that differ from those in Active Directory");
    page.section("SYNOPSIS").text("`/etc/motion-ad/names.map`");
    page.section("DESCRIPTION").text(
        "By the rule a name that is typed at the login page is an AD account of the joined domain: john.doe becomes \
         john.doe@acme.com. john.doe@DOMAIN and DOMAIN\\john.doe are understood where DOMAIN is the joined domain or in \
         `names.domains` of motion-ad.toml(5); NAME@SUFFIX too, where the forest publishes the UPN suffix. A line of this file wins over the rule.\n\n\
         A line is a name, an equals sign and user@domain. Spaces around them are ignored, and so are empty lines and \
         lines that begin with #. The last equals sign of a line separates. Names are compared without case. The \
         domain may be any that AD knows the account by, also one that people may not type.\n\n\
         A line that cannot be understood, or that contradicts an earlier one, denies every login until it is mended: \
         passing over it might let somebody in as somebody else. Two names may lead to one account.\n\n\
         `motion-ad map` NAME shows what a name becomes, `motion-ad map --reverse` the way back. The broker notices a \
         change by itself.",
    );
    page.section("EXAMPLES").example(EXAMPLE);
    page.see_also(PAGES);
    Ok(page)
}
