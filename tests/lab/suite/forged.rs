//! A KDC that calls itself the realm's and knows John's password, but not this host's key.

use crate::lab::Lab;
use crate::ready::{john, john_at, ready, restart};
use crate::report::{Check, Report, contains, equal};
use crate::row::Method;

pub fn chapter(lab: &Lab, report: &mut Report) -> Check {
    lab.set_method(Method::Kerberos);
    let done = lab.configure("").and_then(|()| ready(lab)).and_then(|()| forgery(lab, report));
    lab.set_method(Method::Ldap);
    lab.configure("").and(done)
}

fn forgery(lab: &Lab, report: &mut Report) -> Check {
    for (name, fresh) in [
        ("a forged KDC under a running broker: John is refused, and the log names it", false),
        ("a forged KDC when the broker starts: the same", true),
    ] {
        lab.run(&["forge", "up"]).ok()?;
        report.check(name, || refused(lab, fresh));
        lab.run(&["forge", "down"]).ok()?;
        report
            .check("the real KDC is back, and so is John", || ready(lab).and_then(|()| john(lab).map(drop)));
    }
    Ok(())
}

fn refused(lab: &Lab, fresh: bool) -> Check {
    if fresh {
        restart(lab)?;
    }
    let position = lab.log_position()?;
    let (answer, took) = john_at(lab, "motion", &["authenticate"]);
    let line = lab.wait_for_log(&position, &["event=login", "user=john.doe"])?;
    println!("         {:.2} s: {line}", took.as_secs_f64());
    equal("PAM", answer.code.as_str(), "PAM_AUTHINFO_UNAVAIL").map_err(|e| format!("{e}\n{line}"))?;
    // With fresh credentials of its own the broker cannot even begin: the forged KDC does not know its key.
    if fresh { Ok(()) } else { contains("the log", &line, "forged KDC") }
}
