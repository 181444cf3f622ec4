//! The one-way doors between the rooms, and which room may use which library.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Which crates of the workspace each may depend on. A crate that is not
/// listed does not exist.
const ARROWS: &[(&str, &[&str])] = &[
    ("dlambda-proto", &[]),
    // The words of a call: whoever runs it again says the same of it.
    ("dlambda-executor", &["dlambda-proto"]),
    // What the Nym helper, a program with a lockfile of its own, is told.
    ("dlambda-nym-link", &[]),
    ("dlambda-crypto", &["dlambda-proto"]),
    (
        "dlambda-privacy",
        &["dlambda-crypto", "dlambda-nym-link", "dlambda-proto"],
    ),
    // What a caller links of the broker: no libp2p.
    (
        "dlambda-broker",
        &["dlambda-crypto", "dlambda-privacy", "dlambda-proto"],
    ),
    (
        "dlambda-node",
        &[
            "dlambda-broker",
            "dlambda-crypto",
            "dlambda-privacy",
            "dlambda-proto",
        ],
    ),
    // Judges evidence, wherever it came from: no network, no keys.
    (
        "dlambda-reputation",
        &["dlambda-crypto", "dlambda-executor", "dlambda-proto"],
    ),
    (
        "dlambda-client",
        &[
            "dlambda-broker",
            "dlambda-crypto",
            "dlambda-executor",
            "dlambda-privacy",
            "dlambda-proto",
            "dlambda-reputation",
        ],
    ),
    (
        "dlambda-provider",
        &[
            "dlambda-broker",
            "dlambda-crypto",
            "dlambda-executor",
            "dlambda-node",
            "dlambda-privacy",
            "dlambda-proto",
        ],
    ),
    (NO_ROOM, &[]),
    (
        "dlambda-tests",
        &[
            "dlambda-broker",
            "dlambda-client",
            "dlambda-crypto",
            "dlambda-executor",
            "dlambda-node",
            "dlambda-privacy",
            "dlambda-proto",
            "dlambda-provider",
            "dlambda-reputation",
        ],
    ),
];

/// Has no code: it chooses features of dependencies, for every crate.
const NO_ROOM: &str = "workspace-hack";

/// Libraries that only these crates may use directly.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("arti-client", &["dlambda-privacy"]),
    ("argon2", &["dlambda-crypto"]),
    ("blind-rsa-signatures", &["dlambda-crypto"]),
    ("equihash", &["dlambda-crypto"]),
    ("hpke", &["dlambda-crypto"]),
    ("libp2p-core", &["dlambda-node"]),
    ("libp2p-gossipsub", &["dlambda-node"]),
    ("libp2p-identity", &["dlambda-node"]),
    ("libp2p-kad", &["dlambda-node"]),
    ("libp2p-swarm", &["dlambda-node"]),
    ("negentropy", &["dlambda-node"]),
    ("privacypass", &["dlambda-crypto"]),
    ("redb", &["dlambda-provider"]),
    ("tor-hsservice", &["dlambda-privacy"]),
    ("voprf", &["dlambda-crypto"]),
    ("wasmtime", &["dlambda-executor"]),
    ("wasmtime-wasi", &["dlambda-executor"]),
    // Crates with binaries.
    (
        "clap",
        &["dlambda-client", "dlambda-provider", "dlambda-tests"],
    ),
    ("anyhow", &["dlambda-tests"]),
];

/// Libraries that have no place in crates without I/O, clock and randomness of their own.
const SANS_IO: &[(&str, &[&str])] = &[
    ("dlambda-crypto", &["getrandom", "rand", "tokio"]),
    ("dlambda-proto", &["futures", "getrandom", "rand", "tokio"]),
    ("dlambda-reputation", &["getrandom", "rand", "tokio"]),
];

/// Parts of libp2p that would tell others addresses, ask for them, or dial anything but the
/// transport that the node is given.
const NOT_IN_THE_OVERLAY: &[&str] = &[
    "libp2p-autonat",
    "libp2p-dcutr",
    "libp2p-dns",
    "libp2p-identify",
    "libp2p-mdns",
    "libp2p-quic",
    "libp2p-relay",
    "libp2p-rendezvous",
    "libp2p-tcp",
    "libp2p-upnp",
    "libp2p-webrtc",
    "libp2p-websocket",
];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let normal = |d: &&cargo_metadata::Dependency| d.kind == DependencyKind::Normal;
    metadata
        .packages
        .iter()
        .map(|package| {
            let names = package.dependencies.iter().filter(normal);
            (
                package.name.to_string(),
                names.map(|d| d.name.clone()).collect(),
            )
        })
        .collect()
}

#[test]
fn rooms_depend_one_way() {
    let dependencies = dependencies();
    let known: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for (package, used) in &dependencies {
        let allowed = known
            .get(package.as_str())
            .unwrap_or_else(|| panic!("{package} has no place in the layout"));
        let rooms = used.iter().filter(|name| known.contains_key(name.as_str()));
        for name in rooms.filter(|name| *name != NO_ROOM) {
            assert!(allowed.contains(&name.as_str()), "{package} -> {name}");
        }
    }
    assert_eq!(dependencies.len(), ARROWS.len());
}

#[test]
fn libraries_stay_in_their_rooms() {
    let rooms = dependencies().into_iter();
    for (package, used) in rooms.filter(|(package, _)| package != NO_ROOM) {
        for (library, rooms) in ONLY_IN {
            assert!(
                !used.contains(*library) || rooms.contains(&package.as_str()),
                "{package} uses {library}"
            );
        }
        for library in SANS_IO
            .iter()
            .filter(|(room, _)| *room == package)
            .flat_map(|(_, not)| *not)
        {
            assert!(!used.contains(*library), "{package} uses {library}");
        }
    }
}

/// Not even through another library: what is not in the lockfile is not built.
#[test]
fn no_part_of_libp2p_shows_addresses() {
    let lockfile = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lockfile = std::fs::read_to_string(lockfile).expect("a lockfile");
    let is_locked = |name: &&str| lockfile.contains(&format!("\nname = \"{name}\"\n"));
    assert!(is_locked(&"libp2p-kad"), "the lockfile is read");
    let found: Vec<_> = NOT_IN_THE_OVERLAY
        .iter()
        .filter(|it| is_locked(it))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}
