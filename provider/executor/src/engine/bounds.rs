//! Bounds of the host functions. A guest can see where they are, so they are part of the engine's
//! profile.

/// Bytes that a guest may pass to the host in one call of the host.
pub(crate) const BYTES_PER_HOST_CALL: usize = 16 << 20;
/// Bytes of header fields, as the library counts them, in each of a guest's heads.
pub(crate) const FIELD_BYTES: usize = 64 << 10;
/// Handles to host objects that one guest may hold.
pub(crate) const HANDLES: usize = 1_024;
/// Random bytes in one request.
pub(crate) const RANDOM_BYTES: u64 = 1 << 20;
/// Standard error that a provider keeps and sends back, in bytes; the rest is dropped.
pub(crate) const STDERR_BYTES: usize = 16 << 10;
/// Things to wait for in one `poll_oneoff`: more than any guest has use for; the answer is as
/// long.
pub(crate) const SUBSCRIPTIONS: usize = 1_024;
