//! The fixes of a finding, as data.
//!
//! `doctor --fix` applies only an [`Edit`] and a [`Run`], and neither can be made for anything but this
//! package's own files and units. Every other fix is for the administrator: a command from the table in
//! `commands.rs`, or words.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use diffy::{DiffOptions, PatchFormatter};
use serde::Serialize;

use super::commands::{Command, Kind, Place, quote};
use super::edit::{Edit, PAM_SERVICE};

/// Folders that belong to this package with all their contents.
const FOLDERS: [&str; 2] = ["/etc/motion-ad", "/run/motion-ad"];
/// Folder of the PAM modules, and the name of ours.
const LIBRARIES: &str = "/usr/lib";
const MODULE: &str = "pam_motion_ad.so";

/// A fix of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "Shown")]
pub enum Fix {
    /// A change of one of this package's files, which `doctor --fix` makes.
    Edit(Edit),
    /// A command on files or units of this package, which `doctor --fix` runs.
    Run(Run),
    /// A command for the administrator, which fixes or shows something.
    Command {
        /// The command.
        command: &'static Command,
        /// The parameter, which replaces `{}` in it.
        parameter: String,
    },
    /// A step for the administrator, in words.
    Advice {
        /// The place of the step.
        place: Place,
        /// The text.
        text: String,
    },
}

impl Fix {
    /// Returns true if `doctor --fix` can apply it.
    pub fn is_automatic(&self) -> bool {
        matches!(self, Fix::Edit(_) | Fix::Run(_))
    }
}

/// A fix as shown to administrators and scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// `edit`, `run`, `step`, `look` or `advice`.
    pub kind: &'static str,
    /// The place of the fix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Complete shell text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The file that changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The change in the format of diff(1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

impl From<Fix> for Shown {
    fn from(fix: Fix) -> Self {
        match fix {
            Fix::Edit(edit) => Shown {
                kind: "edit",
                place: Some(Place::Here),
                file: Some(edit.file().to_owned()),
                diff: Some(diff(&edit)),
                ..Shown::default()
            },
            Fix::Run(run) => Shown {
                kind: "run",
                place: Some(Place::Here),
                command: Some(run.shown()),
                ..Shown::default()
            },
            Fix::Command { command, parameter } => Shown {
                kind: match command.kind {
                    Kind::Step => "step",
                    Kind::Look => "look",
                },
                place: Some(command.place),
                command: Some(command.with(&parameter)),
                ..Shown::default()
            },
            Fix::Advice { place, text } => {
                Shown { kind: "advice", place: Some(place), text: Some(text), ..Shown::default() }
            }
        }
    }
}

/// The unified diff of a change.
pub fn diff(edit: &Edit) -> String {
    let name = edit.file().display().to_string();
    let before = edit.before().unwrap_or_default();
    unified(&name, before, edit.after())
}

/// The unified diff of the file `name`, in the format of diff(1) and patch(1); empty if nothing changes.
pub fn unified(name: &str, old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    let mut options = DiffOptions::new();
    options.set_original_filename(name.to_owned()).set_modified_filename(name.to_owned());
    let patch = options.create_patch(old, new);
    PatchFormatter::new().suppress_blank_empty(false).fmt_patch(&patch).to_string()
}

/// A unit of this package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The socket for logins.
    Socket,
    /// The broker.
    Service,
}

impl Unit {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Socket => "motion-ad.socket",
            Unit::Service => "motion-ad.service",
        }
    }
}

/// An action of systemd on units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Starts them.
    Start,
    /// Starts them again.
    Restart,
    /// Starts them at each start of the host.
    Enable,
    /// Starts them now and at each start of the host.
    EnableNow,
    /// Makes them startable; [`Verb::EnableNow`] follows.
    Unmask,
}

