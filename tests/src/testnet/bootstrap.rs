//! From nothing to a network that clients can use.
//!
//! 1. Keys of the authorities, in parallel.
//! 2. All nodes start; the first vote is parked far ahead.
//! 3. Once every authority knows every node, the vote is set to a few seconds
//!    from now: tor re-reads the schedule on SIGHUP.
//! 4. Once there is a consensus, SIGHUP makes the relays fetch it at once
//!    instead of after their back-off.
//! 5. Every relay must build a circuit, and a client with nothing but the authorities' addresses
//!    must bootstrap.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Node, Role, TestnetConfig, TestnetError,
    dir::NetworkDir,
    documents, keys, network_toml,
    ports::PortLease,
    process::Process,
    seed,
    torrc::{self, Authority, VoteAt},
    wait::{self, Deadline},
};

/// How long nodes get to fetch the consensus before they are reminded.
const REMIND_AFTER: Duration = Duration::from_secs(3);
/// How long one client gets to bootstrap; 2 s is usual.
const CLIENT_PATIENCE: Duration = Duration::from_secs(8);

/// A network that is ready.
pub(super) struct Started {
    pub(super) nodes: Vec<Node>,
    pub(super) authorities: Vec<Authority>,
    pub(super) network_toml: PathBuf,
}

/// Starts everything; whatever was started ends when this fails.
pub(super) async fn start(
    config: &TestnetConfig,
    dir: &NetworkDir,
    deadline: Deadline,
    progress: &mut impl FnMut(&str),
) -> Result<Started, TestnetError> {
    progress(&format!(
        "making the keys of {} authorities",
        config.authorities
    ));
    let new = keys::make_authorities(config.authorities, dir, deadline).await?;
    progress(&format!(
        "starting {} tor processes",
        config.authorities + config.relays
    ));
    let (authorities, mut nodes) = start_nodes(new, config.relays, dir)?;
    progress("waiting for the authorities to know every relay");
    wait_for_descriptors(&mut nodes, deadline).await?;
    progress("voting on the first consensus");
    vote(&mut nodes, &authorities, deadline).await?;
    progress("handing the consensus to every node");
    spread_consensus(&mut nodes, deadline).await?;
    progress("building circuits");
    let all_relays = wait_for_circuits(&mut nodes, deadline);
    let client = check_with_client(&authorities, dir, deadline);
    let ((), client_dir) = futures::future::try_join(all_relays, client).await?;
    documents::check_consensus(&client_dir, nodes.iter().map(|node| &*node.name))?;
    remove(&client_dir)?;
    let network_toml = dir.network_toml();
    network_toml::save(&network_toml, &authorities)?;
    Ok(Started {
        nodes,
        authorities,
        network_toml,
    })
}

fn start_nodes(
    new: Vec<keys::NewAuthority>,
    relays: usize,
    dir: &NetworkDir,
) -> Result<(Vec<Authority>, Vec<Node>), TestnetError> {
    let all: Vec<_> = new.iter().map(|new| new.authority.clone()).collect();
    let parked = VoteAt::parked();
    let mut nodes = Vec::new();
    for new in new {
        let name = &new.authority.nickname;
        let node_dir = dir.make_node_dir(name)?;
        torrc::save(
            &node_dir,
            &torrc::authority(&new.authority, &all, &node_dir, parked),
        )?;
        let (or_port, dir_port) = (new.or_port.release(), new.dir_port.release());
        nodes.push(start_node(
            name,
            Role::Authority,
            or_port,
            Some(dir_port),
            node_dir,
        )?);
    }
    for index in 0..relays {
        let name = format!("relay{index}");
        let node_dir = dir.make_node_dir(&name)?;
        let or_port = PortLease::new()?;
        torrc::save(
            &node_dir,
            &torrc::relay(&name, or_port.port(), &all, &node_dir),
        )?;
        let or_port = or_port.release();
        nodes.push(start_node(&name, Role::Relay, or_port, None, node_dir)?);
    }
    Ok((all, nodes))
}

fn start_node(
    name: &str,
    role: Role,
    or_port: u16,
    dir_port: Option<u16>,
    dir: PathBuf,
) -> Result<Node, TestnetError> {
    seed::bandwidth(&dir)?;
    let resolv = dir.join("resolv.conf");
    fs::write(&resolv, "nameserver 127.0.0.1\n").map_err(TestnetError::io("write", &resolv))?;
    let mut node = Node::new(name.to_owned(), role, or_port, dir_port, dir);
    node.start()?;
    Ok(node)
}

