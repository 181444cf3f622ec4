//! An observer of every packet and socket of a network namespace.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, eth, socket_with};

/// How often sockets are looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long a packet is waited for.
const WAIT: Duration = Duration::from_millis(50);

/// Who sends what to whom, whatever it says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Flow {
    /// TCP segments between two places.
    Tcp(SocketAddr, SocketAddr),
    /// Datagrams from one place to another: a query for a name is one.
    Udp(SocketAddr, SocketAddr),
    /// Some other protocol.
    Other(u8),
}

/// A socket that a program has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// The program.
    pub program: String,
    /// The table of the kernel that it is in: `tcp`, `udp6`, `raw`, ...
    pub table: &'static str,
    /// The port at this end.
    pub local_port: u16,
    /// The port at the other end; 0 if there is none.
    pub remote_port: u16,
}

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Of packets.
    pub flows: BTreeSet<Flow>,
    /// Of the programs that were looked at.
    pub sockets: BTreeSet<Socket>,
    /// How many packets there were.
    pub packets: u64,
}

/// Observes until it is stopped.
pub struct Observer {
    stop: Arc<AtomicBool>,
    packets: JoinHandle<Observed>,
    sockets: JoinHandle<BTreeSet<Socket>>,
}

impl Observer {
    /// Observes every packet of this namespace, and the sockets of programs whose names begin so.
    ///
    /// # Errors
    ///
    /// Without the privilege (`CAP_NET_RAW`).
    pub fn start(program: &'static str) -> Result<Self> {
        let (flags, kind) = (SocketFlags::CLOEXEC, SocketType::DGRAM);
        let socket = socket_with(AddressFamily::PACKET, kind, flags, Some(eth::ALL));
        let socket = socket.context("a socket for packets")?;
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(WAIT))?;
        // As much as one may have.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, 64 << 20);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let packets = std::thread::spawn(move || watch_packets(File::from(socket), &stopped));
        let stopped = Arc::clone(&stop);
        let sockets = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                seen.extend(sockets_of(program));
                std::thread::sleep(LOOK);
            }
            seen
        });
        Ok(Self {
            stop,
            packets,
            sockets,
        })
    }

    /// Stops, and says what was seen.
    ///
    /// # Errors
    ///
    /// If an observing thread has panicked.
    pub fn stop(self) -> Result<Observed> {
        self.stop.store(true, Ordering::Relaxed);
        let observed = self.packets.join();
        let sockets = self.sockets.join();
        let panicked = |_| anyhow::anyhow!("the observer has panicked");
        Ok(Observed {
            sockets: sockets.map_err(panicked)?,
            ..observed.map_err(panicked)?
        })
    }
}

fn watch_packets(mut socket: File, stop: &AtomicBool) -> Observed {
    let mut seen = Observed::default();
    let mut packet = [0; 128];
    while !stop.load(Ordering::Relaxed) {
        // It also returns when nothing comes.
        let Ok(length) = socket.read(&mut packet) else {
            continue;
        };
        seen.packets += 1;
        seen.flows.insert(flow(&packet[..length]));
    }
    seen
}

/// What a packet says of itself, from its IP header on.
fn flow(packet: &[u8]) -> Flow {
    parse(packet).unwrap_or_else(|| Flow::Other(packet.get(9).copied().unwrap_or_default()))
}

fn parse(packet: &[u8]) -> Option<Flow> {
    let (protocol, from, to, rest) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let address = |at: usize| {
                let bytes = packet.get(at..at + 4)?;
                Some(IpAddr::from(Ipv4Addr::from(
                    <[u8; 4]>::try_from(bytes).ok()?,
                )))
            };
            (
                *packet.get(9)?,
                address(12)?,
                address(16)?,
                packet.get(header..)?,
            )
        }
        6 => {
            let address = |at: usize| {
                let bytes = packet.get(at..at + 16)?;
                Some(IpAddr::from(Ipv6Addr::from(
                    <[u8; 16]>::try_from(bytes).ok()?,
                )))
            };
            (
                *packet.get(6)?,
                address(8)?,
                address(24)?,
                packet.get(40..)?,
            )
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    let (from, to) = (
        SocketAddr::new(from, port(0)?),
        SocketAddr::new(to, port(2)?),
    );
    Some(match protocol {
        6 => Flow::Tcp(from, to),
        17 => Flow::Udp(from, to),
        other => Flow::Other(other),
    })
}

