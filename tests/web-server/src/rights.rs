//! Who may see what.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, header};
use event_graphql::{Init, Refusal, Session};
use tokio_util::sync::CancellationToken;

/// The token that is known to nobody.
const WRONG: &str = "wrong";

/// Lets a socket in, unless its token is wrong.
pub(crate) async fn on_init(init: Init) -> Result<Session, Refusal> {
    let token = init
        .payload
        .as_ref()
        .and_then(|payload| payload["token"].as_str());
    match token {
        Some(WRONG) => Err(Refusal::Forbidden("the token is wrong".into())),
        _ => Ok(everybody()),
    }
}

/// Lets a request for server-sent events in, unless its token is wrong.
pub(crate) async fn on_sse(headers: HeaderMap) -> Result<Session, Refusal> {
    let token = headers.get(header::AUTHORIZATION);
    match token.and_then(|token| token.to_str().ok()) {
        Some(WRONG) => Err(Refusal::Unauthenticated("the token is wrong".into())),
        _ => Ok(everybody()),
    }
}

/// What everybody may see who is let in is the same.
fn everybody() -> Session {
    Session::default().audience("everybody")
}

/// The rights of all users, each until it is revoked.
#[derive(Clone, Default)]
pub(crate) struct Rights(Arc<Mutex<HashMap<String, CancellationToken>>>);

impl Rights {
    /// Cancelled when the user's right is revoked.
    pub(crate) fn of(&self, user: &str) -> CancellationToken {
        self.users().entry(user.to_owned()).or_default().clone()
    }

    pub(crate) fn revoke(&self, user: &str) {
        self.of(user).cancel();
    }

    fn users(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
