//! The virtual broker.