impl Verb {
    fn words(self) -> &'static [&'static str] {
        match self {
            Verb::Start => &["start"],
            Verb::Restart => &["restart"],
            Verb::Enable => &["enable"],
            Verb::EnableNow => &["enable", "--now"],
            Verb::Unmask => &["unmask"],
        }
    }

    /// Returns the commands that undo it, if possible. Units that were enabled or running before stay so.
    fn undo(self, units: &[Unit], was: impl Fn(Unit) -> State) -> Option<Vec<Vec<String>>> {
        let those = |words: &[&str], are: fn(State) -> bool| {
            let units: Vec<_> = units.iter().copied().filter(|unit| are(was(*unit))).collect();
            (!units.is_empty()).then(|| systemctl(words, &units))
        };
        let disable = |words: &[&str]| those(words, |state| !state.is_enabled && !state.is_masked);
        let stop = || those(&["stop"], |state| !state.is_active);
        let undo = match self {
            Verb::Start | Verb::Restart => return None,
            Verb::Enable => vec![disable(&["disable"])],
            Verb::EnableNow => vec![disable(&["disable"]), stop()],
            Verb::Unmask => vec![disable(&["disable"]), stop(), those(&["mask"], |state| state.is_masked)],
        };
        Some(undo.into_iter().flatten().collect())
    }
}

/// systemd's state of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    is_enabled: bool,
    is_masked: bool,
    is_active: bool,
}

impl State {
    fn of(unit: Unit) -> Self {
        let asked = |what: &str| {
            let ran = std::process::Command::new("systemctl").args([what, unit.name()]).output();
            ran.map(|ran| String::from_utf8_lossy(&ran.stdout).trim().to_owned()).unwrap_or_default()
        };
        let (enabled, active) = (asked("is-enabled"), asked("is-active"));
        State {
            is_enabled: enabled.starts_with("enabled"),
            is_masked: enabled.starts_with("masked"),
            is_active: active == "active",
        }
    }
}

/// A command on files or units of this package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// An action of systemd on our units.
    Units(Verb, &'static [Unit]),
    /// Creates the broker's system user, as the package does.
    MakeUser,
    /// Gives a file of ours the owner and mode that the package gives it.
    Access {
        /// The file.
        path: OwnPath,
        /// `user:group`, if that is also wrong.
        owner: Option<String>,
        /// The mode.
        mode: u32,
    },
    /// Removes the file in the place of our socket, and creates the socket.
    ReplaceSocket(OwnPath),
}

/// Both units.
pub(super) const BOTH: &[Unit] = &[Unit::Socket, Unit::Service];

impl Run {
    /// The commands in their order, each as its program and arguments.
    pub fn commands(&self) -> Vec<Vec<String>> {
        match self {
            Run::Units(Verb::Unmask, units) => {
                vec![systemctl(Verb::Unmask.words(), units), systemctl(Verb::EnableNow.words(), units)]
            }
            Run::Units(verb, units) => vec![systemctl(verb.words(), units)],
            Run::MakeUser => vec![words(&["systemd-sysusers", "motion-ad.conf"])],
            Run::Access { path, owner, mode } => {
                let path = path.shown();
                let owner = owner.as_ref().map(|owner| words(&["chown", "--no-dereference", owner, &path]));
                owner.into_iter().chain([words(&["chmod", &format!("{mode:04o}"), &path])]).collect()
            }
            Run::ReplaceSocket(path) => {
                vec![words(&["rm", "-f", &path.shown()]), systemctl(Verb::Restart.words(), BOTH)]
            }
        }
    }

    /// The commands that undo it, computed before it runs; `None` if it cannot be undone.
    pub fn undo(&self) -> Option<Vec<Vec<String>>> {
        match self {
            Run::Units(verb, units) => verb.undo(units, State::of),
            Run::Access { path, .. } => {
                let found = fs::metadata(path.as_path()).ok()?;
                let (owner, mode) = (format!("{}:{}", found.uid(), found.gid()), found.mode() & 0o7777);
                let path = path.shown();
                Some(vec![words(&["chown", &owner, &path]), words(&["chmod", &format!("{mode:04o}"), &path])])
            }
            Run::MakeUser | Run::ReplaceSocket(_) => None,
        }
    }

    /// The commands as shell text.
    pub fn shown(&self) -> String {
        let quoted = |words: Vec<String>| words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        self.commands().into_iter().map(quoted).collect::<Vec<_>>().join(" && ")
    }
}

