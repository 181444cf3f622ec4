//! Which network a client joins, and how it behaves there.

use std::time::Duration;

use dlambda_nym_link::{Settings, Traffic};
use nym_network_defaults::ApiUrl;
use nym_sdk::{DebugConfig, NymNetworkDetails, ValidatorDetails};
use url::Url;

use crate::error::HelperError;

/// Reply blocks that a peer may ask for at once, and that we ask for.
pub(crate) const SURBS_AT_ONCE: u32 = 100;

/// How long a gateway may take to answer one request.
const GATEWAY_DEADLINE: Duration = Duration::from_secs(15);

/// How often a provider sends to itself when it sends nothing else. A client
/// that sends nothing never notices that its gateway has hung up on it.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// After this time, a provider drops an answer for which no reply blocks come.
const DROP_ANSWER: Duration = Duration::from_secs(60);

/// What every client of this helper is built with.
#[derive(Clone)]
pub(crate) struct Network {
    /// The network.
    pub(crate) details: NymNetworkDetails,
    /// How its traffic is hidden.
    pub(crate) traffic: Traffic,
    /// How long packets wait at a mix, if not as `traffic` says.
    hop: Option<Duration>,
}

impl Network {
    /// The network that the settings name.
    pub(crate) fn new(settings: &Settings) -> Result<Self, HelperError> {
        let details = match &settings.api_url {
            None => NymNetworkDetails::default(),
            Some(url) => private(url)?,
        };
        Ok(Self {
            details,
            traffic: settings.traffic,
            hop: settings
                .mean_delay_ms
                .map(|ms| Duration::from_millis(ms.into())),
        })
    }

    /// How a caller's clients behave.
    pub(crate) fn caller(&self) -> DebugConfig {
        let mut config = common(self.traffic, self.hop);
        config.reply_surbs.maximum_allowed_reply_surb_request_size = SURBS_AT_ONCE;
        config
    }

    /// How the provider's client behaves.
    pub(crate) fn provider(&self) -> DebugConfig {
        let mut config = common(self.traffic, self.hop);
        if self.traffic != Traffic::Standard {
            config.cover_traffic.disable_loop_cover_traffic_stream = false;
            config.cover_traffic.loop_cover_traffic_average_delay = KEEP_ALIVE;
        }
        // Nobody gets reply blocks from a provider: it never sends first.
        config.reply_surbs.maximum_allowed_reply_surb_request_size = 0;
        config.reply_surbs.maximum_reply_surb_request_size = SURBS_AT_ONCE;
        config.reply_surbs.maximum_reply_surb_drop_waiting_period = DROP_ANSWER;
        config
    }
}

/// A network of its own, known by its nym-api alone.
fn private(url: &str) -> Result<NymNetworkDetails, HelperError> {
    let parsed = Url::parse(url).map_err(|_| HelperError::ApiUrl)?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host().is_none() {
        return Err(HelperError::ApiUrl);
    }
    let mut details = NymNetworkDetails::new_empty();
    // The SDK wants the URL of a chain's node too. It asks it only for
    // credentials, which are off.
    let nowhere = "http://127.0.0.1:1/";
    details.endpoints = vec![ValidatorDetails::new(nowhere, Some(url), None)];
    details.set_nym_api_urls(vec![ApiUrl {
        url: url.to_owned(),
        front_hosts: None,
    }]);
    Ok(details)
}

/// What callers and providers have in common.
fn common(traffic: Traffic, hop: Option<Duration>) -> DebugConfig {
    let mut config = DebugConfig::default();
    config.gateway_connection.gateway_response_timeout = GATEWAY_DEADLINE;
    config.stats_reporting.enabled = false;
    let own = match traffic {
        Traffic::Standard => None,
        Traffic::Fast => {
            config.traffic.disable_main_poisson_packet_distribution = true;
            config.cover_traffic.disable_loop_cover_traffic_stream = true;
            Some(Duration::from_millis(1))
        }
    };
    if let Some(hop) = hop.or(own) {
        config.traffic.average_packet_delay = hop;
        config.acknowledgements.average_ack_delay = hop;
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use dlambda_nym_link::{Role, VERSION};

    fn network(api_url: Option<&str>, traffic: Traffic) -> Result<Network, HelperError> {
        Network::new(&Settings {
            version: VERSION,
            api_url: api_url.map(str::to_owned),
            traffic,
            role: Role::Caller {
                pool: 1,
                entry: None,
            },
            mean_delay_ms: None,
        })
    }

    #[test]
    fn only_a_web_address_names_a_nym_api() {
        for wrong in [
            "",
            "127.0.0.1:9",
            "file:///etc/passwd",
            "ftp://a/",
            "http://",
        ] {
            let refused = network(Some(wrong), Traffic::Fast);
            assert!(matches!(refused, Err(HelperError::ApiUrl)), "{wrong}");
        }
        let ours = network(Some("http://127.0.0.1:9/"), Traffic::Fast).expect("a URL");
        assert_eq!(ours.details.nym_api_urls().len(), 1);
        assert_eq!(ours.details.endpoints.len(), 1);
        assert!(network(None, Traffic::Fast).is_ok());
    }

    #[test]
    fn standard_traffic_is_the_sdks_own() {
        let ours = network(None, Traffic::Standard).expect("mainnet").caller();
        let sdk = DebugConfig::default();
        assert_eq!(ours.traffic, sdk.traffic);
        assert_eq!(ours.cover_traffic, sdk.cover_traffic);
        assert_eq!(ours.acknowledgements, sdk.acknowledgements);
    }

    #[test]
    fn a_delay_of_ones_own_is_the_delay() {
        let settings = Settings {
            version: VERSION,
            api_url: None,
            traffic: Traffic::Fast,
            role: Role::Caller {
                pool: 1,
                entry: None,
            },
            mean_delay_ms: Some(50),
        };
        let caller = Network::new(&settings).expect("mainnet").caller();
        let hop = Duration::from_millis(50);
        assert_eq!(caller.traffic.average_packet_delay, hop);
        assert_eq!(caller.acknowledgements.average_ack_delay, hop);
    }

    #[test]
    fn a_provider_always_keeps_its_gateway_awake() {
        for traffic in [Traffic::Standard, Traffic::Fast] {
            let config = network(None, traffic).expect("mainnet").provider();
            assert!(!config.cover_traffic.disable_loop_cover_traffic_stream);
            assert!(config.cover_traffic.loop_cover_traffic_average_delay <= KEEP_ALIVE);
        }
    }
}
