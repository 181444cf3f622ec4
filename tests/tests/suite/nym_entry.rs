//! All clients of one caller enter the mixnet by one gateway.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use dlambda_privacy::transport::{NymRole, NymTransport};
use dlambda_tests::mixnet::{Mixnet, MixnetOptions, Traffic, helpers};
use dlambda_tests::program::binary;

use crate::support::LONG;
use crate::tor::connections;

/// Of each caller.
const STARTS: usize = 6;

/// The ports of the gateways by which helpers have entered, of which each is killed as soon as it
/// is connected.
async fn entered(mixnet: &Mixnet, entry: Option<PathBuf>) -> HashSet<u16> {
    let gateways = mixnet.ready["gateways"]
        .as_array()
        .expect("gateways")
        .iter();
    let gateways: HashSet<u16> = gateways
        .map(|it| u16::try_from(it["ws_port"].as_u64().expect("a port")).expect("a port"))
        .collect();
    let network = mixnet.network(Traffic::FAST).expect("a network");
    let mut seen = HashSet::new();
    for _ in 0..STARTS {
        let role = NymRole::Caller {
            pool: 2,
            entry: entry.clone(),
        };
        let program = binary("dlambda-nym").expect("built");
        let transport = NymTransport::start_helper(program, &network, role, LONG).await;
        let transport = transport.expect("a transport");
        // The first client is there; others come.
        tokio::time::sleep(Duration::from_millis(200)).await;
        for helper in helpers() {
            let theirs = connections(&helper.to_string());
            seen.extend(theirs.intersection(&gateways));
            let helper = rustix::process::Pid::from_raw(helper.cast_signed());
            let kill = rustix::process::Signal::KILL;
            rustix::process::kill_process(helper.expect("a number"), kill).expect("it runs");
        }
        drop(transport);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn helpers_of_one_home_enter_by_one_gateway_also_when_they_are_killed() {
    let options = MixnetOptions {
        gateways: 6,
        ..MixnetOptions::default()
    };
    let mixnet = Mixnet::up(&options).await.expect("a mixnet");
    let home = tempfile::tempdir().expect("a directory");
    let kept = entered(&mixnet, Some(home.path().to_owned())).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    // What is looked for is there to be found where nothing is kept: one gateway six times is one
    // chance in 7,776.
    let drawn = entered(&mixnet, None).await;
    println!("kept {kept:?}, drawn {drawn:?}");
    assert!(drawn.len() > 1, "{drawn:?}");
}
