//! Gateways that leave their clients, and come back.

use dlambda_mixnet::{Mixnet, MixnetError, Options};

use crate::support::{connect, fast, mixnet, receive, round_trip, send, until, watchful};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kicked_provider_comes_back() {
    let mixnet = mixnet().await;
    let mut provider = connect(&mixnet, 0, watchful()).await;
    let mut querier = connect(&mixnet, 1, fast()).await;
    round_trip(&mut querier, &mut provider, "before").await;

    let logins = mixnet.counters().gateways[0].logins;

    mixnet.kick(0).unwrap();
    until(&mixnet, "back", |counters| {
        counters.gateways[0].logins > logins && counters.gateways[0].sessions == 1
    })
    .await;

    round_trip(&mut querier, &mut provider, "after").await;
    assert_eq!(mixnet.counters().gateways[0].registered, 1);
    mixnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_survives_its_gateway_going_and_coming() {
    let mixnet = mixnet().await;
    let mut provider = connect(&mixnet, 0, watchful()).await;
    let mut querier = connect(&mixnet, 1, fast()).await;
    round_trip(&mut querier, &mut provider, "before").await;
    let gateways = mixnet.gateways();
    let logins = mixnet.counters().gateways[0].logins;

    mixnet.stop_gateway(0).await.unwrap();
    let counters = mixnet.counters();
    assert!(!counters.gateways[0].up);
    assert_eq!(counters.gateways[0].sessions, 0);
    assert!(matches!(mixnet.kick(0), Err(MixnetError::GatewayDown(0))));
    assert!(matches!(
        mixnet.stop_gateway(0).await,
        Err(MixnetError::GatewayDown(0))
    ));
    mixnet.restart_gateway(0).await.unwrap();
    assert!(matches!(
        mixnet.restart_gateway(0).await,
        Err(MixnetError::GatewayUp(0))
    ));
    assert_eq!(mixnet.gateways(), gateways, "the same keys and ports");
    until(&mixnet, "back", |counters| {
        counters.gateways[0].logins > logins && counters.gateways[0].sessions == 1
    })
    .await;

    round_trip(&mut querier, &mut provider, "after").await;
    assert_eq!(mixnet.counters().gateways[0].registered, 1);
    mixnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_during_an_outage_arrives_after_it() {
    let mixnet = mixnet().await;
    let mut provider = connect(&mixnet, 0, watchful()).await;
    let sender = connect(&mixnet, 1, fast()).await;

    mixnet.stop_gateway(0).await.unwrap();
    send(&sender, *provider.nym_address(), "anybody there?", 0).await;
    until(&mixnet, "undeliverable", |counters| {
        let last = counters.mixes.iter().filter(|mix| mix.layer == Some(3));
        last.map(|mix| mix.undeliverable).sum::<u64>() > 0
    })
    .await;
    mixnet.restart_gateway(0).await.unwrap();

    assert_eq!(receive(&mut provider).await.message, b"anybody there?");
    mixnet.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    for options in [
        Options {
            layer_nodes: 0,
            ..Options::default()
        },
        Options {
            gateways: 21,
            ..Options::default()
        },
    ] {
        let refusal = Mixnet::start(options).await.err();
        assert!(
            matches!(refusal, Some(MixnetError::Size { .. })),
            "{refusal:?}"
        );
    }
    for loss in [-0.1, 1.0, f64::NAN] {
        let refusal = Mixnet::start(Options {
            loss,
            ..Options::default()
        })
        .await
        .err();
        assert!(matches!(refusal, Some(MixnetError::Loss(_))), "{refusal:?}");
    }
    let mixnet = mixnet().await;
    let refusal = mixnet.kick(2);
    assert!(matches!(
        refusal,
        Err(MixnetError::NoSuchGateway {
            asked: 2,
            gateways: 2
        })
    ));
    mixnet.shutdown().await;
}

#[tokio::test]
async fn a_taken_port_is_reported() {
    let first = mixnet().await;
    let port = first.gateways()[0].port;
    let options = Options {
        api_port: port,
        ..Options::default()
    };
    let refusal = Mixnet::start(options).await.err();
    assert!(
        matches!(refusal, Some(MixnetError::Listen { .. })),
        "{refusal:?}"
    );
    first.shutdown().await;
}