async fn wait_for_descriptors(nodes: &mut [Node], deadline: Deadline) -> Result<(), TestnetError> {
    wait::until(
        deadline,
        "waiting for the authorities to know every relay",
        || {
            check_alive(nodes)?;
            Ok(authorities(nodes).all(|authority| {
                let described = documents::read_described(&authority.dir);
                nodes.iter().all(|node| described.contains(&node.name))
            }))
        },
    )
    .await
}

/// Holds votes until one of them gives a consensus.
async fn vote(
    nodes: &mut [Node],
    all: &[Authority],
    deadline: Deadline,
) -> Result<(), TestnetError> {
    const VOTING: &str = "voting on the first consensus";
    loop {
        let vote = VoteAt::soon();
        for (authority, node) in all.iter().zip(authorities(nodes)) {
            torrc::save(
                &node.dir,
                &torrc::authority(authority, all, &node.dir, vote),
            )?;
            node.reload();
        }
        let this_vote = deadline.at_most(vote.grace());
        let voted = wait::until(this_vote, VOTING, || {
            check_alive(nodes)?;
            Ok(authorities(nodes).all(|node| documents::has_consensus(&node.dir)))
        });
        match voted.await {
            // The others fetch it from whoever has it.
            Err(TestnetError::Timeout(_))
                if authorities(nodes).any(|node| documents::has_consensus(&node.dir)) =>
            {
                return Ok(());
            }
            Err(TestnetError::Timeout(_)) if !deadline.has_passed() => {}
            voted => return voted,
        }
    }
}

/// Waits until every node has the consensus.
async fn spread_consensus(nodes: &mut [Node], deadline: Deadline) -> Result<(), TestnetError> {
    const SPREADING: &str = "handing the consensus to every node";
    loop {
        for node in nodes
            .iter()
            .filter(|node| !documents::has_consensus(&node.dir))
        {
            node.reload();
        }
        let spread = wait::until(deadline.at_most(REMIND_AFTER), SPREADING, || {
            check_alive(nodes)?;
            Ok(nodes.iter().all(|node| documents::has_consensus(&node.dir)))
        });
        match spread.await {
            Err(TestnetError::Timeout(_)) if !deadline.has_passed() => {}
            spread => return spread,
        }
    }
}

/// Waits until every node has built a circuit.
async fn wait_for_circuits(nodes: &mut [Node], deadline: Deadline) -> Result<(), TestnetError> {
    wait::until(
        deadline,
        "waiting for every relay to build a circuit",
        || {
            check_alive(nodes)?;
            Ok(nodes.iter().all(Node::is_bootstrapped))
        },
    )
    .await
}

/// Bootstraps a client from nothing, ends it, and returns its directory.
///
/// A client whose first circuits hang waits long before it tries others; a
/// fresh one is faster.
async fn check_with_client(
    all: &[Authority],
    dir: &NetworkDir,
    deadline: Deadline,
) -> Result<PathBuf, TestnetError> {
    loop {
        let client_dir = dir.make_client_dir("probe")?;
        torrc::save(&client_dir, &torrc::client(None, all, &client_dir))?;
        let mut client = Process::start("probe", &client_dir)?;
        let bootstrapped = wait::until(
            deadline.at_most(CLIENT_PATIENCE),
            "waiting for a client to build a circuit",
            || {
                client.check_alive()?;
                Ok(client.is_bootstrapped())
            },
        );
        match bootstrapped.await {
            Ok(()) => return Ok(client_dir),
            Err(TestnetError::Timeout(_)) if !deadline.has_passed() => {
                drop(client);
                remove(&client_dir)?;
            }
            Err(err) => return Err(err),
        }
    }
}

fn remove(dir: &Path) -> Result<(), TestnetError> {
    fs::remove_dir_all(dir).map_err(TestnetError::io("remove", dir))
}

fn check_alive(nodes: &mut [Node]) -> Result<(), TestnetError> {
    nodes.iter_mut().try_for_each(Node::check_alive)
}

fn authorities(nodes: &[Node]) -> impl Iterator<Item = &Node> {
    nodes.iter().filter(|node| node.role == Role::Authority)
}
