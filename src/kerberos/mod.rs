//! kerberos
