//! What a key's home says when it does not sign. Value.

/// Why a key does not sign.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the device's key does not sign: {0}")]
pub struct SignError(pub String);
