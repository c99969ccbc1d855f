//! The doctor's reading of PAM services, compared with libpam itself. Both decide random services, whose
//! modules have known results.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::CString;
use std::fs;
use std::path::Path;

use motion_ad::doctor::stack::{Kind, Rule, Service, Value, decide};
use motion_ad_support::libpam::{Answer, Application, Handle, Message, PAM_CONV_ERR};
use motion_ad_support::skipped;

const ABORT: i32 = 26;
/// Result of the service `other`, whose lines apply if a service has none.
const OTHER: i32 = 7;

/// Number of compared services.
const SERVICES: usize = 1000;

/// Modules of libpam-modules, with their results of authenticate.
const MODULES: [(&str, i32); 6] = [
    ("pam_permit.so", 0),
    ("pam_deny.so", 7),
    ("pam_warn.so", 25),
    ("pam_debug.so auth=user_unknown", 10),
    ("pam_debug.so auth=new_authtok_reqd", 12),
    ("pam_debug.so auth=cred_unavail", 15),
];

const CONTROLS: [&str; 20] = [
    "required",
    "Requisite",
    "sufficient",
    "optional",
    "[success=ok default=ignore]",
    "[success=done user_unknown=ignore default=bad]",
    "[success=1 default=ignore]",
    "[success=2 default=ignore]",
    "[default=1]",
    "[default=3 success=die]",
    "[success=ok ignore=reset default=die]",
    "[success=ok auth_err=reset]",
    "[new_authtok_reqd=ok user_unknown=ok]",
    "[success=bad default=ok]",
    // Spaces are optional, the first default counts, and a number has no sign.
    "[success = done default =ignore]",
    "[success=okdefault=ignore]",
    "[default=ignore success=ok default=die]",
    "[success=+1 default=ignore]",
    "[success=okay default=ignore]",
    "[default=ignore]",
];

/// Unusual or malformed lines.
const ODD: [&str; 15] = [
    "auth perhaps pam_permit.so\n",
    "auth [success=maybe] pam_permit.so\n",
    "author required pam_permit.so\n",
    "author sufficient pam_permit.so\n",
    "auth sufficient\n",
    // As an editor of Windows ends a line, and as a word processor separates words.
    "auth required pam_permit.so\r\n",
    "auth required\u{a0}pam_permit.so\n",
    "auth [success=maybe] pam_deny.so\n",
    "-auth required pam_absent.so\n",
    "auth required pam_absent.so\n",
    "auth required \\\n  pam_permit.so # comment\n",
    "account required pam_deny.so\n",
    "auth include absent\n",
    "auth required pam_permit.so \\\n",
    "# auth required pam_deny.so\n",
];

/// A random number generator that gives the same numbers in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // Knuth's generator. Its high bits are the random ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    fn lines(&mut self, others: &[&str]) -> String {
        let mut text = String::new();
        for _ in 0..=self.below(5) {
            match self.below(12) {
                0 if !others.is_empty() => {
                    let other = self.of(others);
                    let include = ["@include ", "auth include ", "auth substack ", "auth substack "];
                    text += &format!("{}{other}\n", self.of(&include));
                }
                1 => text += self.of(&ODD),
                _ => {
                    let (module, _) = MODULES[self.below(MODULES.len())];
                    text += &format!("auth {} {module}\n", self.of(&CONTROLS));
                }
            }
        }
        text
    }
}

/// An application that answers nothing.
struct Silent;

impl Application for Silent {
    fn answer(&mut self, _: Message<'_>) -> Answer {
        Answer::Code(PAM_CONV_ERR)
    }
}

/// Returns libpam's decision for the service `motion` in `folder`.
fn libpam_decides(folder: &Path) -> i32 {
    let folder = CString::new(folder.to_str().unwrap()).unwrap();
    match Handle::start(c"motion", c"john", Some(&folder), Silent) {
        Ok(handle) => handle.authenticate(0),
        Err(code) => code,
    }
}

/// Returns libpam's decision as the doctor predicts it, or `None` if it predicts that libpam does not start.
fn doctor_decides(folder: &Path) -> Option<i32> {
    let service = Service::load("motion", &|path| fs::read_to_string(folder.join(path.file_name().unwrap())));
    if service.faults.iter().any(|fault| fault.is_fatal) {
        return None;
    }
    let answer = |rule: &Rule| {
        // A continued line may have split off more arguments than one.
        let written = format!("{} {} ", rule.module, rule.arguments.join(" "));
        let known = MODULES.iter().find(|(module, _)| written.starts_with(&format!("{module} ")));
        known.map_or(Value::MODULE_UNKNOWN, |(_, code)| Value::of(*code).unwrap())
    };
    let stack = service.stack(Kind::Auth);
    if stack.is_empty() {
        return Some(OTHER);
    }
    let decided = decide(&stack, &answer).value;
    (0..32).find(|code| Value::of(*code) == Some(decided))
}

/// Writes the service `motion`, and returns libpam's decision and the doctor's prediction of it.
fn both_decide(lines: &str) -> (i32, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("other"), "auth required pam_deny.so\n").unwrap();
    fs::write(folder.path().join("motion"), lines).unwrap();
    (libpam_decides(folder.path()), doctor_decides(folder.path()))
}

/// A line that is ignored neither admits nor rejects, and alone it admits no user (`observe`).
#[test]
fn a_line_that_is_ignored_decides_nothing() {
    const PERM_DENIED: i32 = 6;
    for (module, code) in MODULES {
        let ignored = format!("auth [default=ignore] {module}\n");
        for (others, decision) in [
            ("", PERM_DENIED),
            ("auth required pam_permit.so\n", 0),
            ("auth required pam_deny.so\n", 7),
            ("auth [default=ignore] pam_permit.so\n", PERM_DENIED),
        ] {
            let decided = both_decide(&format!("{ignored}{others}"));
            assert_eq!(decided, (decision, Some(decision)), "{module} ({code}), then {others:?}");
        }
    }
}

#[test]
fn the_doctor_reads_services_as_libpam_does() {
    if !Path::new("/usr/lib")
        .join(format!("{}-linux-gnu/security/pam_debug.so", std::env::consts::ARCH))
        .exists()
    {
        return skipped("libpam-modules is not installed");
    }
    let mut dice = Dice(73);
    let mut let_in = 0;
    for number in 0..SERVICES {
        let folder = tempfile::tempdir().unwrap();
        let mut files = vec![("other", "auth required pam_deny.so\n".to_owned())];
        files.push(("inner", dice.lines(&[])));
        files.push(("outer", dice.lines(&["inner"])));
        let mut service = dice.lines(&["inner", "outer"]);
        // Only here: in an included file, Debian's libpam judges it by the control of the line before it.
        if dice.below(50) == 0 {
            service += "@include absent\n";
        }
        files.push(("motion", service));
        for (name, text) in &files {
            // Includes always come from /etc/pam.d, even if the service does not.
            let at = |name: &str| folder.path().join(name).display().to_string();
            let text = text.replace("inner", &at("inner")).replace("outer", &at("outer"));
            fs::write(folder.path().join(name), text).unwrap();
        }
        let (theirs, ours) = (libpam_decides(folder.path()), doctor_decides(folder.path()));
        let_in += usize::from(theirs == 0);
        let same = ours.map_or(theirs == ABORT, |ours| ours == theirs);
        assert!(same, "service {number}: libpam {theirs}, the doctor {ours:?}\n{files:#?}");
    }
    assert!((SERVICES / 20..SERVICES * 19 / 20).contains(&let_in), "{let_in} of {SERVICES} let in");
}
