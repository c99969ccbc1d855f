//! `motion-ad audit` on the host: the whole cast, names without an account, and a large number of names.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::cast::{everybody, person};
use crate::lab::Lab;
use crate::pam::authenticate;
use crate::ready::restart;
use crate::report::{Check, Report, contains, equal};

/// Names without an account, or different from AD's spelling.
const RUBBISH: &[&str] = &[
    "nobody.here",
    "root",
    "x@evil.example",
    "*)(objectClass=*",
    "XCALLY$",
    "XCALLY Agents",
    "jorg.muller",
    " john.doe",
    "jd",
    "ghost",
    "john.doe@acme.com",
    "ACME\\lou.locked",
    "uma.upn@sales.acme.example",
    "clash.b@acme.com",
];

const MAP: &str = "jd = john.doe@acme.com\nghost = no.body@acme.com\n";
const GROUPS: &str = "[login]\nallow_groups = [\"XCALLY Agents\"]\ndeny_groups = [\"XCALLY Denied\"]\n\
    [names]\ndomains = [\"sales.acme.example\"]\n";

/// Number of users in the crowd. MOTION_AD_CROWD overrides it for this chapter only, because the searches of
/// the next chapters return at most a thousand users.
const CROWD: usize = 120;
/// Number of names that may take as long as an audit of one name, which starts the program and asks the
/// broker. On an idle machine, twenty thousand names take thirty seconds.
const FOR_ONE: usize = 40;
/// Audits of one name that the list may take in addition.
const BESIDES: u32 = 20;

pub fn chapter(lab: &Lab, report: &mut Report) -> Result<(), String> {
    lab.run(&["cast", "reset"]).ok()?;
    lab.write("/etc/motion-ad/names.map", MAP)?;
    let done = cast(lab, report).and_then(|()| crowd(lab, report));
    lab.host_sh("printf '# nobody\\n' >/etc/motion-ad/names.map").ok()?;
    lab.configure("")?;
    done
}

fn cast(lab: &Lab, report: &mut Report) -> Result<(), String> {
    let mut names: Vec<_> = everybody().iter().map(|person| person.sam.to_owned()).collect();
    names.extend(RUBBISH.iter().map(|name| (*name).to_owned()));
    let mut list = String::from("id;username\n");
    for (id, name) in names.iter().enumerate() {
        list += &format!("{id};\"{name}\"\n");
    }
    for (title, config) in [("no group rules", ""), ("allow_groups and deny_groups", GROUPS)] {
        report.note(title);
        lab.configure(config)?;
        report.check("audit and check agree about everybody", || {
            let audited = outcomes(lab, &list, &["--column", "username", "--delimiter", ";"])?;
            equal("names", audited.len(), names.len())?;
            for name in &names {
                let check = lab.host("root", &["motion-ad", "check", "--json", "--", name], "");
                let check: Value = serde_json::from_str(&check.stdout).map_err(|e| format!("{name}: {e}"))?;
                equal(name, audited.get(name).cloned(), check["outcome"].as_str().map(str::to_owned))?;
            }
            Ok(())
        });
    }
    report.check("the text marks whom AD would refuse, and says what else there is to say", || {
        let ran = lab.host(
            "root",
            &["motion-ad", "audit", "--soon", "3650"],
            "john.doe\njohn.doe\njd\nlou.locked\n",
        );
        equal("exit code", ran.code, 1)?;
        for text in [
            " 4  names\n",
            "stands on line 1 too",
            "by names.map",
            "the account of john.doe too",
            "password expires in ",
            " x     4  lou.locked  lou.locked@acme.com  locked_out\n",
        ] {
            contains("standard output", &ran.stdout, text)?;
        }
        Ok(())
    });
    report.check("a name that is two accounts' is listed with both, until names.map decides", || {
        let audited = |names: &str| lab.host("root", &["motion-ad", "audit"], names);
        let both = audited("clash\nclash@acme.com\njohn.doe\n");
        equal("exit code", both.code, 1)?;
        contains("the count", &both.stdout, " 1  may not: ambiguous\n")?;
        contains("the name", &both.stdout, "     1  clash ")?;
        contains("both accounts", &both.stdout, crate::people::TWO_ACCOUNTS)?;
        lab.write("/etc/motion-ad/names.map", &format!("{MAP}clash = ACME\\clash\n"))?;
        let decided = audited("clash\njohn.doe\n");
        lab.write("/etc/motion-ad/names.map", MAP)?;
        equal("decided: exit code", decided.code, 0).map_err(|e| format!("{e}\n{}", decided.stdout))
    });
    report.check("an account that expires after the year 9999 is judged like any other, and shown", || {
        expires(lab, "9223372032559808511")?;
        let audited = lab.host("root", &["motion-ad", "audit"], "john.doe\nnina.nested\n");
        let checked = lab.host("root", &["motion-ad", "check", "nina.nested"], "");
        let entered = authenticate(lab, "nina.nested", person("nina").password);
        expires(lab, "9223372036854775807")?;
        equal("audit", audited.code, 0).map_err(|e| format!("{e}\n{}", audited.stderr))?;
        equal("check", checked.code, 0).map_err(|e| format!("{e}\n{}", checked.stdout))?;
        contains("check", &checked.stdout, "after the year 9999")?;
        equal("login", entered.code.as_str(), "PAM_SUCCESS")
    });
    report.check("all may log in: exit code 0", || {
        equal("exit code", lab.host("motion", &["motion-ad", "audit"], "john.doe\nnina.nested\n").code, 0)
    });
    Ok(())
}

