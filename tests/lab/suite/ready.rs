//! John, who may always log in: what other things do to that shows whether they are harmless.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cast::person;
use crate::lab::{Lab, wait};
use crate::pam::{Answer, authenticate, pam};
use crate::report::{Check, equal};

/// Waits until he can: the chapter before may have left a broker that is just starting.
pub fn ready(lab: &Lab) -> Check {
    wait(Duration::from_secs(10), || john(lab).map(drop))
}

/// John logs in, as he always can. Answers how long it took, the way into the host included.
pub fn john(lab: &Lab) -> Result<Duration, String> {
    let john = person("john");
    let begun = Instant::now();
    let answer = authenticate(lab, john.sam, john.password);
    let took = begun.elapsed();
    let expected = "PAM_SUCCESS";
    equal("john.doe", answer.code.as_str(), expected).map_err(|e| format!("{e}\n{}", answer.output))?;
    Ok(took)
}

/// John at another service than `motion`.
pub fn john_at(lab: &Lab, service: &str, entry_points: &[&str]) -> (Answer, Duration) {
    let john = person("john");
    let begun = Instant::now();
    let answer = pam(lab, service, john.sam, john.password, entry_points);
    (answer, begun.elapsed())
}

/// John logs in again and again while `work` is done. All logins have to succeed, and there has to be one at least.
/// Answers the slowest.
pub fn while_john_logs_in(lab: &Lab, work: impl FnOnce() -> Check) -> Result<(u32, Duration), String> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let logins = scope.spawn(|| {
            let (mut count, mut slowest, mut failed) = (0, Duration::ZERO, Vec::new());
            while !done.load(Ordering::Relaxed) || count == 0 {
                count += 1;
                match john(lab) {
                    Ok(took) => slowest = slowest.max(took),
                    Err(error) => failed.push(error),
                }
            }
            (count, slowest, failed)
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let (count, slowest, failed) = logins.join().map_err(|_| "the logins' thread ended")?;
        result?;
        match failed.as_slice() {
            [] => Ok((count, slowest)),
            [first, ..] => Err(format!("{} of {count} logins failed; the first: {first}", failed.len())),
        }
    })
}

/// The broker starts again, as an administrator would have it.
pub fn restart(lab: &Lab) -> Check {
    lab.host_sh("systemctl restart motion-ad.service").ok().map(drop)
}
