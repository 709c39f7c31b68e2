//! How many may come in: bounds that strangers reach long before nodes do.
//!
//! | who | bound |
//! |---|---|
//! | who shakes hands | [`SHAKING`] in all, [`SHAKING_OF_ONE`] of one address, [`RATE`] a second of one address |
//! | strangers: no certificate was shown | [`STRANGERS`] in all, [`STRANGERS_OF_ONE`] of one address |
//! | each node | [`OF_ONE_NODE`] |
//!
//! Who is refused is closed at once, and may come again. So a machine that comes too often, or with too many,
//! takes its own places alone; a stranger takes no node's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_trust::Principal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const SHAKING: usize = 2_048;
const SHAKING_OF_ONE: usize = 64;
/// Handshakes that one address may begin in a second, and at once after a pause: each costs about a
/// millisecond of a processor.
const RATE: f64 = 100.0;
const BURST: f64 = 256.0;
const STRANGERS: usize = 256;
const STRANGERS_OF_ONE: usize = 32;
const OF_ONE_NODE: usize = 1_024;

/// Addresses that are remembered.
const ADDRESSES: usize = 16_384;

/// What is at the door and behind it.
#[derive(Clone, Default)]
pub(super) struct Door(Arc<Mutex<Rooms>>);

#[derive(Default)]
struct Rooms {
    addresses: HashMap<IpAddr, Visits>,
    nodes: HashMap<Principal, Known>,
    shaking: usize,
    strangers: usize,
}

/// What one node has here.
#[derive(Default)]
struct Known {
    count: usize,
    /// Cancelled when its connections are to end.
    shut_out: CancellationToken,
}

/// What one address has here.
struct Visits {
    shaking: usize,
    strangers: usize,
    /// Handshakes that it may begin now,
    left: f64,
    /// as of then.
    at: Instant,
}

/// A connection's place, until dropped.
pub(super) struct Place {
    door: Door,
    address: IpAddr,
    room: Room,
    shut_out: CancellationToken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Shaking,
    Stranger,
    Node(Principal),
}

impl Door {
    /// A place to shake hands at, if there is one for that address.
    pub(super) fn knock(&self, address: IpAddr, now: Instant) -> Option<Place> {
        let address = network(address);
        let mut rooms = self.lock();
        if rooms.shaking >= SHAKING || !rooms.remembers(address, now) {
            return None;
        }
        let visits = rooms.addresses.get_mut(&address)?;
        visits.refill(now);
        if visits.shaking >= SHAKING_OF_ONE || visits.left < 1.0 {
            return None;
        }
        visits.left -= 1.0;
        visits.shaking += 1;
        rooms.shaking += 1;
        let shut_out = CancellationToken::new();
        Some(Place { door: self.clone(), address, room: Room::Shaking, shut_out })
    }

