//! The provider's side of the privacy rule: what two calls have in common.
//!
//! Plays a provider that wrote down everything ([`SessionRecord`]) and now
//! looks for any string of eight or more bytes that occurs in two calls and
//! is not a constant of the protocol, the same for everybody.

use std::collections::HashSet;
use std::time::UNIX_EPOCH;

use dlambda_provider::SessionRecord;

/// Shortest string that counts as a mark.
pub const WINDOW: usize = 8;

type Window = [u8; WINDOW];

/// A mark by which a provider could tell that two calls are of one caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Link {
    /// The provider saw fewer streams than there were calls: some shared one.
    SharedStream {
        /// Streams seen.
        streams: usize,
        /// Calls made.
        calls: usize,
    },
    /// Two calls came by one circuit.
    SharedCircuit,
    /// A string occurs in two calls.
    SharedString {
        /// Where in the first call.
        first: &'static str,
        /// Where in the second call.
        second: &'static str,
        /// The string.
        bytes: Window,
    },
}

/// Every link between any two of these sessions, which should be `calls` calls.
/// `constants` are strings that everybody's calls contain.
#[must_use]
pub fn links(records: &[SessionRecord], calls: usize, constants: &[Vec<u8>]) -> HashSet<Link> {
    let mut found = HashSet::new();
    if records.len() != calls {
        let streams = records.len();
        found.insert(Link::SharedStream { streams, calls });
    }
    let constants: HashSet<Window> = constants.iter().flat_map(|c| windows(c)).collect();
    for (i, one) in records.iter().enumerate() {
        for two in &records[..i] {
            if one.circuit.label == two.circuit.label {
                found.insert(Link::SharedCircuit);
            }
            found.extend(shared_strings(one, two, &constants));
        }
    }
    found
}

fn shared_strings(
    one: &SessionRecord,
    two: &SessionRecord,
    constants: &HashSet<Window>,
) -> Vec<Link> {
    let mut links = Vec::new();
    for (first, bytes) in fields(one) {
        let marks: HashSet<Window> = windows(&bytes).filter(|w| !constants.contains(w)).collect();
        for (second, bytes) in fields(two) {
            let shared = windows(&bytes).filter(|window| marks.contains(window));
            links.extend(shared.map(|bytes| Link::SharedString {
                first,
                second,
                bytes,
            }));
        }
    }
    links
}

fn windows(bytes: &[u8]) -> impl Iterator<Item = Window> {
    bytes.windows(WINDOW).filter_map(|w| w.try_into().ok())
}

/// Everything in a record, as strings of bytes.
fn fields(record: &SessionRecord) -> Vec<(&'static str, Vec<u8>)> {
    let key = |key: &Option<[u8; 32]>| key.map(|key| key.to_vec()).unwrap_or_default();
    let time = |time: std::time::SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(0).to_be_bytes().to_vec()
    };
    vec![
        ("circuit label", record.circuit.label.to_vec()),
        ("circuit opening", record.circuit.opening.clone()),
        ("time opened", time(record.opened)),
        ("time ended", time(record.ended)),
        ("bytes received", record.received.clone()),
        ("bytes sent", record.sent.clone()),
        ("call key", key(&record.encapsulated_key)),
        ("reply secret", key(&record.reply_secret)),
        ("request", record.request.clone().unwrap_or_default()),
        ("reply", record.reply.clone().unwrap_or_default()),
    ]
}
