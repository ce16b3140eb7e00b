//! What a serial instrument is asked, and how its words are read. Values.
//!
//! Invariant: what is sent is a template, checked when the file is read.

use schemars::JsonSchema;
use serde::Deserialize;
use settings::Period;

use super::Decode;

/// A `[[serial.request]]`: one question, asked again and again.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SerialRequest {
    /// What is sent, its end included: `"W\\r\\n"`. `{checksum}` is the check of all before it;
    /// `{{` and `}}` are braces.
    #[schemars(length(min = 1, max = 1024), extend("format" = "template"))]
    pub send: String,
    /// How often.
    #[serde(default = "default_interval")]
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "7d"))]
    pub interval: Period,
    /// How long the answer may take; by default as the line says.
    #[schemars(extend("x-minimum" = "10ms", "x-maximum" = "1m"))]
    pub response_timeout: Option<Period>,
    /// How often it is asked again at once when no good answer came.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10))]
    pub retries: u8,
    /// How the answer becomes values; by default as the line says.
    pub decode: Option<Decode>,
}

fn default_interval() -> Period {
    Period::from_secs(1)
}

/// What a word in a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TextType {
    /// A number, also with blanks after its sign and with a decimal comma.
    Number,
    /// Text, its leading zeros kept.
    String,
}
