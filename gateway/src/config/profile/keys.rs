//! Keys of devices and points before they are complete: what a profile says, and what a
//! configuration changes of it. Values.
//!
//! Invariant: their schemas are those of [`Device`] and [`Point`], less what may be left out, so
//! that a key added there can at once be written here.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::{Device, Point};

/// Keys with their values, as the file has them.
pub(crate) type Table = Map<String, Value>;

/// Keys that say which device this is, and so no profile has.
const OWN_KEYS: [&str; 4] = ["name", "bus", "unit", "point"];

/// A `[[device]]` as written, its profile not yet looked at.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct WrittenDevice(pub(crate) Table);

/// Keys of a device that a profile gives.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct DeviceKeys(pub(crate) Table);

/// A `[[device.point]]` that may complete one of the profile's.
struct WrittenPoint;

/// Keys of a `[[device]]` that speak of its profile.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Choice {
    /// The kind of device that it is; `gateway profile list` shows those known. Its points and
    /// other keys are as if written here, and what is written here goes before.
    #[schemars(extend("format" = "name"))]
    pub(super) profile: Option<String>,
    /// The profile's points to read, `*` at the end standing for any ending; by default those that
    /// the profile gives.
    pub(super) points: Option<Vec<String>>,
    /// Points of the profile not to read.
    pub(super) except: Vec<String>,
}

/// A point whose keys are no point, and which of them is to blame.
pub(super) struct Fault {
    key: Option<String>,
    pub(super) why: String,
}

impl Fault {
    /// `.values`, to follow the point's path.
    pub(super) fn key(&self) -> String {
        self.key
            .as_ref()
            .map_or_else(String::new, |key| format!(".{key}"))
    }
}

/// A device without points.
pub(super) fn device(mut keys: Table) -> Result<Device, String> {
    keys.insert("point".to_owned(), json!([]));
    serde_json::from_value(Value::Object(keys)).map_err(|error| error.to_string())
}

/// The point of these keys.
pub(super) fn point(keys: &Table) -> Result<Point, Fault> {
    let read = |keys: Table| serde_json::from_value::<Point>(Value::Object(keys));
    read(keys.clone()).map_err(|error| {
        let needed = ["name", "register"].map(|key| keys.get_key_value(key));
        let alone = |key: &str| {
            let kept = needed.into_iter().flatten().chain(keys.get_key_value(key));
            kept.map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        let blamed = keys.keys().find(|key| read(alone(key)).is_err());
        Fault {
            key: blamed.cloned(),
            why: error.to_string(),
        }
    })
}

/// The point's name; the schema has seen that it has one.
pub(super) fn name(point: &Table) -> &str {
    point
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

impl JsonSchema for WrittenDevice {
    fn schema_name() -> Cow<'static, str> {
        "Device".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Device::json_schema(generator);
        let choice = Choice::json_schema(generator);
        let point = generator.subschema_for::<WrittenPoint>();
        if let Some(properties) = properties(&mut schema) {
            let more = choice.get("properties").and_then(Value::as_object);
            properties.extend(more.cloned().into_iter().flatten());
            if let Some(Value::Object(points)) = properties.get_mut("point") {
                points.remove("minItems");
                points.insert("items".to_owned(), point.to_value());
            }
        }
        schema.insert("required".to_owned(), json!(["name", "bus", "unit"]));
        schema
    }
}

impl JsonSchema for DeviceKeys {
    fn schema_name() -> Cow<'static, str> {
        "DeviceKeys".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Device::json_schema(generator);
        if let Some(properties) = properties(&mut schema) {
            properties.retain(|key, _| !OWN_KEYS.contains(&key.as_str()));
        }
        schema.remove("required");
        schema
    }
}

impl JsonSchema for WrittenPoint {
    fn schema_name() -> Cow<'static, str> {
        "WrittenPoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Point::json_schema(generator);
        schema.insert("required".to_owned(), json!(["name"]));
        schema
    }
}

fn properties(schema: &mut Schema) -> Option<&mut Table> {
    schema.get_mut("properties")?.as_object_mut()
}
