use super::*;
use crate::UnixSeconds;

fn contract(provider: &IdentityKey, client: &ContractKey) -> Contract {
    Contract {
        provider: provider.id(),
        client: client.id(),
        epoch: Epoch(3),
        plan: Plan::standard_menu().remove(0),
        calls: BatchSize::Calls32,
        payment: Payment {
            total: 0,
            method: PaymentMethod::Gratis,
        },
        service: ServiceTerms {
            start_within_ms: 120_000,
        },
        technology: Technology {
            deterministic: true,
            tee: None,
        },
        validity: Validity {
            from: UnixSeconds(1),
            until: UnixSeconds(2),
        },
        call_key: TokenKeyId([1; 32]),
        rating_key: TokenKeyId([2; 32]),
    }
}

#[test]
fn both_signatures_are_needed_and_cover_everything() {
    let provider = IdentityKey::from_seed(&[1; 32]);
    let client = ContractKey::from_seed(&[2; 32]);
    let contract = contract(&provider, &client);
    let provider_signature = contract.sign(&provider);
    let client_signature = contract.countersign(&provider_signature, &client);
    let signed = SignedContract {
        contract,
        provider_signature,
        client_signature,
    };
    assert!(signed.verify());
    let bytes = encode(&signed);
    assert_eq!(read_signed_contract(&bytes), Some(signed));
    for i in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[i / 8] ^= 1 << (i % 8);
        assert!(read_signed_contract(&bad).is_none(), "bit {i}");
    }
}

#[test]
fn sizes_are_the_standard_ones() {
    assert_eq!(BatchSize::of_calls(32), Some(BatchSize::Calls32));
    assert_eq!(BatchSize::of_calls(33), None);
    let ratings = BatchSize::ALL.map(BatchSize::ratings);
    assert_eq!(ratings, [1, 4, 16]);
}
