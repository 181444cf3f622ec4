//! What goes wrong between the two programs.

/// The other side cannot be talked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The other program has ended, or its end of the pipe is gone.
    #[error("the other program is gone")]
    Lost(#[source] std::io::Error),
    /// A frame is longer than [`MAX_FRAME`](crate::MAX_FRAME).
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// A frame cannot be read. Do the two programs come from one version?
    #[error("a frame cannot be read")]
    Malformed,
}
