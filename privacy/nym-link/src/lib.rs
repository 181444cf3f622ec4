//! What D-Lambda and its Nym helper say to each other.
//!
//! The helper is a program of its own, `dlambda-nym`, as Tor's pluggable
//! transports are: Nym's dependencies cannot share a lockfile with arti's. It
//! reads [`Command`]s from its standard input, writes [`Event`]s to its
//! standard output, opens no listening socket, and ends when its input ends.
//!
//! It carries messages and knows nothing of what is in them. A *session* is
//! one Nym client of the caller's, used for one call and never again; at the
//! provider it is one sender tag, which is as short-lived.

mod error;
mod frame;
mod message;

pub use error::LinkError;
pub use frame::{MAX_FRAME, read_frame, write_frame};
pub use message::{
    Command, Event, MAX_MESSAGE, NymRecipient, Reason, Role, SessionId, Settings, Traffic, VERSION,
};
