//! What a node says before it ships a snapshot, and the address that it is known by.

use holdfast_proto::Address;
use holdfast_proto::internal::{Member, ReceiveStart, SnapshotId};
use prost::Message;

use crate::serve::offer_of;

/// Reads one; what is no message may be an address.
pub fn read(input: &[u8]) {
    if let Ok(start) = ReceiveStart::decode(input)
        && let Ok(offer) = offer_of(&start)
    {
        let shape = offer.shape();
        drop(shape.rounded());
        assert!(shape.bytes() >= start.size_bytes);
        for at in [0, 1, start.size_bytes, u64::MAX] {
            assert!(!shape.contains(at, 1) || at < shape.end());
        }
    }
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(address) = text.parse::<Address>()
    {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
}

/// Of a set, of a plain volume, and addresses.
pub fn seeds() -> Vec<Vec<u8>> {
    let id = || vec![7; 16].into();
    let snapshot = SnapshotId { volume: id(), epoch: 1, seq: 2, uuid: id(), parent: id() };
    let plain =
        ReceiveStart { snapshot: Some(snapshot), size_bytes: 8 << 20, ..ReceiveStart::default() };
    let data = vec![Member { name: "data".into(), size_bytes: 4 << 20 }];
    let set = ReceiveStart { base: id(), data, taken_ms: 1, ..plain.clone() };
    let addresses = ["10.0.0.1:7443", "[::1]:1", "unix:/run/holdfast/holdfastd.sock"];
    let messages = [plain, set].map(|start| start.encode_to_vec());
    messages.into_iter().chain(addresses.map(|text| text.as_bytes().to_vec())).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn spoiled_offers_are_read_or_refused() {
        holdfast_fuzz::spoiled(&super::seeds(), 200_000, super::read);
    }
}
