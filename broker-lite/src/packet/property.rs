//! Properties as they travel in 5.0: which there are, and how each packet's block is read.
//!
//! Values. Invariant: a property is read once, and only where table 2-4 of the specification puts
//! it; user properties and, in PUBLISH, subscription identifiers may repeat up to a named maximum.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use super::wire::Reader;
use super::{
    Authentication, ConnAckProperties, ConnectProperties, Credential, Details, Fault,
    MAX_SUBSCRIPTION_IDS, MAX_USER_PROPERTIES, MessageProperties, PayloadFormat, QoS, Sender,
    SubscriptionId, Text, TopicAlias, UserProperties,
};
use crate::topic::TopicName;

/// Writes the enum of identifiers and their lookup.
macro_rules! properties {
    ($($name:ident = $value:literal,)*) => {
        /// A property identifier.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Identifier {
            $($name = $value,)*
        }

        impl Identifier {
            fn from_u32(value: u32) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

properties! {
    PayloadFormat = 0x01,
    MessageExpiry = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionId = 0x0b,
    SessionExpiry = 0x11,
    AssignedClientId = 0x12,
    ServerKeepAlive = 0x13,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelay = 0x18,
    RequestResponseInformation = 0x19,
    ResponseInformation = 0x1a,
    ServerReference = 0x1c,
    ReasonString = 0x1f,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    TopicAlias = 0x23,
    MaximumQos = 0x24,
    RetainAvailable = 0x25,
    UserProperty = 0x26,
    MaximumPacketSize = 0x27,
    WildcardsAvailable = 0x28,
    SubscriptionIdsAvailable = 0x29,
    SharedAvailable = 0x2a,
}

/// The property block of one packet: a length, then identifiers with their values.
struct Block<'a> {
    values: Reader<'a>,
    /// One bit per identifier; the highest is 0x2a.
    seen: u64,
}

impl<'a> Block<'a> {
    fn open(body: &mut Reader<'a>) -> Result<Self, Fault> {
        let length = body.varint()? as usize;
        let values = body.part(length).map_err(|_| Fault::PropertyLength)?;
        Ok(Self { values, seen: 0 })
    }

    /// The next identifier, whose value must then be read.
    fn next(&mut self) -> Result<Option<Identifier>, Fault> {
        if self.values.is_empty() {
            return Ok(None);
        }
        let identifier = self.values.varint()?;
        let property = Identifier::from_u32(identifier).ok_or(Fault::UnknownProperty)?;
        let bit = 1 << property as u8;
        let repeatable = matches!(
            property,
            Identifier::UserProperty | Identifier::SubscriptionId
        );
        if self.seen & bit != 0 && !repeatable {
            return Err(Fault::DuplicateProperty);
        }
        self.seen |= bit;
        Ok(Some(property))
    }

    fn flag(&mut self) -> Result<bool, Fault> {
        match self.values.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Fault::PropertyValue),
        }
    }

    fn nonzero_u16(&mut self) -> Result<NonZeroU16, Fault> {
        NonZeroU16::new(self.values.u16()?).ok_or(Fault::PropertyValue)
    }

    fn nonzero_u32(&mut self) -> Result<NonZeroU32, Fault> {
        NonZeroU32::new(self.values.u32()?).ok_or(Fault::PropertyValue)
    }

    fn subscription_id(&mut self) -> Result<SubscriptionId, Fault> {
        SubscriptionId::new(self.values.varint()?).ok_or(Fault::PropertyValue)
    }

    fn user_property(&mut self, all: &mut UserProperties) -> Result<(), Fault> {
        if all.len() >= MAX_USER_PROPERTIES {
            return Err(Fault::TooManyUserProperties);
        }
        let (name, value) = (self.values.str()?, self.values.str()?);
        all.push(name, value).map_err(|_| Fault::NullCharacter)
    }
}

/// What enhanced authentication adds to three packets; joined once the block has been read.
#[derive(Default)]
struct AuthenticationFields {
    method: Option<Text>,
    data: Option<Credential>,
}

impl AuthenticationFields {
    fn join(self) -> Result<Option<Authentication>, Fault> {
        match self {
            Self {
                method: Some(method),
                data,
            } => Ok(Some(Authentication { method, data })),
            Self { data: Some(_), .. } => Err(Fault::DataWithoutMethod),
            _ => Ok(None),
        }
    }
}

