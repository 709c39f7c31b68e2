//! How values look on disk and on the wire: named MessagePack, which tolerates unknown fields
//! (DESIGN section 9), on disk behind a CRC.
//!
//! ```text
//! sealed value = crc32(body) as u32 LE | body
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Encodes with field names.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    rmp_serde::to_vec_named(value).map_err(|e| CodecError::Encode(e.to_string()))
}

/// Decodes, ignoring fields that this version does not know.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    rmp_serde::from_slice(bytes).map_err(|e| CodecError::Decode(e.to_string()))
}

/// Encodes and puts the CRC in front.
pub(crate) fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let body = encode(value)?;
    let mut sealed = Vec::with_capacity(body.len() + CRC_LEN);
    sealed.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    sealed.extend_from_slice(&body);
    Ok(sealed)
}

/// Checks the CRC and decodes.
pub(crate) fn unseal<T: DeserializeOwned>(sealed: &[u8]) -> Result<T, CodecError> {
    let (crc, body) = sealed.split_first_chunk::<CRC_LEN>().ok_or(CodecError::Short)?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return Err(CodecError::Crc);
    }
    decode(body)
}

const CRC_LEN: usize = 4;

/// Why bytes are no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("cannot be encoded: {0}")]
    Encode(String),
    #[error("cannot be decoded: {0}")]
    Decode(String),
    #[error("shorter than its checksum")]
    Short,
    #[error("its checksum does not match")]
    Crc,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Old {
        a: u64,
    }

    #[derive(Serialize)]
    struct New {
        b: String,
        a: u64,
    }

    #[test]
    fn unknown_fields_are_tolerated() {
        let new = seal(&New { b: "later".into(), a: 7 }).unwrap();
        assert_eq!(unseal::<Old>(&new), Ok(Old { a: 7 }));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sealed = seal(&Old { a: 7 }).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal::<Old>(&bad), Err(CodecError::Crc), "bit {bit}");
        }
        assert_eq!(unseal::<Old>(&sealed[..3]), Err(CodecError::Short));
    }
}
