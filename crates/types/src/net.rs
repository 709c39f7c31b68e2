//! Addresses of containers.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Code;

/// A text that is no address or range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}")]
pub struct NetError {
    /// What was expected.
    pub what: &'static str,
    /// The text as given.
    pub text: String,
}

impl NetError {
    /// The stable code of this refusal.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

/// A 48-bit Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The locally administered unicast address `02:48:AA:BB:CC:DD` of an IPv4 address, so that
    /// two containers of one network never share one.
    pub fn from_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x48, a, b, c, d])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = NetError;
    fn from_str(s: &str) -> Result<Self, NetError> {
        let err = || NetError { what: "MAC address", text: s.to_owned() };
        let mut out = [0u8; 6];
        let mut parts = s.split(':');
        for byte in &mut out {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(err)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| err())?;
        }
        if parts.next().is_some() { Err(err()) } else { Ok(Self(out)) }
    }
}

impl TryFrom<String> for MacAddr {
    type Error = NetError;
    fn try_from(s: String) -> Result<Self, NetError> {
        s.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

/// An IPv4 network, `10.77.0.0/16`: the network address and the prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CidrV4 {
    network: Ipv4Addr,
    prefix: u8,
}

impl CidrV4 {
    /// The network address.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// The prefix length, 0 to 32.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether the address lies inside.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == u32::from(self.network)
    }

    /// The addresses that hosts may have, in order: all but the network and broadcast addresses.
    pub fn hosts(self) -> impl DoubleEndedIterator<Item = Ipv4Addr> {
        let first = u32::from(self.network);
        let last = first | !mask(self.prefix);
        (first.saturating_add(1)..last).map(Ipv4Addr::from)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for CidrV4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for CidrV4 {
    type Err = NetError;
    fn from_str(s: &str) -> Result<Self, NetError> {
        let err = || NetError { what: "IPv4 network (such as 10.77.0.0/16)", text: s.to_owned() };
        let (network, prefix) = s.split_once('/').ok_or_else(err)?;
        let network: Ipv4Addr = network.parse().map_err(|_| err())?;
        let prefix: u8 = prefix.parse().ok().filter(|p| *p <= 32).ok_or_else(err)?;
        if u32::from(network) & !mask(prefix) != 0 {
            return Err(err());
        }
        Ok(Self { network, prefix })
    }
}

impl TryFrom<String> for CidrV4 {
    type Error = NetError;
    fn try_from(s: String) -> Result<Self, NetError> {
        s.parse()
    }
}

impl From<CidrV4> for String {
    fn from(cidr: CidrV4) -> String {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_know_their_hosts() {
        let net: CidrV4 = "10.1.2.0/30".parse().unwrap();
        let hosts: Vec<_> = net.hosts().map(|h| h.to_string()).collect();
        assert_eq!(hosts, ["10.1.2.1", "10.1.2.2"]);
        assert!(net.contains("10.1.2.3".parse().unwrap()));
        assert!(!net.contains("10.1.2.4".parse().unwrap()));
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0", "x/8"] {
            assert!(bad.parse::<CidrV4>().is_err(), "{bad}");
        }
        for bad in ["02:00", "02:00:00:00:00:0g", "02:00:00:00:00:00:00", "2:0:0:0:0:00"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mac_follows_from_the_address() {
        let mac = MacAddr::from_ipv4("10.77.0.5".parse().unwrap());
        assert_eq!(mac.to_string(), "02:48:0a:4d:00:05");
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
}