pub(super) fn connect(body: &mut Reader<'_>) -> Result<ConnectProperties, Fault> {
    let mut block = Block::open(body)?;
    let mut read = ConnectProperties::default();
    let mut authentication = AuthenticationFields::default();
    while let Some(property) = block.next()? {
        match property {
            Identifier::SessionExpiry => read.session_expiry_s = Some(block.values.u32()?),
            Identifier::ReceiveMaximum => read.receive_maximum = Some(block.nonzero_u16()?),
            Identifier::MaximumPacketSize => read.maximum_packet_size = Some(block.nonzero_u32()?),
            Identifier::TopicAliasMaximum => read.topic_alias_maximum = Some(block.values.u16()?),
            Identifier::RequestResponseInformation => {
                read.request_response_information = Some(block.flag()?);
            }
            Identifier::RequestProblemInformation => {
                read.request_problem_information = Some(block.flag()?);
            }
            Identifier::UserProperty => block.user_property(&mut read.user_properties)?,
            Identifier::AuthenticationMethod => authentication.method = Some(block.values.text()?),
            Identifier::AuthenticationData => {
                authentication.data = Some(block.values.credential()?)
            }
            _ => return Err(Fault::PropertyNotAllowed),
        }
    }
    read.authentication = authentication.join()?;
    Ok(read)
}

pub(super) fn conn_ack(body: &mut Reader<'_>) -> Result<ConnAckProperties, Fault> {
    let mut block = Block::open(body)?;
    let mut read = ConnAckProperties::default();
    let mut authentication = AuthenticationFields::default();
    let mut details = Details::default();
    while let Some(property) = block.next()? {
        match property {
            Identifier::SessionExpiry => read.session_expiry_s = Some(block.values.u32()?),
            Identifier::ReceiveMaximum => read.receive_maximum = Some(block.nonzero_u16()?),
            Identifier::MaximumQos => {
                let at_least_once = block.flag()?;
                read.maximum_qos = QoS::from_u8(at_least_once.into());
            }
            Identifier::RetainAvailable => read.retain_available = Some(block.flag()?),
            Identifier::MaximumPacketSize => read.maximum_packet_size = Some(block.nonzero_u32()?),
            Identifier::AssignedClientId => read.assigned_client_id = Some(block.values.text()?),
            Identifier::TopicAliasMaximum => read.topic_alias_maximum = Some(block.values.u16()?),
            Identifier::WildcardsAvailable => read.wildcards_available = Some(block.flag()?),
            Identifier::SubscriptionIdsAvailable => {
                read.subscription_ids_available = Some(block.flag()?);
            }
            Identifier::SharedAvailable => read.shared_available = Some(block.flag()?),
            Identifier::ServerKeepAlive => read.server_keep_alive_s = Some(block.values.u16()?),
            Identifier::ResponseInformation => {
                read.response_information = Some(block.values.text()?)
            }
            Identifier::ServerReference => read.server_reference = Some(block.values.text()?),
            Identifier::AuthenticationMethod => authentication.method = Some(block.values.text()?),
            Identifier::AuthenticationData => {
                authentication.data = Some(block.values.credential()?)
            }
            Identifier::ReasonString => details.reason_string = Some(block.values.text()?),
            Identifier::UserProperty => block.user_property(&mut details.user_properties)?,
            _ => return Err(Fault::PropertyNotAllowed),
        }
    }
    read.authentication = authentication.join()?;
    read.details = some_details(details);
    Ok(read)
}

/// The properties of a PUBLISH, those of the hop apart from those of the message.
#[derive(Default)]
pub(super) struct PublishProperties {
    pub(super) topic_alias: Option<TopicAlias>,
    pub(super) message_expiry_s: Option<u32>,
    pub(super) subscription_ids: Vec<SubscriptionId>,
    pub(super) message: Option<Arc<MessageProperties>>,
}

pub(super) fn publish(body: &mut Reader<'_>, from: Sender) -> Result<PublishProperties, Fault> {
    let mut block = Block::open(body)?;
    let mut read = PublishProperties::default();
    let mut message = None;
    while let Some(property) = block.next()? {
        match property {
            Identifier::TopicAlias => {
                let alias = TopicAlias::new(block.values.u16()?).ok_or(Fault::ZeroTopicAlias)?;
                read.topic_alias = Some(alias);
            }
            Identifier::MessageExpiry => read.message_expiry_s = Some(block.values.u32()?),
            Identifier::SubscriptionId if from == Sender::Client => {
                return Err(Fault::SubscriptionIdFromClient);
            }
            Identifier::SubscriptionId if read.subscription_ids.len() >= MAX_SUBSCRIPTION_IDS => {
                return Err(Fault::TooManySubscriptionIds);
            }
            Identifier::SubscriptionId => read.subscription_ids.push(block.subscription_id()?),
            property => message_property(property, &mut block, message.get_or_insert_default())?,
        }
    }
    read.message = message.map(Arc::new);
    Ok(read)
}

/// The properties of a will, those of the will apart from those of the message.
#[derive(Default)]
pub(super) struct WillProperties {
    pub(super) delay_s: Option<u32>,
    pub(super) message_expiry_s: Option<u32>,
    pub(super) message: Option<Arc<MessageProperties>>,
}

pub(super) fn will(body: &mut Reader<'_>) -> Result<WillProperties, Fault> {
    let mut block = Block::open(body)?;
    let mut read = WillProperties::default();
    let mut message = None;
    while let Some(property) = block.next()? {
        match property {
            Identifier::WillDelay => read.delay_s = Some(block.values.u32()?),
            Identifier::MessageExpiry => read.message_expiry_s = Some(block.values.u32()?),
            property => message_property(property, &mut block, message.get_or_insert_default())?,
        }
    }
    read.message = message.map(Arc::new);
    Ok(read)
}