fn systemctl(verb: &[&str], units: &[Unit]) -> Vec<String> {
    let units = units.iter().map(|unit| unit.name());
    ["systemctl"].into_iter().chain(verb.iter().copied()).chain(units).map(str::to_owned).collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A path that certainly belongs to this package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPath(PathBuf);

impl OwnPath {
    /// Returns the path if it and the target of its symbolic links belong to this package.
    pub fn new(path: &Path) -> Option<Self> {
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            // A missing file has no target.
            Err(_) => path.to_owned(),
        };
        (is_own(path) && is_own(&target)).then(|| OwnPath(path.to_owned()))
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    fn shown(&self) -> String {
        self.0.display().to_string()
    }
}

fn is_own(path: &Path) -> bool {
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    // The PAM module, in the `security` folder of any architecture.
    let of_module = path.file_name().is_some_and(|name| name == MODULE)
        && path.starts_with(LIBRARIES)
        && path.parent().is_some_and(|folder| folder.ends_with("security"));
    let below = FOLDERS.iter().any(|folder| path.starts_with(folder));
    is_plain && (below || path == Path::new(PAM_SERVICE) || of_module)
}

/// Returns the fix that gives a file of ours the owner and mode that it should have.
pub(super) fn access(path: &Path, owner: Option<&str>, mode: u32) -> Option<Run> {
    Some(Run::Access { path: OwnPath::new(path)?, owner: owner.map(str::to_owned), mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_is_a_path_of_ours() {
        for (path, is_ours) in [
            ("/etc/motion-ad/ca.pem", true),
            ("/etc/motion-ad", true),
            ("/run/motion-ad/broker.sock", true),
            ("/etc/pam.d/motion", true),
            ("/usr/lib/x86_64-linux-gnu/security/pam_motion_ad.so", true),
            ("/usr/lib/x86_64-linux-gnu/security/pam_unix.so", false),
            ("/etc/pam.d/common-auth", false),
            ("/etc/pam.d", false),
            ("/etc/motion-ad/../krb5.conf", false),
            ("/etc/motion-adx/ca.pem", false),
            ("/etc/krb5.keytab", false),
            ("etc/motion-ad/ca.pem", false),
            ("/", false),
        ] {
            assert_eq!(is_own(Path::new(path)), is_ours, "{path}");
        }
        // A link that leaves our folder leads to a foreign file.
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("ca.pem");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert_eq!(OwnPath::new(&link), None);
    }

    #[test]
    fn what_is_taken_back_is_what_was_done() {
        let was =
            |enabled, masked, active| State { is_enabled: enabled, is_masked: masked, is_active: active };
        let (off, running, on) = (was(false, false, false), was(false, false, true), was(true, false, true));
        let undone = |verb: Verb, socket: State, service: State| {
            let undo = verb.undo(BOTH, |unit| if unit == Unit::Socket { socket } else { service });
            undo.map(|undo| undo.iter().map(|words| words.join(" ")).collect::<Vec<_>>())
        };
        let of = |commands: &[&str]| Some(commands.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(undone(Verb::Start, off, off), None);
        assert_eq!(undone(Verb::Enable, off, on), of(&["systemctl disable motion-ad.socket"]));
        assert_eq!(
            undone(Verb::EnableNow, off, running),
            of(&["systemctl disable motion-ad.socket motion-ad.service", "systemctl stop motion-ad.socket"])
        );
        assert_eq!(undone(Verb::EnableNow, on, on), of(&[]));
        let masked = was(false, true, false);
        assert_eq!(
            undone(Verb::Unmask, masked, on),
            of(&["systemctl stop motion-ad.socket", "systemctl mask motion-ad.socket"])
        );
    }

    #[test]
    fn commands_are_shown_as_they_are_run() {
        let path = OwnPath(PathBuf::from("/etc/motion-ad/my ca.pem"));
        let cases = [
            (
                Run::Units(Verb::Unmask, BOTH),
                "systemctl unmask motion-ad.socket motion-ad.service && \
                 systemctl enable --now motion-ad.socket motion-ad.service",
            ),
            (Run::Units(Verb::Restart, &[Unit::Service]), "systemctl restart motion-ad.service"),
            (Run::MakeUser, "systemd-sysusers motion-ad.conf"),
            (
                Run::Access { path: path.clone(), owner: Some("root:root".into()), mode: 0o644 },
                "chown --no-dereference root:root '/etc/motion-ad/my ca.pem' && chmod 0644 \
                 '/etc/motion-ad/my ca.pem'",
            ),
            (
                Run::ReplaceSocket(path),
                "rm -f '/etc/motion-ad/my ca.pem' && systemctl restart motion-ad.socket motion-ad.service",
            ),
        ];
        for (run, command) in cases {
            assert_eq!(run.shown(), command);
        }
    }
}
