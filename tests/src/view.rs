//! The provider's side of the privacy rule: what two calls have in common.
//!
//! Plays a provider that wrote down everything ([`SessionRecord`]) and now
//! looks for any string of eight or more bytes that occurs in two calls and
//! is not a constant of the protocol, the same for everybody.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, HEXLOWER};
use dlambda_privacy::transport::CircuitFacts;
use dlambda_proto::{
    Completion, ContractRequest, FunctionSource, Reply, Request, VERSION, decode, encode,
};
use dlambda_provider::SessionRecord;
use serde_json::Value;

/// Shortest string that counts as a mark.
pub const WINDOW: usize = 8;

type Window = [u8; WINDOW];

/// Everything a provider knows of one call, as strings of bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct View {
    /// Which circuit it came by.
    pub circuit: Vec<u8>,
    /// Everything else, by name.
    pub fields: Vec<(&'static str, Vec<u8>)>,
}

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

/// Every link between any two of these views, which should be of `calls` calls.
/// Strings of the advert and of the call header, which everybody's calls
/// contain, do not count.
#[must_use]
pub fn links(views: &[View], calls: usize) -> HashSet<Link> {
    links_beside(views, calls, &HashSet::new())
}

/// The same, where these strings, which everybody sends, do not count either.
#[must_use]
pub fn links_beside(views: &[View], calls: usize, public: &HashSet<[u8; WINDOW]>) -> HashSet<Link> {
    let mut found = HashSet::new();
    if views.len() != calls {
        let streams = views.len();
        found.insert(Link::SharedStream { streams, calls });
    }
    // The advert's own strings, the published functions' names among them, are
    // the same for everybody.
    let adverts = views.iter().map(|view| {
        let sent = view.field(SENT);
        &sent[..advert_len(sent).min(sent.len())]
    });
    let mut constants: HashSet<Window> = adverts.flat_map(windows).collect();
    constants.extend(public);
    let marks: Vec<Marks> = views.iter().map(|view| marks(view, &constants)).collect();
    for (i, one) in views.iter().enumerate() {
        for (j, two) in views[..i].iter().enumerate() {
            if one.circuit == two.circuit {
                found.insert(Link::SharedCircuit);
            }
            found.extend(shared_strings(&marks[i], &marks[j]));
        }
    }
    found
}

impl View {
    /// The view of a provider that kept this record.
    #[must_use]
    pub fn new(record: &SessionRecord) -> Self {
        let key = |key: &Option<[u8; 32]>| key.map(|key| key.to_vec()).unwrap_or_default();
        let time = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let nanos = u64::try_from(since.as_nanos()).unwrap_or(0);
            nanos.to_be_bytes().to_vec()
        };
        let view = Self {
            circuit: record.circuit.label.to_vec(),
            fields: vec![
                ("circuit label", record.circuit.label.to_vec()),
                ("circuit opening", record.circuit.opening.clone()),
                ("time opened", time(record.opened)),
                ("time ended", time(record.ended)),
                (RECEIVED, record.received.clone()),
                (SENT, record.sent.clone()),
                ("call key", key(&record.encapsulated_key)),
                ("reply secret", key(&record.reply_secret)),
            ],
        }
        .with_plaintext(record.request.as_deref(), record.reply.as_deref());
        record.earlier.iter().fold(view, |mut view, earlier| {
            view.fields
                .push(("earlier key", key(&earlier.encapsulated_key)));
            view.fields
                .push(("earlier secret", key(&earlier.reply_secret)));
            view.with_plaintext(earlier.request.as_deref(), earlier.reply.as_deref())
        })
    }

    /// The view of a node that one request of a guest came to: what the node itself sends says
    /// nothing of the guest.
    #[must_use]
    pub fn of_guest(circuit: &CircuitFacts, received: &[u8]) -> Self {
        Self {
            circuit: circuit.label.to_vec(),
            fields: vec![
                ("circuit label", circuit.label.to_vec()),
                ("circuit opening", circuit.opening.clone()),
                ("bytes asked", received.to_vec()),
            ],
        }
    }

    /// The view of a node of everything that was ever gossiped to it.
    #[must_use]
    pub fn of_gossip(items: &[Vec<u8>]) -> Self {
        Self {
            circuit: b"gossip".to_vec(),
            fields: items.iter().map(|it| ("gossip", it.clone())).collect(),
        }
    }

    /// The view in a line of the file that `--dangerously-record-calls` writes.
    #[must_use]
    pub fn from_json(line: &Value) -> Option<Self> {
        let hex = |name: &str| HEXLOWER.decode(line[name].as_str()?.as_bytes()).ok();
        let base64 = |name: &str| BASE64.decode(line[name].as_str()?.as_bytes()).ok();
        let time = |name: &str| Some(line[name].as_f64()?.to_be_bytes().to_vec());
        let wire = Some(Self {
            circuit: hex("circuit")?,
            fields: vec![
                ("circuit label", hex("circuit")?),
                ("circuit opening", hex("opening")?),
                ("time opened", time("opened")?),
                ("time ended", time("ended")?),
                (RECEIVED, base64("received")?),
                (SENT, base64("sent")?),
                ("call key", hex("encapsulated_key")?),
                ("reply secret", hex("reply_secret")?),
            ],
        });
        let (request, reply) = (base64("request"), base64("reply"));
        let view = wire?.with_plaintext(request.as_deref(), reply.as_deref());
        let earlier = line["earlier"].as_array().map(Vec::as_slice);
        Some(earlier.unwrap_or_default().iter().fold(view, |view, line| {
            let base64 = |name: &str| BASE64.decode(line[name].as_str()?.as_bytes()).ok();
            let (request, reply) = (base64("request"), base64("reply"));
            view.with_plaintext(request.as_deref(), reply.as_deref())
        }))
    }

    /// Adds what was sealed, value by value: the encoding around the values is
    /// the protocol's, the same for everybody.
    fn with_plaintext(mut self, request: Option<&[u8]>, reply: Option<&[u8]>) -> Self {
        if let Some(request) = request.and_then(|bytes| decode::<Request>(bytes).ok()) {
            let args = request.args.into_iter().map(String::into_bytes);
            self.fields.extend(args.map(|arg| ("argument", arg)));
            self.fields.push(match request.function {
                FunctionSource::Attached(wasm) => ("function", wasm),
                FunctionSource::Known(id) => ("function", id.digest().to_vec()),
            });
            self.fields.push(("input", request.input));
            self.fields.push(("seed", request.seed.to_vec()));
            if let Some(token) = request.token {
                self.fields.push(("token", token.nonce.to_vec()));
                let authenticator = token.authenticator.to_vec();
                self.fields.push(("token's authenticator", authenticator));
            }
        }
        if let Some(ContractRequest::Propose(proposal)) =
            request.and_then(|bytes| decode::<ContractRequest>(bytes).ok())
        {
            let contract = &proposal.contract;
            self.fields.extend([
                ("contract", contract.id().0.to_vec()),
                ("contract key", contract.client.as_bytes().to_vec()),
                ("blinded tokens", proposal.call_request),
                ("blinded ratings", proposal.rating_request),
            ]);
        }
        if let Some(reply) = reply.and_then(|bytes| decode::<Reply>(bytes).ok()) {
            if let Completion::Exited { stdout, stderr, .. } = reply.completion {
                self.fields.push(("output", stdout));
                self.fields.push(("error output", stderr));
            }
            if let Some(receipt) = reply.receipt {
                let signature = receipt.signature().to_vec();
                self.fields.push(("receipt's signature", signature));
                if let Some(receipt) = receipt.unverified() {
                    let output = receipt.output.as_bytes().to_vec();
                    self.fields.push(("receipt's output", output));
                    self.fields
                        .push(("receipt's input", receipt.request.0.to_vec()));
                }
            }
            let usage = reply.usage;
            for number in [
                usage.fuel,
                usage.peak_memory_bytes,
                usage.queue_us,
                usage.execute_us,
            ] {
                self.fields.push(("usage", encode(&number)));
            }
        }
        self
    }

    /// The field of this name; empty if there is none.
    #[must_use]
    pub fn field(&self, name: &str) -> &[u8] {
        let found = self.fields.iter().find(|(field, _)| *field == name);
        found.map_or(&[], |(_, bytes)| bytes)
    }
}

