//! The example application `tests/clients/motion-login` in its unit, used with a browser in two windows.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use motion_ad::protocol::report::EndReason;
use motion_ad::texts::Language;
use serde_json::{Value, json};

use crate::cast::person;
use crate::clients::{self, HOME, PYTHON};
use crate::lab::{Lab, wait};
use crate::npm::INSTALLED;
use crate::pam::authenticate;
use crate::ready::{self, john, ready};
use crate::register;
use crate::report::{Check, Report, contains, equal};
use crate::secrets;
use crate::talk::Talk;

const UNIT: &str = "motion-login.service";
const URL: &str = "http://127.0.0.1:3000";
/// Command that starts Chromium as an arbitrary user, without the URL.
const BROWSER: [&str; 4] = ["env", "HOME=/tmp", "node", "/opt/clients/node/browser.js"];

/// Texts of the page, one per outcome and one per reason why a seat ended.
const WRONG: &str = "The user name or the password is wrong.";
const LOCKED: &str = "Your account is locked. Try again later or ask your administrator.";
const DISABLED: &str = "Your account is disabled.";
const ELSEWHERE: &str = "Your account may not log in from this computer.";
const ENDED: &str = "Your account has expired.";
const MUST_CHANGE: &str = "Your password must be changed before you can log in.";
const EXPIRED: &str = "Your password has expired and must be changed.";
const UNAVAILABLE: &str = "The login service cannot reach Active Directory. Try again in a moment.";
const EVICTED: &str = "You have logged in somewhere else, so you were logged out here.";
const THROWN_OUT: &str = "Your account may no longer be logged in. Ask your administrator.";
const GONE: &str = "You are logged in no longer.";

/// A login, with the right password unless `wrong` is set: the visible part of the page, its text, and the
/// number that the wrong password adds to the counter.
struct Login {
    who: &'static str,
    wrong: bool,
    view: &'static str,
    text: &'static str,
}

const fn login(who: &'static str, view: &'static str, text: &'static str) -> Login {
    Login { who, wrong: false, view, text }
}

const NEW: &str = "P3tra-polishes-pans";
const WRONGLY_TYPED: &str = "W3ndy-waters-weeds";

const LOGINS: &[Login] = &[
    login("john", "home", ""),
    Login { wrong: true, ..login("wendy", "login", WRONG) },
    login("lou", "login", LOCKED),
    login("dora", "login", DISABLED),
    login("walt", "login", ELSEWHERE),
    login("ed", "login", ENDED),
    login("max", "change", MUST_CHANGE),
    login("petra", "change", EXPIRED),
];

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    begin(lab)?;
    own_tests(lab, report);
    let mut browser = Browser::start(lab, URL)?;
    logins(lab, report, &mut browser);
    languages(lab, report, &mut browser);
    change(lab, report, &mut browser)?;
    seats(lab, report, &mut browser)?;
    crowd(lab, report);
    unreachable(lab, report, &mut browser)?;
    restart(lab, report, &mut browser);
    drop(browser);
    let people = LOGINS.iter().map(|login| login.who).chain(["seth", "sally"]);
    let passwords: BTreeSet<_> = people
        .map(|who| person(who).password.to_owned())
        .chain([NEW, WRONGLY_TYPED].map(str::to_owned))
        .collect();
    secrets::nowhere(lab, report, &passwords);
    lab.host_sh(&format!("systemctl stop {UNIT}; rm /etc/systemd/system/{UNIT}")).ok()?;
    register::clear(lab)?;
    lab.run(&["cast", "reset"]).ok()?;
    lab.configure("")
}

fn begin(lab: &Lab) -> Check {
    clients::install(lab)?;
    let folder = format!("{HOME}/motion-login");
    lab.host_sh(&format!("cd {folder} && npm install --no-save --offline --no-audit --no-fund {INSTALLED}"))
        .ok()?;
    let unit = lab.path(&format!("{folder}/{UNIT}"));
    let to = lab.path(&format!("/etc/systemd/system/{UNIT}"));
    fs::copy(unit, &to).map_err(|e| format!("{}: {e}", to.display()))?;
    lab.configure("[sessions]\nrecheck = 10\n")?;
    ready(lab)?;
    register::clear(lab)?;
    lab.run(&["cast", "reset"]).ok()?;
    lab.host_sh(&format!("systemctl daemon-reload && systemctl restart {UNIT}")).ok()?;
    wait(Duration::from_secs(20), || is_served(lab))
}

/// Runs the application's own tests, with the fake of the installed package.
fn own_tests(lab: &Lab, report: &mut Report) {
    report.check("its own tests, in which a fake plays each outcome: all succeed", || {
        let run = format!("cd {HOME}/motion-login && exec node --test --test-reporter=tap");
        let said = lab.host("nobody", &["sh", "-c", &run], "").ok()?;
        contains("the counts", &said, "# fail 0")?;
        equal("none ran", said.contains("# pass 0"), false)
    });
}

