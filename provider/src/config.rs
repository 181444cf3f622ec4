//! What a provider offers and what it puts up with.

use std::time::Duration;

use dlambda_proto::Plan;

/// Everything that an operator may set. [`Default`] is a sensible small machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProviderConfig {
    /// The menu; the first is the default plan.
    pub plans: Vec<Plan>,
    /// How long an epoch's keys are advertised.
    pub epoch: Duration,
    /// How long they still open calls after that.
    pub overlap: Duration,
    /// Streams served at a time; further callers are turned away.
    pub max_sessions: usize,
    /// Bytes being received at a time, over all streams.
    pub receive_bytes: usize,
    /// Bytes of replies waiting to be taken, over all streams.
    pub send_bytes: usize,
    /// Largest function accepted with a call, in bytes.
    pub max_function_bytes: u32,
    /// Bytes of uploaded functions kept on disk; the longest unused go first.
    pub store_bytes: u64,
    /// Functions executing at a time.
    pub max_concurrent: usize,
    /// Deadlines of a session.
    pub deadlines: Deadlines,
}

/// How long a provider waits for the other side, or for itself.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Deadlines {
    /// For a caller to take the advert.
    pub advert: Duration,
    /// For a whole call to arrive once the stream is open.
    pub call: Duration,
    /// For a function to be compiled and given a turn.
    pub prepare: Duration,
    /// For a caller to take the reply.
    pub reply: Duration,
    /// For the acknowledgement.
    pub ack: Duration,
    /// For running calls to end when the provider is told to stop.
    pub drain: Duration,
}

impl Default for ProviderConfig {
    fn default() -> Self {
        Self {
            plans: Plan::standard_menu(),
            epoch: Duration::from_secs(24 * 3600),
            overlap: Duration::from_secs(3600),
            max_sessions: 256,
            receive_bytes: 512 << 20,
            send_bytes: 512 << 20,
            max_function_bytes: 32 << 20,
            store_bytes: 512 << 20,
            max_concurrent: std::thread::available_parallelism().map_or(2, |n| n.get() * 2),
            deadlines: Deadlines::default(),
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            advert: seconds(30),
            call: seconds(300),
            prepare: seconds(120),
            reply: seconds(300),
            ack: seconds(30),
            drain: seconds(150),
        }
    }
}
