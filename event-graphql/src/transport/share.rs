//! Subscriptions that many clients ask for in the same words: executed once, and sent to all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::metrics::Gauge;
use async_graphql::parser::types::{OperationType, Selection};
use async_graphql::{Data, Executor, Positioned, Request, Response, ServerError, Variables};
use futures::future::ready;
use futures::stream::{self, BoxStream, StreamExt, unfold};
use serde_json::value::RawValue;
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::running::{Given, Running};
use super::{Resume, Session, Shared, refusal};
use crate::metrics;

/// How many results a client may be behind the others before it goes on by itself.
const WINDOW: usize = 128;

/// What a client asks for, and for whom.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Asked {
    audience: String,
    query: String,
    operation_name: Option<String>,
    /// As JSON.
    variables: String,
}

impl Asked {
    /// The request once more.
    fn request(&self) -> Request {
        let variables: Variables = serde_json::from_str(&self.variables).unwrap_or_default();
        let request = Request::new(&self.query).variables(variables);
        match &self.operation_name {
            Some(name) => request.operation_name(name),
            None => request,
        }
    }
}

/// A result as all clients get it.
pub(super) struct Result {
    pub(super) json: Box<RawValue>,
    pub(super) cursor: Option<String>,
}

/// What clients of one execution hear.
#[derive(Clone)]
enum Told {
    /// It has begun behind this cursor.
    Begun(String),
    Next(Arc<Result>),
    Error(Vec<ServerError>),
    Complete,
    /// It cannot be shared: each client is to execute it by itself. Nothing was told before.
    Private,
}

/// All executions that are shared.
pub(super) struct Shares {
    /// Whose results are shared.
    fields: Vec<String>,
    shares: Mutex<HashMap<Arc<Asked>, Executed>>,
    shared: Gauge,
}

/// An execution, and how many clients it has.
struct Executed {
    share: Arc<Share>,
    clients: usize,
    _stop: DropGuard,
}

/// One execution.
struct Share {
    asked: Arc<Asked>,
    told: broadcast::Sender<Told>,
    /// Where who joins now begins.
    resume: Resume,
}

impl Shares {
    pub(super) fn new(fields: Vec<String>) -> Self {
        Self {
            fields,
            shares: Mutex::default(),
            shared: metrics::shared(),
        }
    }

    /// How many executions are shared.
    pub(super) fn len(&self) -> usize {
        lock(&self.shares).len()
    }

    /// What is asked for, where it may be shared.
    fn asked(&self, request: &mut Request, session: &Session) -> Option<Arc<Asked>> {
        let audience = session.audience.as_ref()?;
        if self.fields.is_empty() || !request.uploads.is_empty() {
            return None;
        }
        let document = request.parsed_query().ok()?;
        let is_shared = document.operations.iter().all(|(_, operation)| {
            operation.node.ty == OperationType::Subscription
                && operation.node.selection_set.node.items.iter().all(|item| {
                    matches!(&item.node, Selection::Field(field)
                        if self.fields.iter().any(|name| *name == field.node.name.node.as_str()))
                })
        });
        if !is_shared {
            return None;
        }
        Some(Arc::new(Asked {
            audience: audience.clone(),
            query: request.query.clone(),
            operation_name: request.operation_name.clone(),
            variables: serde_json::to_string(&request.variables).ok()?,
        }))
    }

    fn leave(&self, share: &Arc<Share>) {
        let mut shares = lock(&self.shares);
        // Another one may have taken the place of an execution that has ended.
        if let Some(executed) = shares.get_mut(&share.asked)
            && Arc::ptr_eq(&executed.share, share)
        {
            executed.clients -= 1;
            if executed.clients == 0 {
                shares.remove(&share.asked);
                self.shared.decrement(1.0);
            }
        }
    }

    /// Tells all clients the last thing, and is done with it: who comes later begins anew.
    fn end(&self, share: &Arc<Share>, last: Told) {
        let mut shares = lock(&self.shares);
        if let Some(executed) = shares.get(&share.asked)
            && Arc::ptr_eq(&executed.share, share)
        {
            shares.remove(&share.asked);
            self.shared.decrement(1.0);
        }
        // Nobody may be there any more.
        let _ = share.told.send(last);
    }
}

