//! Brings the lab to the state in which most chapters begin: joined, with the package installed and
//! configured.

use std::time::Duration;

use crate::lab::{Lab, wait};
use crate::report::{Check, Report};

/// Skips steps that are already done, because an earlier chapter may have installed the package.
pub fn chapter(lab: &Lab, report: &mut Report) -> Result<(), String> {
    report.check("realm join", || lab.run(&["join"]).ok().map(|_| ()));
    if !lab.path("/usr/libexec/motion-ad/motion-ad-broker").exists() {
        let package = lab.package()?;
        report.check("the package is installed", || {
            lab.run(&["install", &package.to_string_lossy()]).ok().map(|_| ())
        });
    }
    works(lab, report)?;
    lab.second()?.map_or(Ok(()), |second| works(&second, report))
}

/// Checks that the broker works. Otherwise every later check would fail for the same reason.
fn works(lab: &Lab, report: &mut Report) -> Check {
    lab.configure("")?;
    let mut ready = Err("motion-ad status was not asked".to_owned());
    report.check(&format!("{}: motion-ad status: all is well", lab.host_name()), || {
        ready = wait(Duration::from_secs(15), || lab.host("root", &["motion-ad", "status"], "").ok());
        ready.clone().map(|_| ())
    });
    ready.map(|_| ())
}
