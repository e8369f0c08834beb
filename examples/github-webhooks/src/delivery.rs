//! Deliveries: what one line of a file holds.

use std::borrow::Cow;
use std::str::Utf8Error;

use uuid::Uuid;

use crate::json::{Json, NotJson};
use crate::signature::{SignatureError, Signatures};

/// What ids of deliveries are made in, where GitHub's own are no uuids: the uuid v5 of
/// `https://docs.github.com/webhooks` as a URL.
const NAMESPACE: Uuid = Uuid::from_u128(0xf876_aff1_a581_552a_a0cc_e3ab_9a46_274d);

/// The longest name of an event that is taken in. GitHub's longest has 36 letters.
const MAX_NAME_BYTES: usize = 64;

/// How much of something odd a reason quotes, in characters.
const QUOTED: usize = 40;

/// A delivery of a webhook: `{"name": "push", "payload": {…}}`, optionally with `delivery`, and
/// with the bytes that were sent as `body` and their `signature`.
#[derive(Clone, Debug)]
pub struct Delivery<'a> {
    name: String,
    event_id: Uuid,
    delivery: Option<String>,
    payload: Cow<'a, str>,
}

impl<'a> Delivery<'a> {
    /// Reads a line, and checks its signature.
    ///
    /// # Errors
    /// [`DeliveryError`], which is the reason why the line is not taken in.
    pub fn read(line: &'a [u8], signatures: &Signatures) -> Result<Self, DeliveryError> {
        let text = std::str::from_utf8(line)?;
        let json = Json::parse(text)?;
        if !json.is_object() {
            return Err(DeliveryError::NoObject);
        }
        let [name, payload, body, delivery, signature] =
            json.fields(["name", "payload", "body", "delivery", "signature"]);
        if body.is_some() && body.string().is_none() {
            return Err(DeliveryError::OddBody);
        }
        // What was signed is what counts, whatever else the line says.
        let body = body.string();
        let signature = signature
            .is_some()
            .then(|| signature.text().unwrap_or_default());
        signatures.check(body.as_deref(), signature.as_deref())?;

        let name = name.string().ok_or(DeliveryError::NoName)?;
        let payload = match (body, payload.raw()) {
            (Some(body), _) => Cow::Owned(body),
            (None, Some(payload)) => Cow::Borrowed(payload),
            (None, None) => return Err(DeliveryError::NoPayload),
        };
        let delivery = delivery.text().filter(|delivery| !delivery.is_empty());
        Self::of(name, delivery, payload)
    }

    /// What a request has brought: the headers `X-GitHub-Event` and `X-GitHub-Delivery`, and the body, whose
    /// signature was [checked](crate::signature::Secret::verify) before.
    ///
    /// # Errors
    /// [`DeliveryError`], which is the reason why it is not taken in.
    pub fn received(
        name: impl Into<String>,
        delivery: Option<String>,
        body: &'a [u8],
    ) -> Result<Self, DeliveryError> {
        Self::of(
            name.into(),
            delivery,
            Cow::Borrowed(std::str::from_utf8(body)?),
        )
    }

    fn of(
        name: String,
        delivery: Option<String>,
        payload: Cow<'a, str>,
    ) -> Result<Self, DeliveryError> {
        let name = event_name(name)?;
        let is_object = Json::parse(&payload)
            .map_err(DeliveryError::Payload)?
            .is_object();
        if !is_object {
            return Err(DeliveryError::OddPayload);
        }
        Ok(Self {
            event_id: event_id(delivery.as_deref(), &name, &payload),
            name,
            delivery,
            payload,
        })
    }

    /// The same, delivered under another id: another event.
    pub fn delivered_as(self, delivery: String) -> Self {
        Self {
            event_id: event_id(Some(&delivery), &self.name, &self.payload),
            delivery: Some(delivery),
            ..self
        }
    }

    /// The name of GitHub's event, such as `pull_request`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the event that the delivery becomes. The same delivery gives the same id each time.
    pub fn event_id(&self) -> Uuid {
        self.event_id
    }

    /// The id that GitHub gave the delivery, if it is known.
    pub fn delivery(&self) -> Option<&str> {
        self.delivery.as_deref()
    }

    /// What GitHub tells.
    pub fn payload(&self) -> Json<'_> {
        // It has been read as JSON before.
        Json::parse(&self.payload).unwrap_or_default()
    }
}

/// Checks that a name can be part of an event type, as all of GitHub's can.
fn event_name(name: String) -> Result<String, DeliveryError> {
    if is_word(&name) {
        Ok(name)
    } else {
        Err(DeliveryError::OddName { name: quote(&name) })
    }
}

/// Whether a name or an action can be a segment of an event type.
pub(crate) fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// As much of a text as fits into a reason.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTED).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    quoted.escape_debug().to_string()
}

/// GitHub's own id where it is a uuid; else one made of it; else one made of what the delivery says,
/// so that two that say the same are one.
fn event_id(delivery: Option<&str>, name: &str, payload: &str) -> Uuid {
    match delivery {
        Some(delivery) => Uuid::try_parse(delivery)
            .unwrap_or_else(|_| Uuid::new_v5(&NAMESPACE, delivery.as_bytes())),
        None => {
            let content = [name.as_bytes(), b"\0", payload.as_bytes()].concat();
            Uuid::new_v5(&NAMESPACE, &content)
        }
    }
}

