//! What is asked of a function that is run here.

use bytes::Bytes;
use dlambda_executor::Invocation;
use dlambda_proto::{FunctionId, Plan};

/// What is asked of the function.
pub(super) struct Job {
    pub(super) function: FunctionId,
    pub(super) wasm: Bytes,
    pub(super) menu: Vec<Plan>,
    pub(super) plan: Plan,
    pub(super) invocation: Invocation,
    pub(super) input_bytes: u64,
}
