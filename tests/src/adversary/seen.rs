//! What can be seen of a session, taken apart.
//!
//! Of a call only values are compared, without the encoding around them:
//! half a constant and half a random string would look alike by chance.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE, HEXUPPER};
use dlambda_proto::{
    Advert, Authentic, CallEnvelope, Completion, ContractId, ContractRequest, FRAME_HEADER_LEN,
    FrameHeader, FrameKind, FunctionSource, Greeting, Proposal, Reply, Request, decode, encode,
};
use dlambda_provider::SessionRecord;
use sha2::{Digest as _, Sha256};

/// Shortest string that counts as a mark, in bytes.
const WINDOW: usize = 8;

pub(super) type Window = [u8; WINDOW];

type Value = (&'static str, Vec<u8>);

/// All about a contract, from all the sessions in which it was spoken of.
pub(super) struct ContractSeen {
    pub(super) id: ContractId,
    /// The end of the first of them.
    pub(super) signed: SystemTime,
    pub(super) strings: HashSet<Window>,
}

/// All about a call.
pub(super) struct CallSeen {
    pub(super) opened: SystemTime,
    pub(super) ended: SystemTime,
    pub(super) request: Request,
    /// Strings of any length.
    values: Vec<Value>,
    /// Numbers, and the beginnings of random strings as numbers.
    pub(super) numbers: Vec<(&'static str, u64)>,
    /// What can only be equal or not.
    pub(super) facts: Vec<Value>,
}

/// The request of a session that was a call.
pub(super) fn opened_call(record: &SessionRecord) -> Option<Request> {
    decode(record.request.as_ref()?).ok()
}

/// The contract of a session that was about one, and every string of it: as it
/// is, as text, and what names the contract or a token also hashed.
pub(super) fn opened_contract(record: &SessionRecord) -> Option<(ContractId, HashSet<Window>)> {
    let request = record.request.as_ref()?;
    let mut names = Vec::new();
    let id = match decode::<ContractRequest>(request).ok()? {
        ContractRequest::Propose(proposal) => {
            names.extend(blinded(&proposal));
            names.push(proposal.contract.client.as_bytes().to_vec());
            names.push(proposal.digest().to_vec());
            proposal.contract.id()
        }
        ContractRequest::Confirm { contract, .. } => contract,
        _ => return None,
    };
    names.push(id.0.to_vec());
    let hashed = names.iter().map(|name| Sha256::digest(name).to_vec());
    let mut strings: Vec<Vec<u8>> = hashed.collect();
    strings.append(&mut names);
    strings.push(request.clone());
    strings.extend(record.reply.clone());
    strings.extend(record.reply_secret.map(Vec::from));
    let texts = strings
        .iter()
        .flat_map(|bytes| [HEXLOWER, HEXUPPER, BASE64].map(|text| text.encode(bytes).into_bytes()));
    let texts: Vec<Vec<u8>> = texts.collect();
    strings.extend(texts);
    strings.push(record.circuit.label.to_vec());
    strings.push(record.circuit.opening.clone());
    strings.push(record.received.clone());
    strings.push(after_greeting(&record.sent).to_vec());
    Some((id, strings.iter().flat_map(|it| windows(it)).collect()))
}

/// Strings that everybody is sent: the greeting, unless some got another, and
/// how a stream is opened, if always in the same way.
pub(super) fn public(records: &[SessionRecord]) -> HashSet<Window> {
    let common = |strings: Vec<&[u8]>| {
        let sets = strings.iter().collect::<HashSet<_>>().into_iter();
        let sets = sets.map(|bytes| windows(bytes).collect::<HashSet<Window>>());
        sets.reduce(|one, two| &one & &two).unwrap_or_default()
    };
    let greetings = records.iter().map(|record| greeting(&record.sent));
    let openings = records.iter().map(|record| &record.circuit.opening[..]);
    &common(greetings.collect()) | &common(openings.collect())
}

impl ContractSeen {
    pub(super) fn new(id: ContractId, record: &SessionRecord, strings: HashSet<Window>) -> Self {
        Self {
            id,
            signed: record.ended,
            strings,
        }
    }

    pub(super) fn add(&mut self, record: &SessionRecord, strings: HashSet<Window>) {
        self.signed = self.signed.min(record.ended);
        self.strings.extend(strings);
    }
}

impl CallSeen {
    pub(super) fn new(record: &SessionRecord, request: Request) -> Self {
        let mut seen = Self {
            opened: record.opened,
            ended: record.ended,
            request,
            values: Vec::new(),
            numbers: Vec::new(),
            facts: Vec::new(),
        };
        seen.note_circuit(record);
        seen.note_wire(record);
        seen.note_request();
        seen.note_reply(record);
        seen
    }

    pub(super) fn duration(&self) -> Duration {
        self.ended.duration_since(self.opened).unwrap_or_default()
    }

    /// Every string that is not public, and a field that holds it.
    pub(super) fn marks(&self, public: &HashSet<Window>) -> HashMap<Window, &'static str> {
        let values = self.values.iter();
        let all = values.flat_map(|(name, bytes)| windows(bytes).map(|window| (window, *name)));
        all.filter(|(window, _)| !public.contains(window)).collect()
    }

    fn note_circuit(&mut self, record: &SessionRecord) {
        self.random("circuit label", &record.circuit.label);
        self.fact("circuit opening", record.circuit.opening.clone());
        self.values
            .push(("circuit opening", record.circuit.opening.clone()));
        self.number("bytes received", record.received.len() as u64);
        self.number("bytes sent", record.sent.len() as u64);
        let micros = u64::try_from(self.duration().as_micros()).unwrap_or(u64::MAX);
        self.number("duration", micros);
    }

    /// Both directions, frame by frame.
    fn note_wire(&mut self, record: &SessionRecord) {
        let mut kinds = Vec::new();
        for (kind, body) in frames(&record.received) {
            kinds.extend(format!("{kind:?} ").into_bytes());
            match decode::<CallEnvelope>(body) {
                Ok(envelope) if kind == Some(FrameKind::Call) => {
                    self.random("call key", &envelope.encapsulated_key);
                    self.fact("call header", encode(&envelope.header));
                    self.values.push(("sealed call", envelope.ciphertext));
                }
                _ => self.values.push(("frame received", body.to_vec())),
            }
        }
        for (kind, body) in frames(after_greeting(&record.sent)) {
            kinds.extend(format!("{kind:?} ").into_bytes());
            self.values.push(("frame sent", body.to_vec()));
        }
        self.fact("frames", kinds);
        self.fact("greeting", greeting(&record.sent).to_vec());
        if let Some(secret) = &record.reply_secret {
            self.random("reply secret", secret);
        }
    }

    fn note_request(&mut self) {
        let request = self.request.clone();
        for arg in request.args {
            self.text("argument", arg.into_bytes());
        }
        let function = match request.function {
            FunctionSource::Attached(wasm) => wasm,
            FunctionSource::Known(id) => id.digest().to_vec(),
        };
        self.fact("function", function.clone());
        self.values.push(("function", function));
        self.number("input size", request.input.len() as u64);
        self.text("input", request.input);
        self.random("seed", &request.seed);
        self.values.push(("HTTP request", encode(&request.http)));
        if let Some(token) = request.token {
            self.fact("epoch", encode(&token.epoch));
            self.random("nonce", &token.nonce);
            self.random("authenticator", &token.authenticator);
        }
    }

    fn note_reply(&mut self, record: &SessionRecord) {
        let decoded = record.reply.as_deref().map(decode::<Reply>);
        let Some(Ok(reply)) = decoded else {
            return;
        };
        let usage = reply.usage;
        self.number("fuel", usage.fuel);
        self.number("memory", usage.peak_memory_bytes);
        self.number("time in the queue", usage.queue_us);
        self.number("time of execution", usage.execute_us);
        if let Some(receipt) = &reply.receipt {
            let signed = encode(receipt);
            let signature = signed.len().saturating_sub(64);
            self.random("receipt's signature", &signed[signature..]);
            if let Some(Ok(receipt)) = advert(record).map(|advert| receipt.verify(&advert)) {
                self.random("receipt's request", &receipt.request.0);
                self.random("receipt's output", &encode(&receipt.output)[2..]);
            }
        }
        match reply.completion {
            Completion::Exited { stdout, stderr, .. } => {
                self.number("output size", stdout.len() as u64);
                self.text("output", stdout);
                self.text("error output", stderr);
            }
            other => self.fact("completion", encode(&other)),
        }
    }

    fn number(&mut self, name: &'static str, number: u64) {
        self.numbers.push((name, number));
    }

    fn fact(&mut self, name: &'static str, fact: Vec<u8>) {
        self.facts.push((name, fact));
    }

    fn random(&mut self, name: &'static str, bytes: &[u8]) {
        if let Some(first) = windows(bytes).next() {
            self.number(name, u64::from_be_bytes(first));
        }
        self.values.push((name, bytes.to_vec()));
    }

    /// A value that may be text; hexadecimal counts as what it stands for,
    /// since eight digits of it would look alike by chance.
    fn text(&mut self, name: &'static str, bytes: Vec<u8>) {
        let digits = bytes.trim_ascii_end();
        let decoded = HEXLOWER_PERMISSIVE.decode(digits);
        self.values.push((name, decoded.unwrap_or(bytes)));
    }
}

/// Every blinded element that the tokens of a contract were made from.
fn blinded(proposal: &Proposal) -> Vec<Vec<u8>> {
    let elements = usize::from(proposal.contract.calls.calls()) * 32;
    let request = &proposal.call_request;
    let elements = &request[request.len().saturating_sub(elements)..];
    elements.chunks(32).map(<[u8]>::to_vec).collect()
}

fn advert(record: &SessionRecord) -> Option<Authentic<Advert>> {
    let body = greeting(&record.sent).get(FRAME_HEADER_LEN..)?;
    let greeting: Greeting = decode(body).ok()?;
    greeting.advert.authenticate().ok()
}

/// The first frame that a provider sends.
fn greeting(sent: &[u8]) -> &[u8] {
    &sent[..sent.len() - after_greeting(sent).len()]
}

fn after_greeting(sent: &[u8]) -> &[u8] {
    next_frame(sent).map_or(&[], |(_, _, rest)| rest)
}

/// All frames; what is none comes last, as it is.
fn frames(bytes: &[u8]) -> Vec<(Option<FrameKind>, &[u8])> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some((kind, body, after)) = next_frame(rest) {
        found.push((Some(kind), body));
        rest = after;
    }
    if !rest.is_empty() {
        found.push((None, rest));
    }
    found
}

fn next_frame(bytes: &[u8]) -> Option<(FrameKind, &[u8], &[u8])> {
    let all = [
        FrameKind::Ack,
        FrameKind::Advert,
        FrameKind::Call,
        FrameKind::Contract,
        FrameKind::ContractAnswer,
        FrameKind::Refusal,
        FrameKind::Reply,
    ];
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_LEN>()?;
    let header = FrameHeader::parse(*header, &all).ok()?;
    let (body, after) = rest.split_at_checked(header.body_len() as usize)?;
    Some((header.kind(), body, after))
}

fn windows(bytes: &[u8]) -> impl Iterator<Item = Window> {
    bytes.windows(WINDOW).filter_map(|w| w.try_into().ok())
}
