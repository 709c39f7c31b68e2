//! Where other nodes reach this one.

use std::net::{IpAddr, ToSocketAddrs, UdpSocket};

use super::Finding;
use crate::config::{Config, PoolDriver};

#[derive(Debug, Clone)]
pub(super) struct Facts {
    advertise: String,
    /// What it resolves to, each with whether it is this machine's.
    resolved: Result<Vec<(IpAddr, bool)>, String>,
    /// The overlay's own address, likewise; nothing where there is no overlay.
    underlay: Option<(IpAddr, bool)>,
}

impl Facts {
    pub(super) fn gather(config: &Config) -> Self {
        let resolved = config.advertise.to_socket_addrs().map_err(|e| e.to_string());
        let with_place = |ip| (ip, is_here(ip));
        let underlay = IpAddr::V4(config.network.underlay);
        Self {
            advertise: config.advertise.clone(),
            resolved: resolved.map(|all| all.map(|at| with_place(at.ip())).collect()),
            underlay: (config.pool.driver != PoolDriver::None).then(|| with_place(underlay)),
        }
    }
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![advertise(&facts.advertise, &facts.resolved)];
    found.extend(facts.underlay.map(underlay));
    found
}

fn advertise(address: &str, resolved: &Result<Vec<(IpAddr, bool)>, String>) -> Finding {
    const NAME: &str = "address-advertise";
    let cure = "write an address as advertise that this machine has and the other nodes reach";
    let all = match resolved {
        Ok(all) => all,
        Err(why) => {
            return Finding::problem(NAME, format!("{address} has no address: {why}"), cure);
        }
    };
    if let Some((ip, _)) = all.iter().find(|(ip, _)| ip.is_unspecified() || ip.is_loopback()) {
        let what = format!("{address} is {ip}, where every node reaches itself");
        return Finding::problem(NAME, what, cure);
    }
    if all.iter().any(|(_, here)| *here) {
        return Finding::ok(NAME, format!("{address} is on an interface"));
    }
    let what = format!("{address} is on no interface of this machine");
    Finding::warning(NAME, what, format!("{cure}; nothing, if something else forwards it"))
}

fn underlay((ip, here): (IpAddr, bool)) -> Finding {
    const NAME: &str = "address-underlay";
    if here && !ip.is_loopback() && !ip.is_unspecified() {
        return Finding::ok(NAME, format!("{ip} is on an interface"));
    }
    let what = format!("{ip} is on no interface: containers would not reach those of other nodes");
    Finding::problem(NAME, what, "write an address of this machine as underlay into [network]")
}

/// Whether a socket may be bound to it: no packet is sent.
fn is_here(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_advertised_address_leads_here_and_from_elsewhere() {
        let of = |text: &str, here| advertise("n1:7443", &Ok(vec![(ip(text), here)])).grade;
        assert_eq!(of("192.0.2.1", true), Grade::Ok);
        assert_eq!(of("192.0.2.1", false), Grade::Warning);
        assert_eq!(of("127.0.1.1", true), Grade::Problem);
        assert_eq!(of("0.0.0.0", true), Grade::Problem);
        assert_eq!(advertise("n1:7443", &Err("unknown".into())).grade, Grade::Problem);
    }

    #[test]
    fn the_overlay_needs_an_address_of_this_machine() {
        assert_eq!(underlay((ip("192.0.2.1"), true)).grade, Grade::Ok);
        assert_eq!(underlay((ip("192.0.2.1"), false)).grade, Grade::Problem);
        assert_eq!(underlay((ip("127.0.0.1"), true)).grade, Grade::Problem);
    }

    #[test]
    fn what_is_here_can_be_bound() {
        assert!(is_here(ip("127.0.0.1")));
        // TEST-NET-1 is nobody's (RFC 5737).
        assert!(!is_here(ip("192.0.2.1")));
    }
}
