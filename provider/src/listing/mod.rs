//! The provider's listing on the overlay: what it says, and that its chain never forks.

pub(crate) mod chain;
