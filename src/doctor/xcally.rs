//! XCALLY Motion on this host: its folder, its user, and the remains in `.env` of XCALLY's AD integration.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use nix::unistd::User;

use super::command;
use super::commands::Place;
use super::configuration::place_of;
use super::facts::{APPLICATION, Facts, HOME};
use super::finding::Finding;
use super::fix::{BOTH, Run, Verb};
use super::{application, bridge};
use crate::config::xcally::{ENV, Env, Property};

/// Home of Debian's camera daemon, which is also called motion.
const CAMERA_HOME: &str = "/var/lib/motion";
const CAMERA_CONF: &str = "/etc/motion/motion.conf";

pub(super) async fn home(facts: &Facts) -> Finding {
    match fs::metadata(facts.path(HOME)) {
        Ok(found) if found.is_dir() => Finding::ok(HOME),
        Ok(_) => Finding::warning(format!("{HOME} is no folder")),
        Err(e) => Finding::warning(format!("{HOME}: {e}: XCALLY Motion is not installed here")),
    }
}

pub(super) async fn user(facts: &Facts) -> Finding {
    match facts.application().await {
        Ok(user) => Finding::ok(format!("{}, uid {}, home {}", user.name, user.uid, user.dir.display())),
        Err(cause) => {
            // If an older installation has left the folder, the user gets the uid of its owner.
            let owner = fs::metadata(facts.path(HOME)).ok().map(|found| found.uid()).filter(|uid| *uid != 0);
            let uid = owner.map(|uid| format!(" with uid {uid}")).unwrap_or_default();
            Finding::failure(format!("{cause}: the application runs as this user")).advise(
                Place::Here,
                format!(
                    "XCALLY's installer makes the user {APPLICATION}{uid}, with the home {HOME}: let it do so"
                ),
            )
        }
    }
}

/// Checks for Debian's package `motion`, which watches cameras and runs as a user of the same name.
pub(super) async fn camera(facts: &Facts) -> Finding {
    let user = facts.application().await.ok();
    let asked = command::ask("dpkg-query", &["-W", "-f", "${db:Status-Status}", "motion"]).await;
    let installed = asked.is_ok_and(|answer| answer.out == "installed");
    judge_camera(installed, user.as_ref(), facts.path(CAMERA_CONF).exists())
}

fn judge_camera(installed: bool, user: Option<&User>, conf: bool) -> Finding {
    if installed {
        return Finding::failure(
            "Debian's camera daemon is installed: it runs as motion, and the broker answers it",
        )
        .advise(Place::Here, "if no camera needs it, remove Debian's package motion");
    }
    match user {
        Some(user) if user.name == APPLICATION && user.dir.as_os_str() == CAMERA_HOME => Finding::failure(
            format!("the user {APPLICATION} is the camera daemon's: its home is {CAMERA_HOME}"),
        )
        .advise(Place::Here, format!("if no camera needs it, give the user {APPLICATION} the home {HOME}")),
        _ if conf => Finding::ok(format!("the camera daemon is gone, only {CAMERA_CONF} is left")),
        _ => Finding::ok("Debian's camera daemon is not here"),
    }
}

/// Checks that the application reaches the broker, as the application's real user.
pub(super) async fn reach(facts: &Facts) -> Finding {
    if !facts.is_root() {
        return Finding::skipped("needs root");
    }
    let user = match facts.application().await {
        Ok(user) => user,
        Err(cause) => return Finding::skipped(cause),
    };
    let users = facts.config().await.map(|config| config.broker.users.clone()).unwrap_or_default();
    match application::reaches(facts, &user).await {
        Ok(()) => Finding::ok(format!("the broker answers {}", user.name)),
        Err(cause) => {
            let finding = Finding::failure(format!("{} does not reach the broker: {cause}", user.name));
            match users.contains(&user.name) {
                false => finding.advise(
                    Place::Here,
                    format!(
                        "if {} is the user that XCALLY runs as, add it to {}",
                        user.name,
                        place_of(facts, "broker", "users")
                    ),
                ),
                true => finding.run(Run::Units(Verb::Restart, BOTH)),
            }
        }
    }
}

