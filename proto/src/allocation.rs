//! No stranger's message makes its reader allocate much more than the message is long.

use allocation_counter::measure;
use minicbor::{CborLen, Decode, Encode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::*;

/// Beside four times the input: short lists and texts, of which the number is bounded.
const ALLOWANCE: u64 = 32 << 10;

/// Messages that are made to be expensive: one byte again and again, after a head that promises
/// items.
fn bombs() -> impl Strategy<Value = Vec<u8>> {
    let heads = prop_oneof![
        Just(Vec::new()),
        (0x80_u8..0x98).prop_map(|head| vec![head]),
        any::<u16>().prop_map(|count| [&[0x99][..], &count.to_be_bytes()].concat()),
        any::<u64>().prop_map(|count| [&[0x9b][..], &count.to_be_bytes()].concat()),
    ];
    let cheap = prop_oneof![
        Just(0x9f_u8),
        Just(0x80),
        Just(0x81),
        Just(0x40),
        Just(0x60),
        Just(0xa0),
        Just(0xf6),
        any::<u8>(),
    ];
    let fill = (cheap, 0_usize..20_000).prop_map(|(byte, len)| vec![byte; len]);
    let noise = proptest::collection::vec(any::<u8>(), 0..64);
    (proptest::collection::vec(heads, 0..4), noise, fill)
        .prop_map(|(heads, noise, fill)| [heads.concat(), noise, fill].concat())
}

/// A message with one element more than it has, in which a decoder has to find the end.
fn with_more(message: &[u8], more: &[u8]) -> Vec<u8> {
    assert!((0x80..0x97).contains(&message[0]), "a short array");
    [&[message[0] + 1], &message[1..], more].concat()
}

/// The messages that a stranger sends before anything else.
fn first_messages() -> [Vec<u8>; 2] {
    let header = CallHeader {
        epoch: Epoch(1),
        plan: "small".parse().unwrap(),
    };
    let call = CallEnvelope {
        header,
        encapsulated_key: [1; 32],
        ciphertext: vec![2; 100],
    };
    let contract = ContractEnvelope {
        epoch: Epoch(1),
        encapsulated_key: [1; 32],
        ciphertext: vec![2; 100],
        work: Some(ProofOfWork {
            solution: 1,
            hash: [2; 32],
            stamp: 3,
        }),
    };
    [encode(&call), encode(&contract)]
}

fn is_frugal<T>(name: &str)
where
    T: for<'b> Decode<'b, ()> + Encode<()> + CborLen<()>,
{
    let mut runner = TestRunner::new(Config::with_cases(10_000));
    let longer = (proptest::sample::select(first_messages().to_vec()), bombs())
        .prop_map(|(message, bomb)| with_more(&message, &bomb));
    let tested = runner.run(&prop_oneof![bombs(), longer], |bytes| {
        let taken = measure(|| drop(decode::<T>(&bytes)));
        let most = 4 * bytes.len() as u64 + ALLOWANCE;
        prop_assert!(
            taken.bytes_max <= most,
            "{name}: {} bytes for {}",
            taken.bytes_max,
            bytes.len()
        );
        Ok(())
    });
    if let Err(fault) = tested {
        panic!("{fault}");
    }
}

macro_rules! frugal {
    ($($test:ident: $type:ty;)*) => {$(
        #[test]
        fn $test() {
            is_frugal::<$type>(stringify!($type));
        }
    )*};
}

frugal! {
    adverts: Advert;
    call_envelopes: CallEnvelope;
    contract_answers: ContractAnswer;
    contract_envelopes: ContractEnvelope;
    contract_requests: ContractRequest;
    evidence: Evidence;
    greetings: Greeting;
    receipts: Receipt;
    replies: Reply;
    requests: Request;
    signed_adverts: SignedAdvert;
    signed_contracts: SignedContract;
    signed_verdicts: SignedVerdict;
}

/// 2 GB for two such calls, before shapes were looked at.
#[test]
fn a_frame_of_open_arrays_takes_no_memory() {
    let bomb = [vec![0x82], vec![0x9f; 8 << 20]].concat();
    let [call, contract] = first_messages().map(|message| with_more(&message, &bomb));
    let taken = measure(|| {
        assert!(decode::<CallEnvelope>(&call).is_err());
        assert!(decode::<ContractEnvelope>(&contract).is_err());
    });
    assert!(taken.bytes_max < 1 << 10, "{}", taken.bytes_max);
}