/// The sockets of all processes of this namespace whose programs' names begin so.
#[must_use]
pub fn sockets_of(program: &str) -> BTreeSet<Socket> {
    let mut owners = HashMap::new();
    let here = fs::read_link("/proc/self/ns/net").ok();
    let Ok(processes) = fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    for process in processes.flatten().map(|it| it.path()) {
        let Ok(exe) = fs::read_link(process.join("exe")) else {
            continue;
        };
        let name = exe
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let is_here = fs::read_link(process.join("ns/net")).ok() == here;
        if name.starts_with(program) && is_here {
            let inodes = inodes(&process);
            owners.extend(inodes.into_iter().map(|inode| (inode, name.clone())));
        }
    }
    if owners.is_empty() {
        return BTreeSet::new();
    }
    let tables = ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6"];
    tables
        .into_iter()
        .flat_map(|table| listed(table, &owners))
        .collect()
}

fn inodes(process: &Path) -> HashSet<String> {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return HashSet::new();
    };
    let links = descriptors
        .flatten()
        .filter_map(|it| fs::read_link(it.path()).ok());
    let inode = |link: std::path::PathBuf| {
        let link = link
            .to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?
            .to_owned();
        Some(link)
    };
    links.filter_map(inode).collect()
}

fn listed(table: &'static str, owners: &HashMap<String, String>) -> Vec<Socket> {
    let text = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
    let port = |field: &str| u16::from_str_radix(field.rsplit_once(':')?.1, 16).ok();
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some(Socket {
            program: owners.get(*fields.get(9)?)?.clone(),
            table,
            local_port: port(fields.get(1)?)?,
            remote_port: port(fields.get(2)?)?,
        })
    };
    text.lines().skip(1).filter_map(socket).collect()
}

impl Observed {
    /// What is neither TCP between loopback addresses with one of these ports at an end, nor a
    /// socket for it.
    #[must_use]
    pub fn but_to(&self, ports: &HashSet<u16>) -> (Vec<Flow>, Vec<Socket>) {
        let allowed = |flow: &&Flow| match flow {
            Flow::Tcp(one, other) => {
                let near = one.ip().is_loopback() && other.ip().is_loopback();
                near && (ports.contains(&one.port()) || ports.contains(&other.port()))
            }
            Flow::Udp(..) | Flow::Other(_) => false,
        };
        let flows = self.flows.iter().filter(|it| !allowed(it)).cloned();
        let dials = |it: &&Socket| it.table == "tcp" && ports.contains(&it.remote_port);
        let sockets = self.sockets.iter().filter(|it| !dials(it)).cloned();
        (flows.collect(), sockets.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn packets_say_where_they_go() {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1];
        packet.extend([127, 0, 0, 53, 0x30, 0x39, 0, 53]);
        let expected = Flow::Udp(
            "127.0.0.1:12345".parse().unwrap(),
            "127.0.0.53:53".parse().unwrap(),
        );
        assert_eq!(flow(&packet), expected);
        packet[9] = 1;
        assert_eq!(flow(&packet), Flow::Other(1));
        assert!(matches!(flow(&packet[..10]), Flow::Other(_)));
    }

    #[test]
    fn a_socket_is_found_with_its_program() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = sockets_of("dlambda_tests");
        assert!(
            found
                .iter()
                .any(|it| it.table == "tcp" && it.local_port == port)
        );
    }
}