    /// Ends the connections of the nodes for which that holds.
    pub(super) fn shut_out(&self, which: impl Fn(Principal) -> bool) {
        for (node, known) in &self.lock().nodes {
            if which(*node) {
                known.shut_out.cancel();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rooms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who has one address of IPv6 has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

impl Rooms {
    /// Makes room for an address that is new, by forgetting those that have nothing here.
    fn remembers(&mut self, address: IpAddr, now: Instant) -> bool {
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&address) {
            self.addresses.retain(|_, visits| {
                visits.refill(now);
                visits.shaking + visits.strangers > 0 || visits.left < BURST
            });
        }
        let is_room = self.addresses.len() < ADDRESSES || self.addresses.contains_key(&address);
        if is_room {
            let new = Visits { shaking: 0, strangers: 0, left: BURST, at: now };
            self.addresses.entry(address).or_insert(new);
        }
        is_room
    }

    fn leave(&mut self, address: IpAddr, room: Room) {
        let visits = self.addresses.get_mut(&address);
        match room {
            Room::Shaking => {
                self.shaking -= 1;
                if let Some(visits) = visits {
                    visits.shaking -= 1;
                }
            }
            Room::Stranger => {
                self.strangers -= 1;
                if let Some(visits) = visits {
                    visits.strangers -= 1;
                }
            }
            Room::Node(node) => match self.nodes.get_mut(&node) {
                Some(known) if known.count > 1 => known.count -= 1,
                _ => drop(self.nodes.remove(&node)),
            },
        }
    }
}

impl Visits {
    fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * RATE).min(BURST);
        self.at = now;
    }
}

impl Place {
    /// The place of one who has shaken hands, as that principal or as a stranger; nothing if there is none.
    pub(super) fn pass(mut self, principal: Option<Principal>) -> Option<Self> {
        let mut rooms = self.door.lock();
        let room = match principal {
            Some(node) => {
                let known = rooms.nodes.entry(node).or_default();
                if known.shut_out.is_cancelled() {
                    // Those before it are ending.
                    known.shut_out = CancellationToken::new();
                }
                if known.count >= OF_ONE_NODE {
                    None
                } else {
                    known.count += 1;
                    self.shut_out = known.shut_out.clone();
                    Some(Room::Node(node))
                }
            }
            None => {
                let all = rooms.strangers;
                let visits = rooms.addresses.get_mut(&self.address);
                match visits.filter(|visits| visits.strangers < STRANGERS_OF_ONE && all < STRANGERS)
                {
                    Some(visits) => {
                        visits.strangers += 1;
                        rooms.strangers += 1;
                        Some(Room::Stranger)
                    }
                    None => None,
                }
            }
        };
        // What is refused leaves when it is dropped, which takes the lock.
        if room.is_some() {
            rooms.leave(self.address, self.room);
        }
        drop(rooms);
        self.room = room?;
        Some(self)
    }
}

impl Place {
    /// Cancelled when the connection is to end.
    pub(super) fn shut_out(&self) -> CancellationToken {
        self.shut_out.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.lock().leave(self.address, self.room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{ClusterId, NodeId};
    use std::time::Duration;

    fn address(n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    /// I27: however many strangers wait, a node comes in.
    #[test]
    fn strangers_take_no_nodes_place() {
        let (door, now) = (Door::default(), Instant::now());
        let mut inside = Vec::new();
        for n in 0..20 {
            for _ in 0..STRANGERS_OF_ONE + 1 {
                inside.extend(door.knock(address(n), now).and_then(|place| place.pass(None)));
            }
        }
        assert_eq!(inside.len(), STRANGERS);
        let node = Principal::Worker(ClusterId::generate(), NodeId(7));
        let knocked = door.knock(address(99), now).unwrap();
        assert!(knocked.pass(Some(node)).is_some());
        drop(inside);
        let rooms = door.lock();
        assert_eq!((rooms.shaking, rooms.strangers, rooms.nodes.len()), (0, 0, 0), "all have left");
    }

    /// I27: one that never ends its handshakes, or begins too many, takes its own places alone.
    #[test]
    fn one_address_takes_its_own_places_alone() {
        let (door, now) = (Door::default(), Instant::now());
        let slow: Vec<_> = (0..500).filter_map(|_| door.knock(address(1), now)).collect();
        assert_eq!(slow.len(), SHAKING_OF_ONE);
        assert!(door.knock(address(2), now).is_some());
        drop(slow);
        let quick = (0..1_000).filter(|_| door.knock(address(3), now).is_some()).count();
        assert_eq!(quick as f64, BURST);
        let later = now + Duration::from_secs(1);
        let quick = (0..1_000).filter(|_| door.knock(address(3), later).is_some()).count();
        assert_eq!(quick as f64, RATE);
    }

    /// I27: who comes from ever new addresses fills no memory.
    #[test]
    fn addresses_are_forgotten() {
        let (door, mut now) = (Door::default(), Instant::now());
        for n in 0..u16::MAX {
            now += Duration::from_millis(1);
            drop(door.knock(address(n), now));
            assert!(door.lock().addresses.len() <= ADDRESSES);
        }
        assert!(door.knock(address(0), now).is_some());
    }

    /// I26: what a node that was let go has open ends, and nobody else's.
    #[test]
    fn a_node_that_is_shut_out_loses_its_connections() {
        let (door, now, cluster) = (Door::default(), Instant::now(), ClusterId::generate());
        let enter = |n| {
            let node = Principal::Worker(cluster, NodeId(n));
            door.knock(address(1), now).unwrap().pass(Some(node)).unwrap()
        };
        let (gone, stays) = (enter(1), enter(2));
        door.shut_out(|node| node.node() == Some(NodeId(1)));
        assert!(gone.shut_out().is_cancelled() && !stays.shut_out().is_cancelled());
        // It may come again, to be told why.
        assert!(!enter(1).shut_out().is_cancelled());
    }

    #[test]
    fn a_node_has_so_many_connections() {
        let (door, mut now) = (Door::default(), Instant::now());
        let node = Principal::Worker(ClusterId::generate(), NodeId(7));
        let mut inside = Vec::new();
        for _ in 0..OF_ONE_NODE + 10 {
            now += Duration::from_millis(10);
            inside.extend(door.knock(address(1), now).unwrap().pass(Some(node)));
        }
        assert_eq!(inside.len(), OF_ONE_NODE);
    }
}
