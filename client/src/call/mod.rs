//! One call, from its description to its outcome.
//!
//! ```text
//! Call (options) -> candidates (choice) -> Race: which one is asked when
//!      -> for each: Attempt (one provider, one token, one circuit or a hedge of two)
//!      -> CallOutcome, PendingAck
//! ```

mod attempt;
mod choice;
mod driver;
mod hedge;
mod options;
mod outcome;
mod output;
mod payment;
mod progress;
mod race;
mod replicas;

pub use driver::PendingAck;
pub use options::{Call, Candidate, FunctionName, Target};
pub use outcome::CallOutcome;
pub use output::{Output, Stages, Traffic};
pub use progress::Progress;
pub use replicas::{Agreement, Replica, Replicas};
