//! Logins of John, who may always log in. They show if another event disturbs the broker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cast::person;
use crate::lab::{Lab, wait};
use crate::pam::{Answer, authenticate, pam};
use crate::report::{Check, equal};

/// Waits until John can log in, because the chapter before may have left a broker that is starting.
pub fn ready(lab: &Lab) -> Check {
    wait(Duration::from_secs(10), || john(lab).map(drop))
}

/// Logs John in, and returns the duration, including the time to enter the host.
pub fn john(lab: &Lab) -> Result<Duration, String> {
    let john = person("john");
    let begun = Instant::now();
    let answer = authenticate(lab, john.sam, john.password);
    let took = begun.elapsed();
    let expected = "PAM_SUCCESS";
    equal("john.doe", answer.code.as_str(), expected).map_err(|e| format!("{e}\n{}", answer.output))?;
    Ok(took)
}

/// Logs John in at another service than `motion`.
pub fn john_at(lab: &Lab, service: &str, entry_points: &[&str]) -> (Answer, Duration) {
    let john = person("john");
    let begun = Instant::now();
    let answer = pam(lab, service, john.sam, john.password, entry_points);
    (answer, begun.elapsed())
}

/// Logs John in repeatedly while `work` runs. At least one login must happen, and all must succeed. Returns
/// their number and the slowest duration.
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

/// Restarts the broker as an administrator would.
pub fn restart(lab: &Lab) -> Check {
    lab.host_sh("systemctl restart motion-ad.service").ok().map(drop)
}

/// Starts a broker that finds the files as `change` leaves them. A broker that runs meanwhile may notice the
/// change, restart itself and hand its last good configuration on, and a restart by hand in that moment would
/// find it.
pub fn start_after(lab: &Lab, change: impl FnOnce() -> Check) -> Check {
    lab.host_sh("systemctl stop motion-ad.service").ok()?;
    change()?;
    restart(lab)
}