/// Why a line is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// It is longer than a delivery can be.
    #[error("the line is longer than {limit} bytes, and GitHub sends payloads of at most 25 MB")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// It is no text.
    #[error("not UTF-8 at byte {}", .0.valid_up_to() + 1)]
    NotUtf8(#[from] Utf8Error),
    /// It is not JSON, or cut off.
    #[error(transparent)]
    NotJson(#[from] NotJson),
    /// It is JSON, but no object.
    #[error("no delivery; write an object such as {{\"name\": \"push\", \"payload\": {{…}}}}")]
    NoObject,
    /// It does not say which event it is.
    #[error("`name` is missing; give the event that stands in the header `X-GitHub-Event`")]
    NoName,
    /// The name is none of GitHub's.
    #[error(
        "`{name}` is no event of GitHub's; their names are up to {MAX_NAME_BYTES} lower-case letters, digits and `_`"
    )]
    OddName {
        /// What was given.
        name: String,
    },
    /// The action is none of GitHub's.
    #[error("`{action}` is no action of GitHub's; they are written as names of events are")]
    OddAction {
        /// What was given.
        action: String,
    },
    /// It says nothing.
    #[error("there is neither `payload` nor `body`")]
    NoPayload,
    /// What was sent is given as something else than text.
    #[error("`body` is no text; give the bytes that were sent as one string")]
    OddBody,
    /// What was sent is not JSON.
    #[error("`body`: {0} (the webhook's content type must be application/json)")]
    Payload(#[source] NotJson),
    /// The payload is no object.
    #[error("the payload is no object")]
    OddPayload,
    /// It is not shown to come from GitHub.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// An event of a repository that does not say which.
    #[error("a delivery of `{name}` without `repository.full_name`")]
    NoRepository {
        /// The event's name.
        name: String,
    },
    /// A name that no repository can have.
    #[error("the name of the repository has {bytes} bytes; at most {limit} are allowed")]
    LongRepository {
        /// Its length.
        bytes: usize,
        /// The most there may be.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::Secret;

    fn read(line: &str) -> Result<Delivery<'_>, DeliveryError> {
        Delivery::read(line.as_bytes(), &Signatures::Unchecked)
    }

    fn reason(line: &str) -> String {
        read(line).unwrap_err().to_string()
    }

    #[test]
    fn ids_say_which_delivery_it_is() {
        let id = |line| read(line).unwrap().event_id();
        let uuid = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
        let given = format!(r#"{{"name": "push", "delivery": "{uuid}", "payload": {{}}}}"#);
        assert_eq!(id(&given).to_string(), uuid);

        let own = id(r#"{"name": "push", "delivery": "no 7", "payload": {"a": 1}}"#);
        assert_eq!(
            own,
            id(r#"{"payload": {"a": 2}, "delivery": "no 7", "name": "push"}"#)
        );

        let hashed = id(r#"{"name": "push", "payload": {"a": 1}}"#);
        assert_eq!(
            hashed,
            id(r#"{"payload": {"a": 1}, "name": "push", "more": 3}"#)
        );
        assert_eq!(
            hashed,
            id(r#"{"name": "push", "body": "{\"a\": 1}", "delivery": null}"#)
        );
        assert_ne!(hashed, id(r#"{"name": "push", "payload": {"a": 2}}"#));
        assert_ne!(hashed, id(r#"{"name": "star", "payload": {"a": 1}}"#));
        assert_ne!(hashed, own);
    }

    #[test]
    fn every_odd_line_has_its_reason() {
        for (line, expected) in [
            ("[]", "no delivery; write an object"),
            ("null", "no delivery"),
            ("{}", "`name` is missing"),
            (r#"{"name": 3, "payload": {}}"#, "`name` is missing"),
            (r#"{"name": "", "payload": {}}"#, "`` is no event"),
            (r#"{"name": "a.b", "payload": {}}"#, "`a.b` is no event"),
            (
                r#"{"name": "Push\n", "payload": {}}"#,
                r"`Push\n` is no event",
            ),
            (r#"{"name": "push"}"#, "there is neither"),
            (
                r#"{"name": "push", "payload": []}"#,
                "the payload is no object",
            ),
            (
                r#"{"name": "push", "payload": null}"#,
                "the payload is no object",
            ),
            (r#"{"name": "push", "body": {}}"#, "`body` is no text"),
            (
                r#"{"name": "push", "body": "payload=%7B"}"#,
                "`body`: not JSON at column 1",
            ),
            (r#"{"name": "push", "payload": {"#, "the JSON is cut off"),
            (
                r#"{"name": "push", "payload": {}} x"#,
                "not JSON at column 33",
            ),
        ] {
            let reason = reason(line);
            assert!(reason.starts_with(expected), "{line}: {reason}");
        }
        let not_utf8 = Delivery::read(b"{\"name\": \"\xff\"}", &Signatures::Unchecked);
        assert_eq!(not_utf8.unwrap_err().to_string(), "not UTF-8 at byte 11");
        assert!(reason(&format!(r#"{{"name": "{}"}}"#, "x".repeat(9999))).len() < 200);
    }

    #[test]
    fn what_was_signed_counts() {
        let secret = Secret::new("Jefe").unwrap();
        let line = r#"{"name": "push", "payload": {"a": 1}, "body": "what do ya want for nothing?",
            "signature": "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"}"#;
        let read = |line: &str| {
            Delivery::read(line.as_bytes(), &Signatures::Required(secret.clone()))
                .map(|delivery| delivery.name().to_owned())
        };
        // The signature is right, but what was signed is no payload.
        assert!(matches!(read(line), Err(DeliveryError::Payload(_))));
        let wrong = line.replace("5bdc", "5bdd");
        assert_eq!(read(&wrong), Err(SignatureError::Wrong.into()));
        assert_eq!(
            read(r#"{"name": "push", "payload": {"a": 1}}"#),
            Err(SignatureError::Missing.into())
        );
    }
}