/// Width of the pictured page, in points.
const WIDTH: u16 = 440;
/// Picture of the page, on the host.
const PICTURE: &str = "/tmp/login-page.png";

/// Writes a picture of the page to `file`: AD has rejected the login, because the password must be
/// changed.
pub fn picture(lab: &Lab, file: &Path) -> Check {
    begin(lab)?;
    let john = person("john");
    let password = format!("--newpassword={}", john.password);
    let set = ["samba-tool", "user", "setpassword", john.sam, &password, "--must-change-at-next-login"];
    lab.dc(&set).ok()?;
    let mut browser = Browser::start(lab, URL)?;
    let typed = json!({ "username": john.sam, "password": john.password });
    let seen = browser.act("picture", json!({ "width": WIDTH, "type": typed, "picture": PICTURE }))?;
    equal("seen", seen, ("change".to_owned(), MUST_CHANGE.to_owned()))?;
    fs::copy(lab.live_path(PICTURE)?, file).map(drop).map_err(|e| format!("{PICTURE}: {e}"))
}

/// Checks that the page is served without a login.
fn is_served(lab: &Lab) -> Check {
    let ask = "exec 3<>/dev/tcp/127.0.0.1/3000 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3";
    contains("the page", &lab.host("root", &["bash", "-c", ask], "").ok()?, "200 OK")
}

/// Chromium with its windows.
pub struct Browser(Talk);

impl Browser {
    /// Starts it. Each window opens with this URL.
    pub fn start(lab: &Lab, url: &str) -> Result<Self, String> {
        Talk::start(lab, "nobody", &[&BROWSER[..], &[url]].concat()).map(Browser)
    }

    /// Performs a step in a window. Returns the part of the page that is then visible, and its text.
    pub fn act(&mut self, window: &str, mut step: Value) -> Result<(String, String), String> {
        step["window"] = json!(window);
        seen(self.0.ask(vec![step])?.first())
    }

    /// Types a name and a password, and sends the form.
    pub fn type_in(&mut self, window: &str, name: &str, password: &str) -> Result<(String, String), String> {
        self.act(window, json!({ "type": { "username": name, "password": password } }))
    }

    /// Logs a user in successfully.
    fn enter(&mut self, window: &str, who: &str) -> Check {
        let person = person(who);
        let seen = self.type_in(window, person.sam, person.password)?;
        equal("seen", seen, ("home".to_owned(), String::new()))
    }

    /// Checks that the window shows this text without an action of the user.
    fn shows(&mut self, window: &str, text: &str) -> Check {
        let seen = self.act(window, json!({ "wait": text }))?;
        equal("seen", seen, ("login".to_owned(), text.to_owned()))
    }
}

fn seen(answer: Option<&Value>) -> Result<(String, String), String> {
    let answer = answer.ok_or("no answer")?;
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    text("view").zip(text("text")).ok_or_else(|| format!("the browser says {answer}"))
}

fn logins(lab: &Lab, report: &mut Report, browser: &mut Browser) {
    for login in LOGINS {
        let person = person(login.who);
        let typed = if login.wrong { "a wrong password" } else { "the right password" };
        report.check(&format!("{} with {typed}: {:?} {:?}", person.sam, login.view, login.text), || {
            let before = lab.counters(person.sam)?.bad_passwords;
            let password = if login.wrong { WRONGLY_TYPED } else { person.password };
            let seen = browser.type_in(login.who, person.sam, password)?;
            equal("seen", seen, (login.view.to_owned(), login.text.to_owned()))?;
            equal("badPwdCount", lab.counters(person.sam)?.bad_passwords, before + u32::from(login.wrong))?;
            let open = register::of(lab, person.sam)?.len();
            equal("sessions", open, usize::from(login.view == "home"))
        });
    }
    report.check("who is in is still in when the page is loaded again, and out after logging out", || {
        let john = person("john").sam;
        let id = &register::of(lab, john)?.first().ok_or("John has no session")?.id.clone();
        equal("seen", browser.act("john", json!({ "reload": true }))?.0.as_str(), "home")?;
        let seen = browser.act("john", json!({ "press": "Log out" }))?;
        equal("seen", seen, ("login".to_owned(), "You have logged out.".to_owned()))?;
        wait(Duration::from_secs(5), || equal("its end", register::end_of(lab, id)?, Some(EndReason::Closed)))
    });
}

