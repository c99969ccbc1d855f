//! KRB-ERROR: a KDC's refusal (RFC 4120, 5.9.1).

#![allow(unsafe_code)]

use std::ptr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::raw::{self, krb5_error};
use super::{Context, Failure, input, slice};

/// The content of a KRB-ERROR.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The error code (RFC 4120, 7.5.9).
    pub(crate) code: u32,
    /// The KDC's clock.
    pub(crate) time: SystemTime,
    /// More about the error; its meaning depends on the code and on the KDC.
    pub(crate) data: Vec<u8>,
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KRB-ERROR {} with {} bytes of e-data", self.code, self.data.len())
    }
}

impl Refused {
    /// The first byte of a KRB-ERROR: `[APPLICATION 30]`.
    pub(super) const TAG: u8 = 0x7e;

    /// Reads `message`; `None` if it is not a KRB-ERROR.
    ///
    /// # Errors
    /// Returns an error if it begins like a KRB-ERROR but is malformed.
    pub(crate) fn read(message: &[u8]) -> Result<Option<Self>, Failure> {
        if message.first() != Some(&Self::TAG) {
            return Ok(None);
        }
        let context = Context::new()?;
        let data = input(message)?;
        let mut raw = ptr::null_mut();
        // SAFETY: the context is valid, the message is only read; `raw` is written on success only.
        context.check(unsafe { raw::krb5_rd_error(context.0, &data, &mut raw) })?;
        // SAFETY: made by the library for us just now.
        Ok(Some(unsafe { Self::take(&context, raw) }))
    }

    /// Copies the error and frees it.
    ///
    /// # Safety
    /// `raw` was made by the library and belongs to the caller.
    pub(super) unsafe fn take(context: &Context, raw: *mut krb5_error) -> Self {
        // SAFETY: guaranteed by the caller.
        let error = unsafe { &*raw };
        let seconds = u64::from(error.stime.cast_unsigned());
        let micros = u64::try_from(error.susec).unwrap_or(0);
        let refused = Refused {
            code: error.error,
            time: UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros),
            // SAFETY: it lives until the next statement.
            data: unsafe { slice(&error.e_data) }.to_vec(),
        };
        // SAFETY: freed once, by the function that belongs to it.
        unsafe { raw::krb5_free_error(context.0, raw) };
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PREAUTH_FAILED of 2026-11-23 18:49:37.658 by krbtgt, with three bytes of e-data.
    const MESSAGE: &[u8] = b"\x7e\x53\x30\x51\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x1e\
        \xa4\x11\x18\x0f20261123184937Z\xa5\x05\x02\x03\x0a\x0a\x50\xa6\x03\x02\x01\x18\
        \xa9\x0a\x1b\x08ACME.COM\xaa\x13\x30\x11\xa0\x03\x02\x01\x02\xa1\x0a\x30\x08\x1b\x06krbtgt\
        \xac\x05\x04\x03abc";

    #[test]
    fn a_refusal_tells_code_clock_and_data() {
        let refused = Refused::read(MESSAGE).unwrap().unwrap();
        assert_eq!((refused.code, &refused.data[..]), (24, &b"abc"[..]));
        let since = refused.time.duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(since, Duration::from_micros(1_795_459_777_658_000));
    }

    #[test]
    fn rubbish_is_told_apart() {
        assert_eq!(Refused::read(b"").unwrap(), None);
        assert_eq!(Refused::read(b"\x6b\x03abc").unwrap(), None);
        for length in 1..MESSAGE.len() {
            assert!(Refused::read(&MESSAGE[..length]).is_err(), "{length}");
        }
        assert!(Refused::read(&[Refused::TAG; 4096]).is_err());
    }
}
