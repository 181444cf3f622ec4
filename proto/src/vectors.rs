//! The bytes that receipts commit to, as `tests/vectors/receipts.json` states them for every
//! implementation.
//!
//! The file was made by another implementation than this one. If a test here fails, receipts of
//! this version and of the one before no longer agree.

use data_encoding::HEXLOWER;
use minicbor::data::Type;
use minicbor::{Decoder, decode};
use serde_json::Value;

use crate::{
    Completion, Cost, EngineProfile, Epoch, FunctionId, FunctionProblem, FunctionSource, HttpField,
    HttpResponse, IdentityKey, Measure, OutputCommitment, Receipt, ReceiptKey, Reply, Request,
    SignedReceipt, StopKind, TokenProblem, Usage, encode,
};

fn file() -> Value {
    let text = include_str!("../tests/vectors/receipts.json");
    serde_json::from_str(text).expect("good JSON")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().expect(field)
}

fn bytes(value: &Value, field: &str) -> Vec<u8> {
    let text = text(value, field);
    HEXLOWER.decode(text.as_bytes()).expect("good hex")
}

fn array(value: &Value, field: &str) -> [u8; 32] {
    bytes(value, field).try_into().expect("32 bytes")
}

/// Diagnostic notation (RFC 8949 section 8) of an item, and every text string in it.
fn read(cbor: &[u8]) -> (String, Vec<String>) {
    let mut strings = Vec::new();
    let shown = item(&mut Decoder::new(cbor), &mut strings);
    (shown.expect("good CBOR"), strings)
}

fn item(d: &mut Decoder<'_>, strings: &mut Vec<String>) -> Result<String, decode::Error> {
    Ok(match d.datatype()? {
        Type::Null => d.null().map(|()| "null".to_owned())?,
        Type::Bool => d.bool()?.to_string(),
        Type::Bytes => format!("h'{}'", HEXLOWER.encode(d.bytes()?)),
        Type::String => {
            let text = d.str()?.to_owned();
            let shown = format!("{text:?}");
            strings.push(text);
            shown
        }
        Type::Array => {
            let len = d.array()?.expect("a definite length");
            let items: Result<Vec<_>, _> = (0..len).map(|_| item(d, strings)).collect();
            format!("[{}]", items?.join(", "))
        }
        _ => d.u64()?.to_string(),
    })
}

fn exited(status: u8, stdout: &[u8], stderr: &[u8], http: Option<HttpResponse>) -> Completion {
    Completion::Exited {
        status,
        stdout: stdout.to_vec(),
        stderr: stderr.to_vec(),
        http,
    }
}

fn stopped(kind: StopKind) -> Completion {
    let limit = match kind {
        StopKind::Fuel => Some(5_000_000_000),
        StopKind::Deadline => Some(10_000),
        StopKind::Memory => Some(64 << 20),
        StopKind::Output => Some(1 << 20),
        _ => None,
    };
    let stderr = match kind {
        StopKind::Other(_) => vec![],
        _ => b"err".to_vec(),
    };
    Completion::Stopped {
        kind,
        limit,
        stderr,
    }
}

/// One of every kind of completion, by the name that the file has for it. The matches are total,
/// so that no kind is added without a vector.
fn completions() -> Vec<(String, Completion)> {
    let fields = [("content-type", &b"text/plain"[..]), ("x", &[255])];
    let fields = fields.map(|(name, value)| HttpField::new(name, value).expect("a field"));
    let http = HttpResponse::new(404, fields.to_vec()).expect("a response");
    let stops = StopKind::ALL.iter().copied().map(stopped);
    let problems = [
        FunctionProblem::Malformed { offset: 12 },
        FunctionProblem::NoEntryPoint,
        FunctionProblem::TooLarge {
            measure: Measure::ModuleBytes,
            found: 70_000,
            limit: 65_536,
        },
        FunctionProblem::TooCostly(Cost::Time),
        FunctionProblem::Unsupported,
        FunctionProblem::UnsupportedImport {
            import: "env::steal".to_owned(),
        },
        FunctionProblem::BadInvocation,
    ];
    let all = [
        exited(0, b"out", b"err", None),
        exited(255, b"", b"", None),
        exited(0, b"body", b"", Some(http)),
        stopped(StopKind::Other(999)),
        Completion::FunctionMissing,
        Completion::TooLarge,
        Completion::ProviderFault,
        Completion::Busy { retry_seconds: 5 },
        Completion::Unpaid(TokenProblem::Spent),
    ];
    let all = all.into_iter().chain(stops);
    let all = all.chain(problems.map(Completion::FunctionUnusable));
    all.map(|completion| (name(&completion), completion))
        .collect()
}

