//! XCALLY username to user@domain and back.