/// Names of the fields that hold what crossed the wire.
const RECEIVED: &str = "bytes received";
const SENT: &str = "bytes sent";

/// Bytes of a call frame up to its one-time key, for the default plan:
/// `01 02 length(4) | 83 | 82 epoch "small" | 58 20`.
const CALL_PREFIX: usize = 6 + 1 + 1 + 1 + 6 + 2;

/// The acknowledgement's frame: the last bytes of every call.
const ACK: [u8; 6] = [VERSION, 4, 0, 0, 0, 0];

/// Bytes of the advert's frame, which is the first that the provider sends.
fn advert_len(sent: &[u8]) -> usize {
    let length = sent.get(2..6).and_then(|bytes| bytes.try_into().ok());
    6 + length.map_or(0, |bytes| u32::from_be_bytes(bytes) as usize)
}

/// What crossed the wire, without what everybody's calls contain: the advert
/// and the header of the reply's frame, the call's header, the acknowledgement.
/// Cut off rather than searched for, since half a constant and half a random
/// string would look alike by chance.
fn distinct<'a>(name: &str, bytes: &'a [u8]) -> &'a [u8] {
    match name {
        RECEIVED => {
            let bytes = bytes.get(CALL_PREFIX..).unwrap_or(bytes);
            bytes.strip_suffix(&ACK).unwrap_or(bytes)
        }
        SENT => bytes.get(advert_len(bytes) + 6..).unwrap_or(&[]),
        _ => bytes,
    }
}

/// Every string of a view that is not a constant, and a field that holds it.
type Marks = HashMap<Window, &'static str>;

fn marks(view: &View, constants: &HashSet<Window>) -> Marks {
    let fields = view.fields.iter();
    let all = fields.flat_map(|(name, bytes)| {
        let bytes = distinct(name, bytes);
        windows(bytes).map(|window| (window, *name))
    });
    all.filter(|(window, _)| !constants.contains(window))
        .collect()
}

fn shared_strings(one: &Marks, two: &Marks) -> Vec<Link> {
    let shared = one.iter().filter_map(|(bytes, first)| {
        let second = two.get(bytes)?;
        Some(Link::SharedString {
            first,
            second,
            bytes: *bytes,
        })
    });
    shared.collect()
}

fn windows(bytes: &[u8]) -> impl Iterator<Item = Window> {
    bytes.windows(WINDOW).filter_map(|w| w.try_into().ok())
}