/// Checks for an administrator's password in `.env`, which motion-ad does not need.
pub(super) async fn password(facts: &Facts) -> Finding {
    let env = match Env::load(&facts.path(ENV)) {
        Ok(Some(env)) => env,
        Ok(None) => return Finding::ok(format!("there is no {ENV}")),
        Err(_) if !facts.is_root() => return Finding::skipped(format!("needs root: {ENV}")),
        Err(problem) => return Finding::warning(problem.to_string()),
    };
    match env.properties.iter().find(|property| property.is_secret()) {
        Some(Property { name, .. }) if bridge::is_local_secret(facts, &env) => {
            Finding::ok(format!("{name} is the secret of this host's LDAP bridge"))
        }
        Some(Property { name, .. }) => Finding::warning(format!(
            "{ENV} holds a password in {name}, which motion-ad does not need"
        ))
        .advise(
            Place::Here,
            format!("once XCALLY no longer uses it, remove {name} from {ENV}, and change the password in AD"),
        ),
        None => Finding::ok("it holds no AD password"),
    }
}

pub(super) async fn mode(facts: &Facts) -> Finding {
    match fs::symlink_metadata(facts.path(ENV)) {
        // A chmod would follow a symbolic link to another file.
        Ok(found) if !found.is_file() => {
            Finding::warning(format!("{ENV} is no regular file: see what it is by `ls -l`"))
        }
        Ok(found) => {
            let mode = found.mode() & 0o777;
            let advice = "give it the mode 0600; XCALLY's user must stay its owner";
            match (mode & 0o007 != 0, mode & 0o070 != 0) {
                (true, _) => Finding::failure(format!("{ENV} has mode {mode:04o}: every user may use it"))
                    .advise(Place::Here, advice),
                (false, true) => Finding::warning(format!("{ENV} has mode {mode:04o}: its group may use it"))
                    .advise(Place::Here, advice),
                _ => Finding::ok(format!("{ENV} has mode {mode:04o}")),
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Finding::ok(format!("there is no {ENV}")),
        Err(e) => Finding::skipped(format!("{ENV}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::{Fix, Options};
    use super::*;

    fn host() -> (tempfile::TempDir, Facts) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("var/opt/motion2")).unwrap();
        let file = |name: &str| folder.path().join(name);
        let options = Options {
            config: file("config.toml"),
            sssd: file("sssd.conf"),
            socket: file("broker.sock"),
            login: None,
        };
        let facts = Facts::at_root(options, folder.path());
        (folder, facts)
    }

    #[tokio::test]
    async fn what_is_left_in_the_environment_file_is_found_and_never_shown() {
        let (folder, facts) = host();
        assert_eq!(password(&facts).await.level, Level::Ok);
        let env = folder.path().join("var/opt/motion2/.env");
        fs::write(&env, "A=1\nexport XC_ACTIVEDIRECTORY_PASSWORD='hush'\nB=2\n").unwrap();
        let found = password(&facts).await;
        assert_eq!(found.level, Level::Warning);
        assert!(!format!("{found:?}").contains("hush"));
        // XCALLY may still need it.
        let [Fix::Advice { text, .. }] = found.fix.as_slice() else { panic!("{found:?}") };
        assert!(text.starts_with("once XCALLY no longer uses it"), "{text}");
        fs::write(&env, "A=1\nB=2\n").unwrap();
        assert_eq!(password(&facts).await.level, Level::Ok);
    }

    #[tokio::test]
    async fn the_mode_of_the_environment_file_counts() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, facts) = host();
        let env = folder.path().join("var/opt/motion2/.env");
        fs::write(&env, "").unwrap();
        for (mode, level) in [(0o600, Level::Ok), (0o640, Level::Warning), (0o644, Level::Failure)] {
            fs::set_permissions(&env, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(super::mode(&facts).await.level, level, "{mode:o}");
        }
    }

    #[test]
    fn the_camera_daemon_is_told_from_the_application() {
        let root = User::from_uid(0.into()).unwrap().unwrap();
        let motion = |home: &str| User { name: APPLICATION.into(), dir: home.into(), ..root.clone() };
        let cases = [
            (true, Some(motion(HOME)), Level::Failure),
            (false, Some(motion(CAMERA_HOME)), Level::Failure),
            (false, Some(motion(HOME)), Level::Ok),
            (false, None, Level::Ok),
        ];
        for (installed, user, level) in cases {
            let found = judge_camera(installed, user.as_ref(), false);
            assert_eq!(found.level, level, "{found:?}");
            assert_eq!(found.fix.is_empty(), level == Level::Ok, "{found:?}");
        }
    }
}