/// The label of the first field, and the text after a wrong password, in the browser's language.
const LANGUAGES: &[(&str, &str, &str)] = &[
    ("en-GB", "User name", WRONG),
    ("it-IT", "Nome utente", "Il nome utente o la password non è corretta."),
    ("de-AT", "Benutzername", "Der Benutzername oder das Kennwort ist falsch."),
    ("es-MX", "Nombre de usuario", "El nombre de usuario o la contraseña no es correcta."),
    ("fr-CA", "Nom d'utilisateur", "Le nom d'utilisateur ou le mot de passe est incorrect."),
    ("pt-BR", "Nome de usuário", "O nome de usuário ou a senha está incorreta."),
    ("nl-NL", "User name", WRONG),
];

fn languages(lab: &Lab, report: &mut Report, browser: &mut Browser) {
    report.check("the page has each text in each language", || {
        let script = "const { TEXTS } = require('./texts'), { languages } = JSON.parse(process.argv[1]);\n\
                      const names = (o) => Object.keys(o).flatMap((k) => (o[k].length ? k : names(o[k])));\n\
                      const all = languages.map((language) => String(names(TEXTS[language])));\n\
                      console.log(all.every((one) => one === all[0]), Object.keys(TEXTS).length);";
        let codes: Vec<_> = Language::ALL.iter().map(|language| language.code()).collect();
        let run = format!("cd {HOME}/motion-login && exec node -e \"$1\" \"$2\"");
        let codes = json!({ "languages": codes }).to_string();
        let said = lab.host("nobody", &["sh", "-c", &run, "sh", script, &codes], "").ok()?;
        equal("the same texts, languages", said.trim(), format!("true {}", Language::ALL.len()).as_str())
    });
    for &(language, label, wrong) in LANGUAGES {
        report.check(&format!("a browser in {language}: {label:?} and {wrong:?}"), || {
            let wendy = person("wendy").sam;
            let labels =
                browser.0.ask(vec![json!({ "window": language, "language": language, "labels": true })])?;
            let first = labels.first().and_then(|answer| answer["labels"][0].as_str());
            equal("the first label", first, Some(label))?;
            let seen = browser.type_in(language, wendy, WRONGLY_TYPED)?;
            equal("seen", seen, ("login".to_owned(), wrong.to_owned()))?;
            lab.run(&["cast", "reset", "wendy"]).ok().map(drop)
        });
    }
}

fn change(lab: &Lab, report: &mut Report, browser: &mut Browser) -> Check {
    let petra = person("petra");
    let mut typed = |again: &str| {
        let all =
            json!({ "username": petra.sam, "password": petra.password, "newPassword": NEW, "again": again });
        browser.act("petra", json!({ "type": all }))
    };
    report.check("expired, the new password typed in two ways: nothing is changed", || {
        let text = "The new passwords are not the same.";
        equal("seen", typed("P3tra-polishes-pens")?, ("change".to_owned(), text.to_owned()))
    });
    report.check("expired, a new password: changed, and in", || {
        equal("seen", typed(NEW)?, ("home".to_owned(), String::new()))?;
        equal("sessions", register::of(lab, petra.sam)?.len(), 1)?;
        equal("the new one", authenticate(lab, petra.sam, NEW).code.as_str(), "PAM_SUCCESS")
    });
    let carl = person("carl");
    // No password has expired, but a request for a change must still get an answer.
    let body = json!({ "username": carl.sam, "password": carl.password, "newPassword": "C4rl-cuts-corks" });
    for (language, text) in [
        ("en-US,en;q=0.9", "You may not change your password."),
        ("it-IT,it;q=0.9,en;q=0.8", "Non Le è consentito cambiare la password."),
        ("nl", "You may not change your password."),
    ] {
        report.check(&format!("who may not change the password is told so, in {language}"), || {
            equal("said", post(lab, "password", &body, language)?.as_str(), text)
        });
    }
    report.check("who may not log in is told so in Italian, and nothing more after a wrong password", || {
        let dora = person("dora");
        for (password, text) in [
            (dora.password, "Il Suo account è disabilitato."),
            (WRONGLY_TYPED, "Il nome utente o la password non è corretta."),
        ] {
            let body = json!({ "username": dora.sam, "password": password });
            equal("said", post(lab, "login", &body, "it")?.as_str(), text)?;
        }
        lab.run(&["cast", "reset", "dora"]).ok().map(drop)
    });
    lab.run(&["cast", "restore", petra.sam]).ok().map(drop)
}

