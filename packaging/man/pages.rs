//! The man pages, written from the tables and arguments of the programs.

mod page;

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use motion_ad::bridge::cli::Arguments as BridgeCli;
use motion_ad::broker::cli::Arguments as BrokerCli;
use motion_ad::config::keys::{KEYS, TABLES};
use motion_ad::config::{DEFAULT_USER, RIGHTS, SENTINEL_RIGHTS};
use motion_ad::helper::Cli;
use motion_ad::module::arguments::{ARGUMENTS, Expired};
use motion_ad::module::code::{self, Code, Phase};
use motion_ad::module::handle;
use motion_ad::name::NameMap;
use motion_ad::verdict::Outcome;

use page::Page;

/// The name of a page and its section.
type Title = (String, u8);

/// Writes every page to `folder`, which it first deletes and creates again.
///
/// # Errors
/// Returns an error if a file cannot be written, or if an example in a page cannot be parsed.
pub fn write(folder: &Path) -> Result<(), Box<dyn Error>> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    // Without clap's command `help`, which has no page.
    let mut helper = Cli::command().disable_help_subcommand(true);
    helper.build();
    let commands = commands(&helper, "motion-ad");
    let of_commands = commands.iter().map(|(name, _)| (name.clone(), 1));
    let others = [
        ("motion-ad.toml", 5),
        ("names.map", 5),
        ("pam_motion_ad", 8),
        ("motion-ad-broker", 8),
        ("motion-ad-ldap", 8),
    ];
    let titles: Vec<Title> =
        of_commands.chain(others.map(|(name, section)| (name.to_owned(), section))).collect();
    let mut pages = Vec::new();
    for (name, one) in &commands {
        pages.push(command(one, name, 1)?);
    }
    pages.push(command(&BrokerCli::command(), "motion-ad-broker", 8)?);
    pages.push(command(&BridgeCli::command(), "motion-ad-ldap", 8)?);
    pages.extend([module(), configuration(), name_map()?]);
    for mut page in pages {
        page.see_also(&titles);
        page.write(folder)?;
    }
    Ok(())
}

/// Returns a command and its visible subcommands, each with the name of its page.
fn commands<'a>(command: &'a Command, name: &str) -> Vec<(String, &'a Command)> {
    let mut all = vec![(name.to_owned(), command)];
    for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        all.extend(commands(one, &format!("{name}-{}", one.get_name())));
    }
    all
}