fn message_property(
    property: Identifier,
    block: &mut Block<'_>,
    read: &mut MessageProperties,
) -> Result<(), Fault> {
    match property {
        Identifier::PayloadFormat => {
            let utf8 = block.flag()?;
            let format = if utf8 {
                PayloadFormat::Utf8
            } else {
                PayloadFormat::Unspecified
            };
            read.payload_format = Some(format);
        }
        Identifier::ContentType => read.content_type = Some(block.values.text()?),
        Identifier::ResponseTopic => {
            let topic = TopicName::parse(block.values.str()?);
            read.response_topic = Some(topic.map_err(|_| Fault::WildcardInResponseTopic)?);
        }
        Identifier::CorrelationData => read.correlation_data = Some(block.values.binary()?),
        Identifier::UserProperty => block.user_property(&mut read.user_properties)?,
        _ => return Err(Fault::PropertyNotAllowed),
    }
    Ok(())
}

pub(super) fn subscribe(
    body: &mut Reader<'_>,
) -> Result<(Option<SubscriptionId>, UserProperties), Fault> {
    let mut block = Block::open(body)?;
    let mut identifier = None;
    let mut user_properties = UserProperties::default();
    while let Some(property) = block.next()? {
        match property {
            Identifier::SubscriptionId if identifier.is_some() => {
                return Err(Fault::DuplicateProperty);
            }
            Identifier::SubscriptionId => identifier = Some(block.subscription_id()?),
            Identifier::UserProperty => block.user_property(&mut user_properties)?,
            _ => return Err(Fault::PropertyNotAllowed),
        }
    }
    Ok((identifier, user_properties))
}

pub(super) fn unsubscribe(body: &mut Reader<'_>) -> Result<UserProperties, Fault> {
    let mut block = Block::open(body)?;
    let mut user_properties = UserProperties::default();
    while let Some(property) = block.next()? {
        match property {
            Identifier::UserProperty => block.user_property(&mut user_properties)?,
            _ => return Err(Fault::PropertyNotAllowed),
        }
    }
    Ok(user_properties)
}

/// The block of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
pub(super) fn details(body: &mut Reader<'_>) -> Result<Option<Box<Details>>, Fault> {
    let mut block = Block::open(body)?;
    let mut details = Details::default();
    while let Some(property) = block.next()? {
        detail(property, &mut block, &mut details)?;
    }
    Ok(some_details(details))
}

/// The properties of DISCONNECT.
#[derive(Default)]
pub(super) struct DisconnectProperties {
    pub(super) session_expiry_s: Option<u32>,
    pub(super) server_reference: Option<Text>,
    pub(super) details: Option<Box<Details>>,
}

pub(super) fn disconnect(
    body: &mut Reader<'_>,
    from: Sender,
) -> Result<DisconnectProperties, Fault> {
    let mut block = Block::open(body)?;
    let mut read = DisconnectProperties::default();
    let mut details = Details::default();
    while let Some(property) = block.next()? {
        match (property, from) {
            (Identifier::SessionExpiry, Sender::Server) => {
                return Err(Fault::SessionExpiryFromServer);
            }
            (Identifier::ServerReference, Sender::Client) => {
                return Err(Fault::ServerReferenceFromClient);
            }
            (Identifier::SessionExpiry, _) => read.session_expiry_s = Some(block.values.u32()?),
            (Identifier::ServerReference, _) => read.server_reference = Some(block.values.text()?),
            _ => detail(property, &mut block, &mut details)?,
        }
    }
    read.details = some_details(details);
    Ok(read)
}

pub(super) fn auth(body: &mut Reader<'_>) -> Result<(Authentication, Option<Box<Details>>), Fault> {
    let mut block = Block::open(body)?;
    let mut authentication = AuthenticationFields::default();
    let mut details = Details::default();
    while let Some(property) = block.next()? {
        match property {
            Identifier::AuthenticationMethod => authentication.method = Some(block.values.text()?),
            Identifier::AuthenticationData => {
                authentication.data = Some(block.values.credential()?)
            }
            _ => detail(property, &mut block, &mut details)?,
        }
    }
    let authentication = authentication
        .join()?
        .ok_or(Fault::NoAuthenticationMethod)?;
    Ok((authentication, some_details(details)))
}

fn detail(property: Identifier, block: &mut Block<'_>, read: &mut Details) -> Result<(), Fault> {
    match property {
        Identifier::ReasonString => read.reason_string = Some(block.values.text()?),
        Identifier::UserProperty => block.user_property(&mut read.user_properties)?,
        _ => return Err(Fault::PropertyNotAllowed),
    }
    Ok(())
}

fn some_details(details: Details) -> Option<Box<Details>> {
    (details != Details::default()).then(|| Box::new(details))
}
