//! One call, from its description to its outcome.
//!
//! ```text
//! Call (options) -> candidates -> for each: Attempt (one provider, one token, circuits)
//!      -> CallOutcome, PendingAck
//! ```

mod attempt;
mod driver;
mod options;
mod outcome;
mod output;
mod payment;
mod progress;

pub use driver::PendingAck;
pub use options::{Call, Candidate, FunctionName, Target};
pub use outcome::CallOutcome;
pub use output::{Output, Stages, Traffic};
pub use progress::Progress;
