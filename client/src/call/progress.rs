//! How far a call has come.

/// Hears how far a call has come, from all its attempts.
pub(super) type Watch<'a> = dyn Fn(Progress) + Send + Sync + 'a;

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Building a circuit, for this many attempts now.
    Connecting {
        /// 1 for the first.
        attempt: u32,
    },
    /// The stream is open; waiting for the advert.
    Verifying,
    /// The call is on its way; waiting for the reply.
    Running {
        /// Whether the function travels with the call.
        attached: bool,
    },
}
