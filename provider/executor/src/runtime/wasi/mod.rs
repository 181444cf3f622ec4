//! What a function gets of WASI beyond what the library gives.

pub(crate) mod clock;
pub(crate) mod poll;
pub(crate) mod random;
pub(crate) mod stdin;
pub(crate) mod stdout;
