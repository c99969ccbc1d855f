//! The PAM side.