/// Returns the page of a program, or of one of its commands.
fn command(command: &Command, name: &str, section: u8) -> io::Result<Page> {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    // The long text begins with the short one, which has no full stop.
    let long = format!("{about}.{}", long.strip_prefix(&about).unwrap_or_default());
    let more = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let more = more.unwrap_or_default();
    let mut sections = sections(&more).into_iter().peekable();

    let man = Man::new(command.clone()).section(section.to_string());
    let mut page = Page::new(name, section, &about);
    page.section("SYNOPSIS").text(&synopsis(command, name));
    page.section("DESCRIPTION").text(&long);
    if let Some((_, text)) = sections.next_if(|(heading, _)| heading.is_empty()) {
        page.text(text.trim());
    }
    if command.has_subcommands() {
        page.section("COMMANDS");
        for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            page.item(&format!("{name}-{}(1)", one.get_name()), "", &[&about]);
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
    Ok(page)
}

/// Returns the command with its arguments and their values.
fn synopsis(command: &Command, name: &str) -> String {
    let program = command.get_bin_name().unwrap_or(name);
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let (positionals, options): (Vec<_>, Vec<_>) = shown.partition(|argument| argument.is_positional());
    let mut words = vec![format!("`{program}`")];
    // The options of every command come last.
    let (global, own): (Vec<_>, Vec<_>) =
        options.into_iter().partition(|argument| argument.is_global_set() || argument.get_long().is_none());
    for argument in own.into_iter().chain(positionals).chain(global) {
        let values = argument.get_value_names().unwrap_or_default();
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        let takes = argument.get_action().takes_values();
        let mut word = match argument.get_long() {
            Some("help" | "version") => continue,
            Some(long) if takes => format!("`--{long}` {}", values.join(" ")),
            Some(long) => format!("`--{long}`"),
            None => values.join(" "),
        };
        if matches!(argument.get_action(), clap::ArgAction::Append) {
            word += "...";
        }
        words.push(if argument.is_required_set() { word } else { format!("[{word}]") });
    }
    if command.has_subcommands() {
        words.push("COMMAND".to_owned());
    }
    words.join(" ")
}

/// Returns the parts of a help text, each with its heading; the first may have none.
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
        "Queries the broker, motion-ad-broker(8), for the outcome of a login, and returns it to PAM. The \
         module reads no configuration except its arguments, keeps only verdicts and the id of a session on \
         the handle, starts no thread, and waits no longer than its timeout.\n\n\
         `authenticate` rejects a wrong password, and also an account that is disabled, locked, expired, \
         outside its hours or outside the allowed groups, so that applications that call nothing else do not \
         grant access by mistake. A password that can never be right (empty, over 1024 bytes, not UTF-8) is \
         rejected without a request to the broker.\n\n\
         `acct_mgmt` repeats the verdict of authenticate on the same handle for up to 60 seconds; otherwise \
         it requests the account's state, without a password.\n\n\
         `chauthtok` changes the password, `open_session` and `close_session` register and end sessions: see \
         PASSWORD CHANGE and SESSIONS. `setcred` does nothing and succeeds.\n\n\
         With `messages` a user whose password expires within `login.warn_days` days (motion-ad.toml(5)) is \
         warned, once on a handle: by authenticate, or by acct_mgmt if nothing else is called.\n\n\
         PAM_USER stays as the application set it. The prompt is \"Password: \".",
    );
    page.section("ARGUMENTS").text(
        "An unknown argument is logged and ignored. A known one with a broken value rejects every login \
         (PAM_SERVICE_ERR, for sessions PAM_SESSION_ERR) until it is fixed. If an argument is given twice, \
         the last one counts.",
    );
    for argument in ARGUMENTS {
        let name = match argument.value {
            "" => argument.name.to_owned(),
            value => format!("{}={value}", argument.name),
        };
        let facts = format!(
            "Default: {}. Entry points: {}. Since: {}. Cost: {}.",
            argument.default, argument.entry_points, argument.since, argument.cost
        );
        page.item(&name, "", &[argument.text, &facts]);
    }
    page.section("PASSWORD CHANGE").text(
        "libpam calls `chauthtok` twice. The first call prompts for the present password, unless an earlier \
         password line has done so, and the broker checks if it may be changed; nothing is changed yet. The \
         second call prompts twice for the new password, and the broker changes it, once. The prompts are \
         those of libpam: \"Current password: \", \"New password: \", \"Retype new password: \" (see \
         `authtok_type=`). libpam keeps no password of an earlier authenticate, so the user types the \
         present one again.\n\n\
         With PAM_CHANGE_EXPIRED_AUTHTOK a password that has not expired is left alone, without a prompt, \
         and the result is PAM_SUCCESS: PAM_IGNORE would be a failure in a service that has no other \
         password line. A user who may not log in for another reason cannot change the password in this \
         way.\n\n\
         Texts, in particular AD's reason for rejecting a new password, are shown without `messages`, but \
         not with PAM_SILENT. Those of libpam itself (\"Sorry, passwords do not match.\") are always \
         shown.\n\n\
         If the answer to a change is lost, the result is PAM_AUTHINFO_UNAVAIL, which means nothing else in \
         the second call: the new password may be in force. After a success PAM_AUTHTOK is the new password \
         for the lines that follow; otherwise it is unset. A present password that was rejected in the first \
         call is not sent again in the second one.",
    );
    page.section("SESSIONS").text(
        "With `session=pam` open_session registers a session and close_session ends it. With `session=auth` \
         a successful authenticate registers it, open_session succeeds and registers no second one, and \
         close_session ends it as well. `sessions.policy` in motion-ad.toml(5) decides about a second \
         session of the same user. close_session on a handle that opened none ends the newest session of the \
         user that the same process opened with the same service, otherwise one of another process of the \
         same user. A PAM_RHOST or PAM_TTY that is set must be the session's.\n\n\
         A handle has one session. If an application authenticates or opens another one on it, the earlier \
         session ends once the new one is registered. If a user may have one session and a second one is \
         denied, call close_session first.\n\n\
         Together with `expired=account`, a user who must change the password has no session before the \
         change. The change registers it, otherwise acct_mgmt or open_session after it.",
    );
    page.section("ENVIRONMENT");
    page.item(
        handle::SESSION,
        "",
        &["Set in the environment of the handle (pam_getenv(3)): the id of the session."],
    );
    page.section("RETURN VALUES").text(
        "Both authenticate and acct_mgmt return the same code for an outcome (see `expired=` for the one \
         exception). The names of the outcomes are those of the log and of motion-ad(1).",
    );
    for code in Code::ALL {
        page.item(code.name(), "", &[code.text()]);
        for outcome in
            Outcome::ALL.iter().filter(|outcome| code::authenticate(**outcome, Expired::Auth) == *code)
        {
            page.nested(outcome.name(), outcome.meaning());
        }
    }
    page.text("`chauthtok` returns the same codes, except for these:");
    for (phase, name) in [(Phase::Probe, "first call"), (Phase::Change, "second call")] {
        for &code in Code::ALL {
            let own: Vec<_> = Outcome::ALL
                .iter()
                .filter(|outcome| code::change(**outcome, phase) == code && code::account(**outcome) != code)
                .map(|outcome| outcome.name())
                .collect();
            if !own.is_empty() {
                page.item(code.name(), &format!("({name})"), &[&own.join(", ")]);
            }
        }
    }
    page.text(
        "`open_session` and `close_session` return PAM_SUCCESS, PAM_PERM_DENIED for session_denied, and \
         PAM_SESSION_ERR for everything else.",
    );
    page.section("MESSAGES").text("Texts for the user with `messages`, which chauthtok always shows:");
    for outcome in Outcome::ALL {
        if let Some(text) = outcome.text() {
            page.item(outcome.name(), "", &[text]);
        }
    }
    page.section("FILES");
    page.item("/etc/pam.d/motion", "", &["The service of XCALLY Motion."]);
    page.item(motion_ad::protocol::SOCKET, "", &["The socket of the broker."]);
    let service = include_str!("../../pam.d/motion");
    let lines: Vec<_> = service.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    page.section("EXAMPLES").text("/etc/pam.d/motion as shipped:").example(&lines.join("\n"));
    page
}