/// Sends a form as a browser of this language does, and returns the text of the reply.
fn post(lab: &Lab, path: &str, body: &Value, language: &str) -> Result<String, String> {
    let script = "import sys,urllib.request as u,urllib.error as e\n\
                  h={'Content-Type':'application/json','Accept-Language':sys.argv[2]}\n\
                  r=u.Request(sys.argv[1],sys.stdin.read().encode(),h)\n\
                  try: print(u.urlopen(r).read().decode())\n\
                  except e.HTTPError as x: print(x.read().decode())";
    let url = format!("{URL}/{path}");
    let said = lab.host("nobody", &["python3", "-c", script, &url, language], &body.to_string()).ok()?;
    let said: Value = serde_json::from_str(&said).map_err(|e| format!("{said}: {e}"))?;
    said["text"].as_str().map(str::to_owned).ok_or_else(|| format!("no text: {said}"))
}

/// One seat per user.
fn seats(lab: &Lab, report: &mut Report, browser: &mut Browser) -> Check {
    report.check("a second browser takes the seat, and the first one is told at once", || {
        browser.enter("first", "seth")?;
        let begun = Instant::now();
        browser.enter("second", "seth")?;
        browser.shows("first", EVICTED)?;
        println!("         {:.1} s after it was begun", begun.elapsed().as_secs_f64());
        equal("sessions", register::of(lab, person("seth").sam)?.len(), 1)?;
        // The first browser is not only notified, but also logged out.
        equal("the first", browser.act("first", json!({ "reload": true }))?.0.as_str(), "login")?;
        equal("the second", browser.act("second", json!({ "reload": true }))?.0.as_str(), "home")
    });
    report.check("a wrong password takes nobody's seat", || {
        browser.type_in("first", person("seth").sam, WRONGLY_TYPED)?;
        equal("the second", browser.act("second", json!({ "reload": true }))?.0.as_str(), "home")?;
        lab.run(&["cast", "reset", "seth"]).ok().map(drop)
    });
    report.check("the broker was restarted: the application still hears of evictions", || {
        ready::restart(lab)?;
        ready(lab)?;
        browser.enter("first", "seth")?;
        browser.shows("second", EVICTED)
    });
    report.check("disabled in AD while logged in: out, and told", || {
        browser.enter("sally", "sally")?;
        let sally = person("sally");
        lab.dc(&["samba-tool", "user", "disable", sally.sam]).ok()?;
        let shown = browser.shows("sally", THROWN_OUT);
        lab.run(&["cast", "restore", sally.sam]).ok()?;
        shown
    });
    Ok(())
}

/// One user in many browsers at once.
fn crowd(lab: &Lab, report: &mut Report) {
    report.check("20 logins of one person at once: all succeed, and one seat remains", || {
        let seth = person("seth");
        let mut page = Talk::start(lab, "nobody", &["python3", PYTHON, "page", URL])?;
        let question = json!({ "user": seth.sam, "password": seth.password });
        let answers = page.ask(vec![question; 20])?;
        let in_: Vec<_> = answers.iter().filter(|answer| answer["said"] != "in").collect();
        equal("answers that are no success", in_, Vec::new())?;
        equal("sessions", register::of(lab, seth.sam)?.len(), 1)
    });
}

fn unreachable(lab: &Lab, report: &mut Report, browser: &mut Browser) -> Check {
    lab.run(&["net", "cut", "dc"]).ok()?;
    report.check("no domain controller: a text, in time, and the page is served meanwhile", || {
        let begun = Instant::now();
        let john = person("john");
        let all = json!({ "username": john.sam, "password": john.password });
        let asked = browser.0.begin(vec![json!({ "window": "john", "type": all })])?;
        is_served(lab)?;
        let served = begun.elapsed();
        let seen = seen(browser.0.finish(asked)?.first())?;
        let took = begun.elapsed();
        println!(
            "         served in {:.1} s, answered after {:.1} s",
            served.as_secs_f64(),
            took.as_secs_f64()
        );
        equal("seen", seen, ("login".to_owned(), UNAVAILABLE.to_owned()))?;
        // An application that stands still serves the page after the answer, and a login without a deadline
        // has none.
        equal("served while the login waits", served < took / 2, true)?;
        equal("answered within twice its deadline", took < Duration::from_secs(5) * 2, true)
    });
    lab.run(&["net", "heal", "dc"]).ok()?;
    wait(Duration::from_secs(20), || john(lab).map(drop))?;
    report.check("it is back, and so is John", || browser.enter("john", "john"));
    Ok(())
}

fn restart(lab: &Lab, report: &mut Report, browser: &mut Browser) {
    report.check("the application is restarted: nobody is in, everybody is told, no session stays", || {
        let john = person("john").sam;
        let id = &register::of(lab, john)?.first().ok_or("John has no session")?.id.clone();
        lab.host_sh(&format!("systemctl restart {UNIT}")).ok()?;
        browser.shows("john", GONE)?;
        register::ends(lab, id, EndReason::ProcessGone, Duration::from_secs(45))
    });
}