fn name(completion: &Completion) -> String {
    match completion {
        Completion::Exited { http: Some(_), .. } => "exited-http".to_owned(),
        Completion::Exited { status: 0, .. } => "exited".to_owned(),
        Completion::Exited { status, .. } => format!("exited-{status}"),
        Completion::Stopped {
            kind: StopKind::Other(_),
            ..
        } => "stopped-unknown".to_owned(),
        Completion::Stopped { kind, .. } => format!("stopped-{}", kind.name()),
        Completion::FunctionMissing => "function-missing".to_owned(),
        Completion::FunctionUnusable(problem) => {
            let problem = match problem {
                FunctionProblem::Malformed { .. } => "malformed",
                FunctionProblem::NoEntryPoint => "no-entry-point",
                FunctionProblem::TooLarge { .. } => "too-large",
                FunctionProblem::TooCostly(_) => "too-costly",
                FunctionProblem::Unsupported => "unsupported",
                FunctionProblem::UnsupportedImport { .. } => "unsupported-import",
                FunctionProblem::BadInvocation => "bad-invocation",
            };
            format!("function-{problem}")
        }
        Completion::TooLarge => "too-large".to_owned(),
        Completion::ProviderFault => "provider-fault".to_owned(),
        Completion::Busy { .. } => "busy".to_owned(),
        Completion::Unpaid(_) => "unpaid".to_owned(),
    }
}

#[test]
fn completions_have_the_bytes_and_commitments_of_the_file() {
    let file = file();
    let seed = array(&file, "seed");
    let vectors = file["completions"].as_array().expect("a list");
    let completions = completions();
    assert_eq!(completions.len(), vectors.len());
    for (name, completion) in completions {
        let vector = vectors.iter().find(|vector| vector["name"] == *name);
        let vector = vector.unwrap_or_else(|| panic!("no vector for {name}"));
        let cbor = bytes(vector, "cbor");
        assert_eq!(encode(&completion), cbor, "{name}");
        let decoded = crate::decode::<Completion>(&cbor);
        assert!(decoded == Ok(completion.clone()), "{name}");
        let shown = read(&cbor).0;
        assert_eq!(shown, text(vector, "diagnostic"), "{name}");
        let commitment = OutputCommitment::to(&completion, &seed);
        let expected = array(vector, "output_commitment");
        assert_eq!(*commitment.as_bytes(), expected, "{name}");
    }
}

#[test]
fn kinds_have_the_numbers_of_the_file() {
    let file = file();
    let kinds = file["stop_kinds"].as_array().expect("a list");
    let ours = StopKind::ALL.iter();
    let ours: Vec<_> = ours.map(|kind| (kind.code(), kind.name())).collect();
    let theirs: Vec<_> = kinds
        .iter()
        .map(|kind| {
            let code = kind["code"].as_u64().expect("a number");
            (u16::try_from(code).expect("16 bits"), text(kind, "name"))
        })
        .collect();
    assert_eq!(ours, theirs);
}

