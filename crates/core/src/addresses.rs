//! The overlay's addresses, and the lowest that is free without looking at all that are not.

use std::net::Ipv4Addr;

use holdfast_types::{CidrV4, ContainerUid};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Map;

/// Who has which address.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    rows: Map<Ipv4Addr, ContainerUid>,
    /// A stretch in which every address is in use: where it begins, and the first one after it.
    /// Derived; neither encoded nor compared.
    full: Option<(Ipv4Addr, Ipv4Addr)>,
}

impl Addresses {
    /// How many are in use.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Who has that address.
    pub fn get(&self, address: &Ipv4Addr) -> Option<ContainerUid> {
        self.rows.get(address).copied()
    }

    /// Gives an address away.
    pub fn insert(&mut self, address: Ipv4Addr, uid: ContainerUid) {
        self.rows.insert(address, uid);
        if let Some((begin, end)) = self.full.filter(|(_, end)| *end == address) {
            self.full = Some((begin, self.first_free_from(end)));
        }
    }

    /// Takes an address back.
    pub fn remove(&mut self, address: &Ipv4Addr) {
        self.rows.remove(address);
        if let Some((begin, end)) = self.full
            && (begin..end).contains(address)
        {
            self.full = Some((begin, *address));
        }
    }

    /// The lowest free address; the first of the range is left to the gateway.
    pub fn lowest_free(&mut self, overlay: CidrV4) -> Option<Ipv4Addr> {
        let (first, last) = (overlay.hosts().nth(1)?, overlay.hosts().next_back()?);
        let free = match self.full {
            Some((begin, end)) if begin == first => end,
            _ => self.first_free_from(first),
        };
        self.full = Some((first, free));
        (free <= last).then_some(free)
    }

    fn first_free_from(&self, from: Ipv4Addr) -> Ipv4Addr {
        let mut free = from;
        for (address, _) in self.rows.range_from(&from) {
            if *address != free {
                break;
            }
            free = Ipv4Addr::from(u32::from(free).saturating_add(1));
        }
        free
    }
}

impl PartialEq for Addresses {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl Eq for Addresses {}

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.rows.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(|rows| Self { rows, full: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever was given and taken back, it is the lowest free one, also after a restart (I4).
    #[test]
    fn the_lowest_free_address_is_found_without_looking() {
        let overlay: CidrV4 = "10.1.2.0/27".parse().unwrap();
        let uid = ContainerUid(uuid::Uuid::nil());
        let mut addresses = Addresses::default();
        let mut seed = 7u32;
        for step in 0..2_000 {
            seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            let looked = overlay.hosts().skip(1).find(|a| addresses.get(a).is_none());
            assert_eq!(addresses.lowest_free(overlay), looked, "step {step}");
            let any = overlay.hosts().nth((seed >> 16) as usize % 30);
            match (looked, any) {
                (Some(free), _) if seed >> 8 & 7 < 5 => addresses.insert(free, uid),
                (_, Some(any)) if seed >> 8 & 7 == 5 => addresses.insert(any, uid),
                (_, Some(any)) => addresses.remove(&any),
                _ => {}
            }
            if step % 100 == 0 {
                let bytes = rmp_serde::to_vec_named(&addresses).unwrap();
                addresses = rmp_serde::from_slice(&bytes).unwrap();
            }
        }
    }
}
