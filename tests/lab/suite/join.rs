//! Brings the lab to where most chapters begin: joined, with the package installed and configured.

use std::time::Duration;

use crate::lab::{Lab, wait};
use crate::report::{Check, Report};

/// What is so already is left alone, so that a chapter before this one may have installed the package.
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

/// Without a working broker every other check would fail for the same reason.
fn works(lab: &Lab, report: &mut Report) -> Check {
    lab.configure("")?;
    let mut ready = Err("motion-ad status was not asked".to_owned());
    report.check(&format!("{}: motion-ad status: all is well", lab.host_name()), || {
        ready = wait(Duration::from_secs(15), || lab.host("root", &["motion-ad", "status"], "").ok());
        ready.clone().map(|_| ())
    });
    ready.map(|_| ())
}
