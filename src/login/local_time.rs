//! Times in this host's time zone, for the log and for `motion-ad check`.
//!
//! The C library knows the time zone. The unsafe code of this file is its one call.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::{SystemTime, UNIX_EPOCH};

/// Returns `14:02`, or `2026-11-29 14:02` on another day than `today`.
pub fn local(at: SystemTime, today: SystemTime) -> String {
    let Some(shown) = parts(at) else { return "a time that no calendar has".to_owned() };
    let is_today =
        parts(today).is_some_and(|now| (now.tm_year, now.tm_yday) == (shown.tm_year, shown.tm_yday));
    let libc::tm { tm_year, tm_mon, tm_mday, tm_hour, tm_min, .. } = shown;
    let time = format!("{tm_hour:02}:{tm_min:02}");
    match is_today {
        true => time,
        false => {
            let (year, month) = (i64::from(tm_year) + 1900, i64::from(tm_mon) + 1);
            format!("{year:04}-{month:02}-{tm_mday:02} {time}")
        }
    }
}

fn parts(at: SystemTime) -> Option<libc::tm> {
    let seconds = libc::time_t::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both point to memory of their types that lives during the call. localtime_r(3) may be called by
    // any thread; it reads the variable TZ, which this process never sets.
    let done = unsafe { libc::localtime_r(&raw const seconds, parts.as_mut_ptr()) };
    // SAFETY: all bits zero are a valid `tm`, and the call has only written to it.
    (!done.is_null()).then(|| unsafe { parts.assume_init() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_day_is_named_where_it_is_another_one() {
        // As date(1) of this host has it, whatever its time zone.
        let seconds = 1_795_447_800;
        let at = UNIX_EPOCH + Duration::from_secs(seconds);
        let date = |format: &str| {
            let ran =
                std::process::Command::new("date").args(["-d", &format!("@{seconds}"), format]).output();
            String::from_utf8(ran.unwrap().stdout).unwrap().trim().to_owned()
        };
        assert_eq!(local(at, at), date("+%H:%M"));
        assert_eq!(local(at, at + Duration::from_secs(7 * 86_400)), date("+%Y-%m-%d %H:%M"));
        assert_eq!(local(at, at + Duration::from_secs(365 * 86_400)), date("+%Y-%m-%d %H:%M"));
        // The latest moment of AD.
        assert!(local(UNIX_EPOCH + Duration::from_secs(u64::MAX / 4), at).contains("time"));
    }
}
