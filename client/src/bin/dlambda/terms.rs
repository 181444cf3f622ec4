//! What commands say of a contract.

use dlambda_client::wallet::ContractStage;
use dlambda_client::{ContractError, ListingMismatch, Wallet};
use dlambda_privacy::clock::{Clock as _, SystemClock};
use dlambda_proto::{Contract, Report, Validity};

/// How long something is still good, in words.
pub(crate) fn good_for(validity: Validity) -> String {
    let now = SystemClock::default().now();
    let seconds = validity.until.0.saturating_sub(now.0);
    match (seconds / 3600, seconds / 60) {
        (0, 0) => format!("{seconds} seconds"),
        (0, minutes) => format!("{minutes} minutes"),
        (hours, _) => format!("{hours} hours"),
    }
}

/// Whether the provider is known to have our signature, and whether its keys
/// were looked at a second time.
pub(crate) fn state(wallet: &Wallet, contract: &Contract) -> (bool, bool) {
    let Ok(listing) = wallet.contracts(SystemClock::default().now()) else {
        return (false, false);
    };
    let id = contract.id();
    let found = listing.contracts.iter().find(|it| it.id == id);
    found.map_or((false, false), |it| {
        (it.stage == ContractStage::Confirmed, it.checked)
    })
}

/// An error, with what to do about it.
pub(crate) fn report(error: ContractError) -> Report {
    let hint = match &error {
        ContractError::Deadline(_) => {
            Some("finish it with `dlambda wallet settle`, or allow more with --max-time")
        }
        ContractError::Listing(ListingMismatch::Newer) => Some(
            "wait for the next sync that comes at a random time (`dlambda sync --stay`): one right \
             before a contract ties the two together",
        ),
        ContractError::Equivocation(_)
        | ContractError::EarlyEnds(_)
        | ContractError::Listing(_) => Some("do not use this provider"),
        _ => None,
    };
    let report = Report::from(error);
    match hint {
        Some(hint) => report.with_hint(hint),
        None => report,
    }
}
