//! Signatures: whether GitHub, or somebody else who knows the secret, sent a delivery.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What the header `X-Hub-Signature-256` begins with.
const SCHEME: &str = "sha256=";

/// The secret that a webhook was set up with.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// Takes a secret.
    ///
    /// # Errors
    /// [`EmptySecret`] where there is none in it.
    pub fn new(secret: &str) -> Result<Self, EmptySecret> {
        if secret.is_empty() {
            return Err(EmptySecret);
        }
        // A key may have any length.
        Hmac::new_from_slice(secret.as_bytes())
            .map(Self)
            .map_err(|_| EmptySecret)
    }

    /// Checks the signature of a body, as GitHub writes it into `X-Hub-Signature-256`. The time that
    /// takes tells nothing about where they differ.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, body: &[u8], signature: &str) -> Result<(), SignatureError> {
        let digest = signature
            .strip_prefix(SCHEME)
            .and_then(|digits| hex::decode(digits).ok())
            .ok_or(SignatureError::Malformed)?;
        let mut mac = self.0.clone();
        mac.update(body);
        mac.verify_slice(&digest).map_err(|_| SignatureError::Wrong)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret without a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret is empty; give the one that the webhook was set up with, or none at all")]
pub struct EmptySecret;

/// Which deliveries must be signed.
#[derive(Clone, Debug, Default)]
pub enum Signatures {
    /// None: there is no secret to check them with.
    #[default]
    Unchecked,
    /// Those that bring a signature must bring a right one.
    WhereGiven(Secret),
    /// All.
    Required(Secret),
}

impl Signatures {
    /// Checks what a delivery brings.
    ///
    /// # Errors
    /// [`SignatureError`] where that is not enough.
    pub fn check(&self, body: Option<&str>, signature: Option<&str>) -> Result<(), SignatureError> {
        let secret = match (self, signature) {
            (Signatures::Unchecked, _) | (Signatures::WhereGiven(_), None) => return Ok(()),
            (Signatures::Required(_), None) => return Err(SignatureError::Missing),
            (Signatures::WhereGiven(secret) | Signatures::Required(secret), Some(_)) => secret,
        };
        match (body, signature) {
            (Some(body), Some(signature)) => secret.verify(body.as_bytes(), signature),
            _ => Err(SignatureError::NoBody),
        }
    }
}

/// A delivery that is not shown to come from who knows the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is no signature.
    #[error(
        "not signed, and a secret is set; send the header X-Hub-Signature-256 that is made with the webhook's secret, or give `body` and `signature` where deliveries are read from a file"
    )]
    Missing,
    /// There is a signature and nothing it could be of.
    #[error("a signature is of the bytes that were sent; give them as `body`")]
    NoBody,
    /// It is not in the form that GitHub uses.
    #[error("the signature is not `sha256=` and hexadecimal digits")]
    Malformed,
    /// It belongs to another body or another secret.
    #[error("the signature is wrong: another secret, or the body was changed")]
    Wrong,
}

#[cfg(test)]
mod tests {
    use super::*;

    // HMAC-SHA256, test case 2 of RFC 4231.
    const KEY: &str = "Jefe";
    const BODY: &str = "what do ya want for nothing?";
    const SIGNATURE: &str =
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    #[test]
    fn a_right_signature_is_of_this_body_and_this_secret() {
        let secret = Secret::new(KEY).unwrap();
        assert_eq!(secret.verify(BODY.as_bytes(), SIGNATURE), Ok(()));
        let wrong = Err(SignatureError::Wrong);
        assert_eq!(secret.verify(b"what do ya want?", SIGNATURE), wrong);
        assert_eq!(secret.verify(BODY.as_bytes(), &SIGNATURE[..69]), wrong);
        assert_eq!(secret.verify(BODY.as_bytes(), "sha256="), wrong);
        let other = Secret::new("jefe").unwrap();
        assert_eq!(other.verify(BODY.as_bytes(), SIGNATURE), wrong);
        for malformed in ["", "sha1=00", &SIGNATURE[7..], "sha256=xyz", "sha256=5"] {
            assert_eq!(
                secret.verify(BODY.as_bytes(), malformed),
                Err(SignatureError::Malformed),
                "{malformed}"
            );
        }
    }

    #[test]
    fn what_must_be_signed_depends_on_the_secret() {
        let secret = Secret::new(KEY).unwrap();
        let (body, good, bad) = (Some(BODY), Some(SIGNATURE), Some("sha256=00"));
        let unchecked = Signatures::Unchecked;
        assert_eq!(unchecked.check(body, bad), Ok(()));
        let given = Signatures::WhereGiven(secret.clone());
        assert_eq!(given.check(body, None), Ok(()));
        assert_eq!(given.check(body, good), Ok(()));
        assert_eq!(given.check(body, bad), Err(SignatureError::Wrong));
        assert_eq!(given.check(None, good), Err(SignatureError::NoBody));
        let required = Signatures::Required(secret);
        assert_eq!(required.check(body, None), Err(SignatureError::Missing));
        assert_eq!(required.check(None, None), Err(SignatureError::Missing));
        assert_eq!(required.check(body, good), Ok(()));
    }

    #[test]
    fn a_secret_is_not_empty_and_not_shown() {
        assert!(matches!(Secret::new(""), Err(EmptySecret)));
        assert!(!format!("{:?}", Secret::new(KEY).unwrap()).contains(KEY));
    }
}