fn configuration() -> Page {
    let mut page =
        Page::new("motion-ad.toml", 5, "configuration of the Active Directory login for XCALLY Motion");
    page.section("SYNOPSIS").text(&format!("`{}`", motion_ad::config::CONFIG));
    page.section("DESCRIPTION").text(
        "Settings of motion-ad-broker(8) and motion-ad(1), in TOML. An empty file works on a joined host: \
         the domain and its domain controllers come from sssd.conf(5) as the realm join wrote it and from \
         DNS, and the certificate authorities that vouch for them from AD.\n\n\
         An unknown key, an invalid value and a contradiction are errors, reported with file and line. A \
         broker that starts with such a file denies every login until you fix it, because it cannot know \
         your intention. If the file breaks while the broker runs, the last good configuration stays in \
         force. The broker notices a change by itself. To check the file first, run \
         `/usr/libexec/motion-ad/motion-ad-broker --check-config`.",
    );
    for (table, text) in TABLES {
        page.section(&format!("[{table}]")).text(text);
        for key in KEYS.iter().filter(|key| key.table == *table) {
            let default = match key.otherwise {
                "" => format!("Default: {}", key.value()),
                otherwise => format!("Default: {otherwise}. Example: {}", key.value()),
            };
            page.item(key.name, &format!("({})", key.kind), &[key.text, &default]);
        }
    }
    page.section("A REDIS FOR SEVERAL SERVERS").text(
        "Servers with the same `sessions.store` share one register. It needs a Redis 7, or Sentinels and the \
         servers that they monitor. Its keys there begin with motion-ad:. In redis.conf(5):",
    );
    page.example(&format!("user motion on >PASSWORD {RIGHTS}\nappendonly yes\nmaxmemory-policy noeviction"));
    page.text(
        "Without appendonly a restart of the server loses the register; `appendfsync always` keeps every \
         confirmed change even if the server is killed or the power fails. A restart also loses the register \
         if the user default has no rights, as after `user default off`: such a server skips the changes of \
         scripts when it reads its log (redis/redis#14541). This line switches the user off as well, and \
         keeps its rights:",
    );
    page.example(DEFAULT_USER);
    page.text(
        "Any other `maxmemory-policy` evicts keys, and the register with them: it starts empty, and the log \
         reports this. A login takes about a kilobyte for a day, and the newest 10,000 events stay.\n\n\
         With replicas, set `min-replicas-to-write 1` and `min-replicas-max-lag 5`, and run at least two of \
         them, because the one that becomes the master needs a replica in turn. A master that is cut off \
         then accepts no sessions, and logins are denied, or get access by `sessions.on_store_failure`. Even \
         so, a change that a master confirmed in its last moment may be lost with it: a user is then logged \
         in without a registered session, or a session that has ended is open again until its process ends \
         or it is too old.\n\n\
         The broker queries Sentinels without a password, or with the same user and password if they require \
         one:",
    );
    page.example(&format!("user motion on >PASSWORD {SENTINEL_RIGHTS}"));
    page.text(
        "With TLS a server must have a certificate for the name in `sessions.store`, or for the name or \
         address that the Sentinels report: `sentinel resolve-hostnames yes` and `sentinel \
         announce-hostnames yes` make it a name. Without TLS the password and the register are sent in the \
         clear.\n\n\
         A client that may write there can end and invent sessions, and so choose the arguments of \
         `sessions.on_evict`. No password is kept there.",
    );
    page.section("EXAMPLES")
        .text("A domain with a private CA, where only the members of one group may log in:");
    page.example("[tls]\nca_file = \"/etc/motion-ad/ca.pem\"\n\n[login]\nallow_groups = [\"XCALLY Agents\"]");
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
        "By default, a name that a user types at the login page is an AD account of the joined domain: \
         john.doe becomes john.doe@acme.com. john.doe@DOMAIN and DOMAIN\\john.doe are accepted if DOMAIN is \
         the joined domain or in `names.domains` of motion-ad.toml(5), and NAME@SUFFIX if the forest \
         publishes the UPN suffix. A line of this file has precedence over this rule.\n\n\
         The form of a name decides which account it is, as in AD. DOMAIN\\name and name@DOMAIN, with the \
         NetBIOS name of the domain, are the sAMAccountName alone. name@acme.com is the account with that \
         userPrincipalName, otherwise the one with that sAMAccountName. A name without a domain stands for \
         name@acme.com. If the userPrincipalName and the sAMAccountName belong to two accounts, the name is \
         rejected until a line of this file decides, and the log names both accounts.\n\n\
         A line is a name, an equals sign, and user@domain or DOMAIN\\user. Spaces around them are ignored, \
         and so are empty lines and lines that begin with #. The last equals sign of a line is the \
         separator. Names are compared without case. The domain may be any by which AD knows the account, \
         also one that users may not type.\n\n\
         The file is UTF-8, with or without a byte order mark. An invisible character, such as a no-break \
         space or a zero width space, is rejected: delete it.\n\n\
         A line that is malformed, or that contradicts an earlier one, is an error: skipping it might give a \
         user access to another user's account. A broker that starts with such a file denies every login \
         until you fix it. If the file breaks while the broker runs, the lines that did not change stay in \
         force, and names that the broken file maps differently are rejected. Two names may stand for one \
         account.\n\n\
         `motion-ad map` NAME shows the account of a name, and `motion-ad map --reverse` the names of an \
         account. The broker notices a change by itself.",
    );
    page.section("EXAMPLES").example(EXAMPLE);
    Ok(page)
}