/// Sets nina's date of expiry, in AD's number format.
fn expires(lab: &Lab, ticks: &str) -> Check {
    const DATABASE: &str = "/var/lib/samba/private/sam.ldb";
    let script = format!(
        "dn=$(ldbsearch -H {DATABASE} '(sAMAccountName=nina.nested)' dn | sed -n 's/^dn: //p'); \
         printf 'dn: %s\\nchangetype: modify\\nreplace: accountExpires\\naccountExpires: {ticks}\\n' \"$dn\" \
         | ldbmodify -H {DATABASE}"
    );
    lab.dc(&["sh", "-c", &script]).ok().map(drop)
}

fn outcomes(lab: &Lab, list: &str, arguments: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let mut command = vec!["motion-ad", "audit", "--json"];
    command.extend(arguments);
    let ran = lab.host("root", &command, list);
    let json: Value =
        serde_json::from_str(&ran.stdout).map_err(|e| format!("{e}: {}{}", ran.stdout, ran.stderr))?;
    let names = json["names"].as_array().ok_or("no names")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(names.iter().map(|person| (text(&person["name"]), text(&person["outcome"]))).collect())
}

fn crowd(lab: &Lab, report: &mut Report) -> Result<(), String> {
    let number = std::env::var("MOTION_AD_CROWD").ok().and_then(|text| text.parse().ok()).unwrap_or(CROWD);
    lab.run(&["cast", "load", &number.to_string()]).ok()?;
    lab.configure(GROUPS)?;
    // The broker remembers the groups inside the configured ones, and a configuration with the same contents
    // does not restart it.
    restart(lab)?;
    let name = |number: usize| format!("u{number:05}");
    let list: String = (1..=number).map(|number| name(number) + "\n").collect();
    report.check(&format!("{number} names, {FOR_ONE} in the time of one at least"), || {
        lab.host("root", &["motion-ad", "check", "john.doe"], "");
        let begun = Instant::now();
        outcomes(lab, &name(1), &[])?;
        let one = begun.elapsed();
        let begun = Instant::now();
        let audited = outcomes(lab, &list, &[])?;
        let (took, bound) = (begun.elapsed(), one * (BESIDES + (number / FOR_ONE) as u32));
        equal("in time", took < bound, true).map_err(|e| format!("{e}: {took:?}, one name {one:?}"))?;
        for person in 1..=number {
            let expected = match person {
                person if person % 100 == 0 => "disabled",
                person if person % 20 == 0 => "not_allowed",
                _ => "success",
            };
            equal(&name(person), audited.get(&name(person)).map(String::as_str), Some(expected))?;
        }
        Ok(())
    });
    report.check("names that look like somebody become lines for names.map", || {
        let ran = lab.host(
            "root",
            &["motion-ad", "audit"],
            "given7.sur7\nsur8-given8\ngsur9\nxsur9\nu00011\n\
            gsur11\n",
        );
        equal("exit code", ran.code, 1)?;
        for text in [
            "# its mail address begins with this name: CN=u00007,OU=Crowd,DC=acme,DC=com\n\
             given7.sur7 = u00007@acme.com\n",
            "# its given name and surname: CN=u00008,OU=Crowd,DC=acme,DC=com\n\
             sur8-given8 = u00008@acme.com\n",
            "# initial and surname: CN=u00009,OU=Crowd,DC=acme,DC=com\ngsur9 = u00009@acme.com\n",
        ] {
            contains("standard output", &ran.stdout, text)?;
        }
        suggests(&ran.stdout, &["xsur9", "gsur11"])
    });
    Ok(())
}

/// Checks that none of these names has a suggested line. Either no account is similar, or the account is in
/// the list.
fn suggests(text: &str, not: &[&str]) -> Check {
    match not.iter().find(|name| text.contains(&format!("{name} = "))) {
        Some(name) => Err(format!("a line for {name} in:\n{text}")),
        None => Ok(()),
    }
}
