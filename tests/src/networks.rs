//! A private Tor network, a private mixnet, or both, with one network file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::mixnet::{Mixnet, MixnetOptions, Traffic};
use crate::testnet::{NetworkDir, Testnet, TestnetConfig, TestnetError, network_toml};

/// What to start.
#[derive(Clone, Debug)]
pub struct NetworksConfig {
    /// The Tor network; where files are kept, and how long the start may take,
    /// of both.
    pub tor: TestnetConfig,
    /// Start no Tor network after all.
    pub without_tor: bool,
    /// The mixnet, if there is to be one, and how its clients behave.
    pub nym: Option<(MixnetOptions, Traffic)>,
}

impl NetworksConfig {
    /// A Tor network.
    #[must_use]
    pub fn tor(tor: TestnetConfig) -> Self {
        Self {
            tor,
            without_tor: false,
            nym: None,
        }
    }

    /// A mixnet.
    #[must_use]
    pub fn nym(options: MixnetOptions, traffic: Traffic) -> Self {
        Self {
            tor: TestnetConfig::default(),
            without_tor: true,
            nym: Some((options, traffic)),
        }
    }
}

/// Running networks; they end when dropped.
#[derive(Debug)]
pub struct Networks {
    /// The Tor network.
    pub tor: Option<Testnet>,
    /// The mixnet.
    pub mixnet: Option<Mixnet>,
    network_toml: PathBuf,
    dir: PathBuf,
    // After the mixnet: a temporary directory goes last.
    _own_dir: Option<NetworkDir>,
}

impl Networks {
    /// Starts what is asked for, and returns when clients can use it.
    ///
    /// # Errors
    ///
    /// [`TestnetError`] of whichever part fails.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends every process started so far.
    pub async fn up(
        config: NetworksConfig,
        mut progress: impl FnMut(&str),
    ) -> Result<Self, TestnetError> {
        let NetworksConfig {
            tor,
            without_tor,
            nym,
        } = config;
        let limit = tor.ready_timeout;
        // First what is ready at once, or missing.
        let mixnet = match nym {
            None => None,
            Some((options, traffic)) => {
                progress("starting a mixnet: three layers of mixes, and gateways");
                Some((start_mixnet(&options, limit).await?, traffic))
            }
        };
        let mut networks = if without_tor {
            let own = NetworkDir::claim_within(tor.dir.as_deref(), limit).await?;
            Self {
                tor: None,
                mixnet: None,
                network_toml: own.network_toml(),
                dir: own.path().to_owned(),
                _own_dir: Some(own),
            }
        } else {
            let tor = Box::pin(Testnet::up(tor, progress)).await?;
            Self {
                network_toml: tor.network_toml().to_owned(),
                dir: tor.dir().to_owned(),
                tor: Some(tor),
                mixnet: None,
                _own_dir: None,
            }
        };
        if let Some((mixnet, traffic)) = mixnet {
            describe(&mixnet, traffic, &networks.network_toml, !without_tor)?;
            networks.mixnet = Some(mixnet);
        }
        Ok(networks)
    }

    /// The file that tells programs how to use these networks.
    #[must_use]
    pub fn network_toml(&self) -> &Path {
        &self.network_toml
    }

    /// The directory that holds their files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends everything.
    pub async fn down(self) {
        if let Some(mixnet) = self.mixnet {
            // What has ended already needs no ending.
            let _counters = mixnet.down().await;
        }
        if let Some(tor) = self.tor {
            tor.down().await;
        }
    }
}

async fn start_mixnet(options: &MixnetOptions, limit: Duration) -> Result<Mixnet, TestnetError> {
    if crate::program::binary("dlambda-mixnet").is_err() {
        return Err(TestnetError::MissingMixnet);
    }
    let started = tokio::time::timeout(limit, Mixnet::up(options)).await;
    let started = started.map_err(|_| TestnetError::Timeout("starting the mixnet"))?;
    started.map_err(|error| TestnetError::Command {
        program: "dlambda-mixnet",
        detail: format!("{error:#}"),
    })
}

/// Writes the mixnet into the network file.
fn describe(
    mixnet: &Mixnet,
    traffic: Traffic,
    file: &Path,
    beside_tor: bool,
) -> Result<(), TestnetError> {
    if beside_tor {
        let mut section = String::new();
        mixnet.append_to(&mut section, traffic);
        return network_toml::add_nym(file, &section);
    }
    // Fresh keys make the name unique: clients keep networks apart by it.
    let unique = hex::encode(&Sha256::digest(mixnet.ready.to_string())[..4]);
    let text = mixnet.network_toml(&format!("mixnet-{unique}"), &["nym"], traffic);
    network_toml::write(file, &text)
}
