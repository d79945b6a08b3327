//! Wide ids travel as 16 bytes, the highest first.

use super::ConvertError;
use bytes::Bytes;
use yard_common::id::{BootId, ClusterId, RequestId, TokenId};

/// The id of a request.
///
/// # Errors
/// If it is not 16 bytes long.
pub fn request_id(bytes: &[u8]) -> Result<RequestId, ConvertError> {
    wide("request_id", bytes).map(RequestId::from_u128)
}

/// The bytes of a request's id.
#[must_use]
pub fn request_id_bytes(id: RequestId) -> Bytes {
    bytes_of(id.to_u128())
}

/// The public part of a token.
///
/// # Errors
/// If it is not 16 bytes long.
pub fn token_id(bytes: &[u8]) -> Result<TokenId, ConvertError> {
    wide("token_id", bytes).map(TokenId::from_u128)
}

/// The bytes of the public part of a token.
#[must_use]
pub fn token_id_bytes(id: TokenId) -> Bytes {
    bytes_of(id.to_u128())
}

/// The id of a cluster.
///
/// # Errors
/// If it is not 16 bytes long.
pub fn cluster_id(bytes: &[u8]) -> Result<ClusterId, ConvertError> {
    wide("cluster_id", bytes).map(ClusterId::from_u128)
}

/// The bytes of a cluster's id.
#[must_use]
pub fn cluster_id_bytes(id: ClusterId) -> Bytes {
    bytes_of(id.to_u128())
}

/// The bytes of the id of a boot.
#[must_use]
pub fn boot_id_bytes(id: BootId) -> Bytes {
    bytes_of(id.to_u128())
}

fn wide(field: &'static str, bytes: &[u8]) -> Result<u128, ConvertError> {
    let exact = <[u8; 16]>::try_from(bytes);
    let exact = exact.map_err(|_| ConvertError::Length { field, found: bytes.len(), wanted: 16 });
    exact.map(u128::from_be_bytes)
}

fn bytes_of(value: u128) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}