impl<E: Executor> Shared<E> {
    /// Runs an operation: by itself, or with all other clients of its audience that ask for the same.
    /// What has a place to [resume](Resume::last_event_id) runs by itself.
    pub(super) fn run(
        self: &Arc<Self>,
        mut request: Request,
        session: &Arc<Session>,
        resume: Option<Resume>,
    ) -> Running {
        if let Some(error) = refusal_of(&mut request) {
            return Running::of(stream::once(ready(Given::Error(vec![error]))).boxed());
        }
        let begins_now = resume
            .as_ref()
            .is_none_or(|resume| resume.last_event_id().is_none());
        match self.shares.asked(&mut request, session) {
            Some(asked) if begins_now => self.join(asked, session),
            _ => self.run_alone(request, session, resume),
        }
    }

    fn run_alone(
        &self,
        request: Request,
        session: &Arc<Session>,
        resume: Option<Resume>,
    ) -> Running {
        let request = match &resume {
            Some(resume) => request.data(resume.clone()),
            None => request,
        };
        let data: Arc<Data> = Arc::clone(&session.data);
        Running::new(self.executor.execute_stream(request, Some(data)), resume)
    }

    fn join(self: &Arc<Self>, asked: Arc<Asked>, session: &Arc<Session>) -> Running {
        let mut shares = lock(&self.shares.shares);
        let executed = shares
            .entry(asked)
            .or_insert_with_key(|asked| self.execute(asked, session));
        executed.clients += 1;
        let (told, last) = (executed.share.told.subscribe(), executed.share.resume.at());
        let view = View {
            share: Arc::clone(&executed.share),
            told,
            transport: Arc::clone(self),
            session: Arc::clone(session),
            begun: last.clone(),
            last,
        };
        Running::of(view.results())
    }

    fn execute(self: &Arc<Self>, asked: &Arc<Asked>, session: &Arc<Session>) -> Executed {
        let share = Arc::new(Share {
            asked: Arc::clone(asked),
            told: broadcast::Sender::new(WINDOW),
            resume: Resume::new(None),
        });
        self.shares.shared.increment(1.0);
        let stop = CancellationToken::new();
        let running = self.run_alone(asked.request(), session, Some(share.resume.clone()));
        let telling = tell_all(Arc::clone(self), Arc::clone(&share), running);
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(telling).await });
        Executed {
            share,
            clients: 0,
            _stop: stop.drop_guard(),
        }
    }
}

/// Why a subscription is refused before it is executed: for what it selects. A request that cannot be parsed is refused
/// when it is executed.
fn refusal_of(request: &mut Request) -> Option<ServerError> {
    let document = request.parsed_query().ok()?;
    let subscriptions = document
        .operations
        .iter()
        .map(|(_, operation)| &operation.node)
        .filter(|operation| operation.ty == OperationType::Subscription);
    for subscription in subscriptions {
        let selected = &subscription.selection_set.node.items;
        if selected.len() > 1 {
            let message = "a subscription has one field, so that there is one place to go on from: subscribe to each by itself";
            return Some(refusal::error("SEVERAL_FIELDS", message));
        }
        let is_field = |item: &Positioned<Selection>| matches!(item.node, Selection::Field(_));
        if !selected.iter().all(is_field) {
            // It would be executed as if there were nothing.
            let message = "the field of a subscription is not taken from a fragment: write it into the operation itself; what is selected of it may be a fragment";
            return Some(refusal::error("FIELD_IN_FRAGMENT", message));
        }
    }
    None
}

