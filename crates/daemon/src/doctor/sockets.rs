//! The ports of the configuration: free, or held by whom they are for.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::path::Path;

use super::Finding;
use crate::config::{Config, PoolDriver};

/// The daemon, as the kernel calls it.
const OURS: &str = "holdfastd";

#[derive(Debug, Clone)]
pub(super) struct Facts {
    ports: Vec<Port>,
}

#[derive(Debug, Clone)]
struct Port {
    name: &'static str,
    /// The key in the configuration.
    key: &'static str,
    address: String,
    state: State,
}

/// What came of listening there for a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Free,
    /// By a process of that name, or by the kernel itself.
    Held(Option<String>),
    Refused(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Facts {
    pub(super) fn gather(config: &Config) -> Self {
        let tcp = |name, key, address: &str| Port {
            name,
            key,
            address: address.to_owned(),
            state: state(Protocol::Tcp, address),
        };
        let mut ports = vec![tcp("port-listen", "listen", &config.listen)];
        ports.extend(config.metrics.as_ref().map(|at| tcp("port-metrics", "metrics", at)));
        if config.pool.driver != PoolDriver::None {
            let address = format!("0.0.0.0:{}", config.network.port);
            let state = state(Protocol::Udp, &address);
            ports.push(Port { name: "port-overlay", key: "network.port", address, state });
        }
        Self { ports }
    }
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    facts.ports.iter().map(judge).collect()
}

fn judge(port: &Port) -> Finding {
    let Port { name, key, address, state } = port;
    let other = format!("write another {key} into the configuration, or end what holds it");
    match state {
        State::Free => Finding::ok(name, format!("{address} is free")),
        State::Held(Some(holder)) if holder == OURS => {
            Finding::ok(name, format!("{address} is held by {OURS}"))
        }
        // The overlay's port is the kernel's once there is an overlay.
        State::Held(None) if *name == "port-overlay" => {
            Finding::ok(name, format!("{address} is held by the kernel, for the overlay"))
        }
        State::Held(holder) => {
            let holder = holder.as_deref().unwrap_or("something that is no process here");
            Finding::problem(name, format!("{address} is held by {holder}"), other)
        }
        State::Refused(why) => {
            let cure = format!("write an address of this machine as {key} into the configuration");
            Finding::problem(name, format!("{address} cannot be listened on: {why}"), cure)
        }
    }
}

fn state(protocol: Protocol, address: &str) -> State {
    let listen = |at: SocketAddr| match protocol {
        Protocol::Tcp => TcpListener::bind(at).map(drop),
        Protocol::Udp => UdpSocket::bind(at).map(drop),
    };
    let resolved = address.to_socket_addrs().map(|mut all| all.next());
    let at = match resolved {
        Ok(Some(at)) => at,
        Ok(None) => return State::Refused("the name has no address".into()),
        Err(error) => return State::Refused(error.to_string()),
    };
    match listen(at) {
        Ok(()) => State::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            State::Held(holder(protocol, at.port()))
        }
        Err(error) => State::Refused(error.to_string()),
    }
}

/// The process that has a socket on a port.
fn holder(protocol: Protocol, port: u16) -> Option<String> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let tables = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    let sockets: Vec<String> =
        tables.flat_map(|table| inodes(&table, protocol, port)).map(socket_of).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let mut holders = processes.filter(|process| has_one_of(process, &sockets));
    let name = fs::read_to_string(holders.next()?.join("comm")).ok()?;
    Some(name.trim().to_owned())
}

/// The inodes of what waits for others on a port, from `/proc/net/tcp` and its like (proc(5)).
fn inodes(table: &str, protocol: Protocol, port: u16) -> Vec<u64> {
    /// TCP_LISTEN, and what an unconnected UDP socket has.
    const LISTENS: &str = "0A";
    const UNCONNECTED: &str = "07";
    let waits = if protocol == Protocol::Tcp { LISTENS } else { UNCONNECTED };
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_port = |row: &Vec<&str>| {
        let local = row.get(1).and_then(|local| local.rsplit_once(':'));
        local.and_then(|(_, port)| u16::from_str_radix(port, 16).ok()) == Some(port)
            && row.get(3) == Some(&waits)
    };
    rows.filter(of_port).filter_map(|row| row.get(9)?.parse().ok()).collect()
}

fn socket_of(inode: u64) -> String {
    format!("socket:[{inode}]")
}

fn has_one_of(process: &Path, sockets: &[String]) -> bool {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets.any(|target| sockets.iter().any(|socket| target == Path::new(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    fn judged(name: &'static str, state: State) -> Grade {
        judge(&Port { name, key: "listen", address: "192.0.2.1:7443".into(), state }).grade
    }

    #[test]
    fn a_port_is_free_or_ours() {
        let held = |by: &str| State::Held(Some(by.into()));
        assert_eq!(judged("port-listen", State::Free), Grade::Ok);
        assert_eq!(judged("port-listen", held("holdfastd")), Grade::Ok);
        assert_eq!(judged("port-listen", held("nginx")), Grade::Problem);
        assert_eq!(judged("port-listen", State::Held(None)), Grade::Problem);
        assert_eq!(judged("port-overlay", State::Held(None)), Grade::Ok);
        assert_eq!(judged("port-listen", State::Refused("not here".into())), Grade::Problem);
    }

    #[test]
    fn a_holder_is_found_by_its_socket() {
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = busy.local_addr().unwrap().to_string();
        let State::Held(Some(holder)) = state(Protocol::Tcp, &address) else { panic!("free") };
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(holder, own.trim());
        drop(busy);
        assert_eq!(state(Protocol::Tcp, &address), State::Free);
        // TEST-NET-1 is nobody's (RFC 5737).
        assert!(matches!(state(Protocol::Tcp, "192.0.2.1:1"), State::Refused(_)));
    }

    #[test]
    fn only_what_waits_on_the_port_counts() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1D13 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1\n\
            1: 0100007F:1D13 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 78 1\n\
            2: 0100007F:1D14 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 79 1\n";
        assert_eq!(inodes(table, Protocol::Tcp, 7443), [77]);
    }
}