/// A sentence would make honest providers of two versions contradict each other, and be consensus
/// for ever.
#[test]
fn a_completion_holds_no_text_but_the_functions_own() {
    for (name, completion) in completions() {
        let expected: &[&str] = match name.as_str() {
            "exited-http" => &["content-type", "x"],
            "function-unsupported-import" => &["env::steal"],
            _ => &[],
        };
        assert_eq!(read(&encode(&completion)).1, expected, "{name}");
    }
}

fn profile() -> EngineProfile {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let facts = |facts: &[(&str, u64)]| {
        let facts = facts.iter();
        facts
            .map(|(name, fact)| ((*name).to_owned(), *fact))
            .collect()
    };
    let libraries = [("wasmtime-wasi", "48.0.8"), ("wasmtime", "48.0.8")];
    let libraries = libraries.map(|(name, version)| (name.to_owned(), version.to_owned()));
    EngineProfile::new(
        2,
        libraries.to_vec(),
        owned(&["relaxed-simd", "bulk-memory"]),
        facts(&[
            ("per-operator", 1),
            ("memory_grow_per_page", 255),
            ("Nop", 0),
        ]),
        facts(&[("stack-bytes", 512 << 10), ("handles", 1_024)]),
    )
}

#[test]
fn an_engines_profile_has_the_bytes_and_fingerprint_of_the_file() {
    let file = file();
    let vector = &file["engine_profile"];
    let cbor = bytes(vector, "cbor");
    assert_eq!(encode(&profile()), cbor);
    assert_eq!(crate::decode(&cbor), Ok(profile()));
    let shown = read(&cbor).0;
    assert_eq!(shown, text(vector, "diagnostic"));
    assert_eq!(profile().fingerprint(), array(vector, "fingerprint"));
    let mut other = profile();
    other.bounds[0].1 += 1;
    assert_ne!(other.fingerprint(), profile().fingerprint());
}

#[test]
fn a_receipt_has_the_bytes_and_signature_of_the_file() {
    let file = file();
    let vector = &file["receipt"];
    let seed = array(&file, "seed");
    let wasm = bytes(vector, "function_wasm");
    let function = FunctionId::of(&wasm);
    let args = vector["args"].as_array().expect("a list").iter();
    let args = args.map(|arg| arg.as_str().expect("text").to_owned());
    let request = Request {
        function: FunctionSource::Attached(wasm),
        args: args.collect(),
        input: bytes(vector, "input"),
        seed,
        http: None,
        token: None,
    };
    let digest = request.digest(&function);
    assert_eq!(digest.0, array(vector, "request_digest"));
    let completion = stopped(StopKind::Fuel);
    assert_eq!(name(&completion), text(vector, "completion"));
    let reply = Reply {
        completion,
        usage: Usage {
            fuel: 5_000_000_000,
            peak_memory_bytes: 65_536,
            deterministic: true,
            ..Usage::default()
        },
        engine: profile().fingerprint(),
        receipt: None,
    };
    let identity = IdentityKey::from_seed(&array(vector, "identity_seed"));
    let plan = text(vector, "plan");
    let receipt = Receipt::of(
        &reply,
        identity.id(),
        Epoch(vector["epoch"].as_u64().expect("a number")),
        plan.parse().expect("a name"),
        function,
        digest,
        &seed,
    );
    let receipt = receipt.expect("it ran");
    let cbor = bytes(vector, "cbor");
    assert_eq!(encode(&receipt), cbor);
    let shown = read(&cbor).0;
    assert_eq!(shown, text(vector, "diagnostic"));
    assert_eq!(read(&cbor).1, [plan], "no text but the plan's name");
    let key = ReceiptKey::from_seed(&array(vector, "receipt_key_seed"));
    let signed = receipt.sign(&key);
    assert_eq!(signed.signature()[..], bytes(vector, "signature"));
    let whole = bytes(vector, "signed");
    assert_eq!(encode(&signed), whole);
    assert!(crate::decode::<SignedReceipt>(&whole) == Ok(signed));
}