/// Tells all clients what an execution gives, until its end.
async fn tell_all<E: Executor>(transport: Arc<Shared<E>>, share: Arc<Share>, mut running: Running) {
    let last = loop {
        let given = tokio::select! {
            biased;
            () = share.resume.private().cancelled() => break Told::Private,
            given = running.next() => given,
        };
        // It may have been said in the course of the first.
        if share.resume.private().is_cancelled() {
            break Told::Private;
        }
        match given {
            Some(Given::Next(response, cursor)) => match written(&response) {
                Ok(json) => {
                    let result = Arc::new(Result { json, cursor });
                    // Who joins reads the place before, or hears this.
                    let _shares = lock(&transport.shares.shares);
                    share.resume.move_to(result.cursor.as_deref());
                    let _ = share.told.send(Told::Next(result));
                }
                Err(error) => {
                    tracing::error!(%error, "a response cannot be written as JSON, and its subscription is ended");
                    let message = "the operation failed by a mistake of the server";
                    break Told::Error(vec![refusal::error("INTERNAL", message)]);
                }
            },
            Some(Given::Begun(cursor)) => {
                let _ = share.told.send(Told::Begun(cursor));
            }
            Some(Given::Shared(result)) => {
                let _ = share.told.send(Told::Next(result));
            }
            Some(Given::Error(errors)) => break Told::Error(errors),
            None => break Told::Complete,
        }
    };
    transport.shares.end(&share, last);
}

fn written(response: &Response) -> serde_json::Result<Box<RawValue>> {
    serde_json::value::to_raw_value(response)
}

/// One client of a shared execution.
struct View<E: Executor> {
    share: Arc<Share>,
    told: broadcast::Receiver<Told>,
    transport: Arc<Shared<E>>,
    session: Arc<Session>,
    /// The cursor behind which it begins for the client, who has not been told yet.
    begun: Option<String>,
    /// The cursor behind what the client has got.
    last: Option<String>,
}

/// How a client gets its results.
enum Way<E: Executor> {
    Together(View<E>),
    Alone(Box<Running>),
    Ended,
}

impl<E: Executor> View<E> {
    fn results(self) -> BoxStream<'static, Given> {
        unfold(Way::Together(self), |mut way| async move {
            loop {
                way = match way {
                    Way::Together(mut view) if view.begun.is_some() => {
                        let begun = view.begun.take();
                        return begun.map(|cursor| (Given::Begun(cursor), Way::Together(view)));
                    }
                    Way::Together(mut view) => match view.told.recv().await {
                        Ok(Told::Begun(cursor)) => {
                            // Who has joined later has a place that is not before this one.
                            if view.last.is_none() {
                                view.last = Some(cursor.clone());
                                view.begun = Some(cursor);
                            }
                            Way::Together(view)
                        }
                        Ok(Told::Next(result)) => {
                            view.last.clone_from(&result.cursor);
                            return Some((Given::Shared(result), Way::Together(view)));
                        }
                        Ok(Told::Error(errors)) => {
                            return Some((Given::Error(errors), Way::Ended));
                        }
                        Ok(Told::Complete) => return None,
                        Ok(Told::Private) => Way::Alone(Box::new(view.alone(None))),
                        Err(broadcast::error::RecvError::Lagged(_)) => match view.behind() {
                            Some(cursor) => Way::Alone(Box::new(view.alone(Some(cursor)))),
                            None => {
                                let message = "the client has fallen behind; subscribe anew";
                                let error = refusal::error("TOO_SLOW", message);
                                return Some((Given::Error(vec![error]), Way::Ended));
                            }
                        },
                        // The view holds what tells.
                        Err(broadcast::error::RecvError::Closed) => return None,
                    },
                    Way::Alone(mut running) => {
                        let given = running.next().await?;
                        return Some((given, Way::Alone(running)));
                    }
                    Way::Ended => return None,
                }
            }
        })
        .boxed()
    }

    /// The cursor behind which lies what the client has not got.
    fn behind(&self) -> Option<String> {
        // Who has joined before it had begun has got nothing.
        self.last.clone().or_else(|| self.share.resume.began())
    }

    /// Executes by itself, behind a cursor or from now on.
    fn alone(&self, behind: Option<String>) -> Running {
        let request = self.share.asked.request();
        let resume = Some(Resume::new(behind));
        self.transport.run_alone(request, &self.session, resume)
    }
}

impl<E: Executor> Drop for View<E> {
    fn drop(&mut self) {
        self.transport.shares.leave(&self.share);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
