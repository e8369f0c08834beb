//! Connections, and what keeps them alive.
//!
//! A connection is made by a [`Connector`], which resolves the address anew each time. A [`Link`] is
//! a connection that many callers share and that is replaced when it breaks: by one task, without
//! end, with growing pauses. [`Links`] are some links to one server that take turns, and
//! [`Connections`] are those to the only server, or to every primary of a cluster. Whoever asks
//! something of them asks again until the store's patience is over.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use event_core::{StoreError, metrics};
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    Pipeline, ProtocolVersion, RedisError, Value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

#[cfg(feature = "cluster")]
use crate::cluster::Cluster;
use crate::error::{ConnectError, Remedy, refused, remedy, unavailable};
use crate::scripts::Script;
use crate::tap::{Tap, Tapped};

/// How long one try to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one reply may take, before the connection is thought to be dead.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a connection is asked whether it is alive.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(3);

/// The pauses between tries grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Commands that wait for the connection's task. The client's own 50 let 64 callers wait twice.
const QUEUED_COMMANDS: usize = 1_024;

/// Bytes that are gathered before they are written. With the client's own 8 KiB, some twenty appends
/// fill it.
const GATHERED_BYTES: usize = 64 * 1024;

/// Pauses that grow, without end.
pub(crate) fn pauses() -> ExponentialBackoff {
    pauses_up_to(PAUSES.1)
}

/// Pauses that grow up to this one, without end.
pub(crate) fn pauses_up_to(longest: Duration) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSES.0)
        .with_max_delay(longest)
        .without_max_times()
        .with_jitter()
        .build()
}

/// The next of some pauses, which do not end.
pub(crate) fn next_pause(pauses: &mut ExponentialBackoff) -> Duration {
    pauses.next().unwrap_or(PAUSES.1)
}

/// Ends a task when it is dropped.
#[derive(Debug)]
pub(crate) struct AbortOnDrop<T = ()>(pub(crate) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Where the server is, without the secrets that a URL may hold.
#[derive(Clone, Debug)]
pub(crate) struct Address(String);

impl Address {
    fn of(info: &ConnectionInfo) -> Self {
        let addr = info.addr();
        Self(match addr {
            ConnectionAddr::Tcp(..) => format!("redis://{addr}"),
            ConnectionAddr::Unix(_) => format!("redis+unix://{addr}"),
            _ => format!("rediss://{addr}"),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Connector {
    address: Address,
    commands: Client,
    pushes: Client,
}

impl Connector {
    pub(crate) fn new(url: &str, root_certificate: Option<Vec<u8>>) -> Result<Self, ConnectError> {
        let info = parse(url)?;
        let address = Address::of(&info);
        let client = |protocol| {
            let settings = info.redis_settings().clone().set_protocol(protocol);
            let tcp = TcpSettings::default().set_nodelay(true);
            let info = info
                .clone()
                .set_redis_settings(settings)
                .set_tcp_settings(tcp);
            open(info, root_certificate.clone())
        };
        Ok(Self {
            address,
            commands: client(ProtocolVersion::RESP2)?,
            pushes: client(ProtocolVersion::RESP3)?,
        })
    }

    /// Makes connections to another node of a cluster, with all that is known of how to connect.
    #[cfg(feature = "cluster")]
    pub(crate) fn at(&self, host: &str, port: u16) -> Result<Self, RedisError> {
        let at = |addr: &ConnectionAddr| match addr {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        let client = |client: &Client| {
            let info = client.get_connection_info();
            Client::open(info.clone().set_addr(at(info.addr())))
        };
        let commands = client(&self.commands)?;
        Ok(Self {
            address: Address::of(commands.get_connection_info()),
            commands,
            pushes: client(&self.pushes)?,
        })
    }

    /// The name of the host, for nodes of a cluster that do not know their own; empty for a socket.
    #[cfg(feature = "cluster")]
    pub(crate) fn host(&self) -> &str {
        match self.commands.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => "",
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn user(&self) -> &str {
        let settings = self.commands.get_connection_info().redis_settings();
        settings.username().unwrap_or("default")
    }

    /// A connection for commands that take no longer than `response_timeout`.
    pub(crate) async fn connect(
        &self,
        response_timeout: Duration,
    ) -> Result<MultiplexedConnection, RedisError> {
        self.open(&self.commands, config(response_timeout)).await
    }

    /// A connection for reads that take no longer than `response_timeout`, and what opens the tap in
    /// it, where it has one.
    ///
    /// Where the stream is encrypted, the client opens it, and has no place for a tap.
    pub(crate) async fn connect_for_reading(
        &self,
        response_timeout: Duration,
    ) -> Result<(MultiplexedConnection, Option<(Tap, AbortOnDrop)>), RedisError> {
        let connecting = async {
            match self.commands.get_connection_info().addr() {
                ConnectionAddr::Tcp(host, port) => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await?;
                    stream.set_nodelay(true)?;
                    self.tap(stream, response_timeout).await
                }
                #[cfg(unix)]
                ConnectionAddr::Unix(path) => {
                    let stream = tokio::net::UnixStream::connect(path).await?;
                    self.tap(stream, response_timeout).await
                }
                _ => Ok((self.connect(response_timeout).await?, None)),
            }
        };
        timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|elapsed| Err(std::io::Error::from(elapsed).into()))
    }

    async fn tap(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        response_timeout: Duration,
    ) -> Result<(MultiplexedConnection, Option<(Tap, AbortOnDrop)>), RedisError> {
        let tap = Tap::default();
        let stream = Tapped::new(stream, tap.clone());
        let settings = self.commands.get_connection_info().redis_settings();
        let config = config(response_timeout);
        let (mut connection, driver) =
            MultiplexedConnection::new_with_config(settings, stream, config).await?;
        let driver = AbortOnDrop(tokio::spawn(driver));
        ping(&mut connection).await?;
        Ok((connection, Some((tap, driver))))
    }

    /// A connection on which the server speaks unasked.
    pub(crate) async fn connect_for_pushes(
        &self,
        sender: impl AsyncPushSender,
    ) -> Result<MultiplexedConnection, RedisError> {
        let config = config(RESPONSE_TIMEOUT).set_push_sender(sender);
        self.open(&self.pushes, config).await
    }

    async fn open(
        &self,
        client: &Client,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        // A server that lets everybody connect may still want a password, or be loading its data.
        ping(&mut connection).await?;
        Ok(connection)
    }
}

fn config(response_timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response_timeout))
        .set_pipeline_buffer_size(QUEUED_COMMANDS)
        .set_write_backpressure_boundary(GATHERED_BYTES)
}

fn parse(url: &str) -> Result<ConnectionInfo, ConnectError> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if matches!(scheme, "rediss" | "valkeys") {
        if cfg!(not(feature = "tls")) {
            let rest = url.split_once("://").map_or("", |(_, rest)| rest);
            let place = rest.rsplit('@').next().unwrap_or_default();
            let host = place.split(['/', '?', '#']).next().unwrap_or_default();
            return Err(ConnectError::WithoutTls {
                address: format!("rediss://{host}"),
            });
        }
        choose_cryptography();
    }
    url.into_connection_info().map_err(invalid_url)
}

fn open(info: ConnectionInfo, root_certificate: Option<Vec<u8>>) -> Result<Client, ConnectError> {
    #[cfg(feature = "tls")]
    if let Some(pem) = root_certificate {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;

        let invalid = |reason| ConnectError::InvalidCertificate { reason };
        // The client takes a text without certificates for one that trusts nobody.
        if CertificateDer::pem_slice_iter(&pem).next().is_none() {
            return Err(invalid("there is none in the text".to_owned()));
        }
        let certificates = redis::TlsCertificates {
            client_tls: None,
            root_cert: Some(pem),
        };
        return Client::build_with_tls(info, certificates)
            .map_err(|error| invalid(error.to_string()));
    }
    // Without the feature nobody can have given one.
    #[cfg(not(feature = "tls"))]
    drop(root_certificate);
    Client::open(info).map_err(invalid_url)
}

/// The client leaves the cryptography open, and rustls panics where several are possible and none
/// is chosen.
fn choose_cryptography() {
    #[cfg(feature = "tls")]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may be faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn invalid_url(error: RedisError) -> ConnectError {
    ConnectError::InvalidUrl {
        reason: error.to_string(),
    }
}

/// Makes sure that the other side answers.
pub(crate) async fn ping(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    match connection.send_packed_command(&redis::cmd("PING")).await? {
        Value::ServerError(error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// A connection that is in use.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) connection: MultiplexedConnection,
    /// Tells connections apart, so that a late report does not end the next one.
    pub(crate) number: u64,
}

impl Live {
    /// Makes a script known to the server. Whether it worked is seen when it is called again.
    pub(crate) async fn load(&mut self, script: &Script) {
        let _ = self.connection.send_packed_command(&script.load()).await;
    }
}

enum State {
    Up(Live),
    Down(Option<RedisError>),
}

/// What the callers of a link and its task share.
struct Shared {
    state: watch::Sender<State>,
    broken: Notify,
}

impl Shared {
    /// Takes a connection out of use.
    fn report(&self, number: u64, error: RedisError) {
        let is_newest = self.state.send_if_modified(|state| {
            let is_newest = matches!(state, State::Up(live) if live.number == number);
            if is_newest {
                *state = State::Down(Some(error));
            }
            is_newest
        });
        if is_newest {
            self.broken.notify_one();
        }
    }
}

/// One connection that many callers share, and that is replaced when it breaks.
pub(crate) struct Link {
    connector: Connector,
    response_timeout: Duration,
    shared: Arc<Shared>,
    supervisor: Mutex<Option<AbortOnDrop>>,
}

impl Link {
    fn new(connector: Connector, response_timeout: Duration) -> Self {
        Self {
            connector,
            response_timeout,
            shared: Arc::new(Shared {
                state: watch::Sender::new(State::Down(None)),
                broken: Notify::new(),
            }),
            supervisor: Mutex::new(None),
        }
    }

    /// The connection, if it is in use.
    pub(crate) fn live(&self) -> Option<Live> {
        match &*self.shared.state.borrow() {
            State::Up(live) => Some(live.clone()),
            State::Down(_) => None,
        }
    }

    /// Whether the last try to connect has failed, or the connection has broken.
    #[cfg(feature = "cluster")]
    pub(crate) fn is_broken(&self) -> bool {
        matches!(&*self.shared.state.borrow(), State::Down(Some(_)))
    }

    /// The connection, as soon as there is one.
    pub(crate) async fn wait(&self, attempts: &mut Attempts) -> Result<Live, StoreError> {
        let mut states = self.shared.state.subscribe();
        loop {
            self.keep_supervised();
            {
                let state = states.borrow_and_update();
                match &*state {
                    State::Up(live) => return Ok(live.clone()),
                    State::Down(Some(error)) => attempts.note(error)?,
                    State::Down(None) => {}
                }
            }
            let deadline = attempts.deadline();
            // The supervisor is looked after now and then, since a state that nobody changes any
            // more would never tell.
            let look_again = deadline.min(Instant::now() + PING_INTERVAL);
            let waited = timeout_at(look_again, states.changed()).await;
            if waited.is_err() && Instant::now() >= deadline {
                return Err(attempts.over());
            }
        }
    }

    /// Takes a connection out of use.
    pub(crate) fn report(&self, number: u64, error: RedisError) {
        self.shared.report(number, error);
    }

    /// Starts the supervisor, if it does not run: at first, or after the runtime it ran on has
    /// ended.
    fn keep_supervised(&self) {
        let mut supervisor = self
            .supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if supervisor.as_ref().is_none_or(|task| task.0.is_finished()) {
            let task = supervise(
                Arc::clone(&self.shared),
                self.connector.clone(),
                self.response_timeout,
            );
            *supervisor = Some(AbortOnDrop(tokio::spawn(task)));
        }
    }
}

/// Connects, watches the connection until it breaks, and connects again, without end.
async fn supervise(shared: Arc<Shared>, connector: Connector, response_timeout: Duration) {
    let mut number = 0;
    loop {
        let mut pauses = pauses();
        let mut reported = false;
        let mut connection = loop {
            match connector.connect(response_timeout).await {
                Ok(connection) => break connection,
                Err(error) => {
                    if !reported {
                        tracing::warn!(address = %connector.address, %error, "cannot connect; trying until it works");
                        reported = true;
                    }
                    let pause = next_pause(&mut pauses);
                    shared.state.send_replace(State::Down(Some(error)));
                    sleep(pause).await;
                }
            }
        };
        number += 1;
        if number > 1 {
            metrics::reconnects(&connector.address.to_string()).increment(1);
        }
        tracing::debug!(address = %connector.address, number, "connected");
        shared.state.send_replace(State::Up(Live {
            connection: connection.clone(),
            number,
        }));
        loop {
            tokio::select! {
                () = shared.broken.notified() => {}
                () = sleep(PING_INTERVAL) => {
                    if let Err(error) = ping(&mut connection).await
                        && remedy(&error) == Remedy::Reconnect
                    {
                        shared.report(number, error);
                    }
                }
            }
            if matches!(&*shared.state.borrow(), State::Down(_)) {
                tracing::warn!(address = %connector.address, number, "the connection is lost; connecting again");
                break;
            }
        }
    }
}

/// What is asked of the server in one go.
pub(crate) enum Request<'a> {
    Command(&'a Cmd),
    /// Answered with an array of the replies, some of which may be errors that asking again would not
    /// mend.
    Pipeline(&'a Pipeline),
}

impl Request<'_> {
    pub(crate) async fn send(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Value, RedisError> {
        match self {
            Request::Command(command) => match connection.send_packed_command(command).await? {
                Value::ServerError(error) => Err(error.into()),
                value => Ok(value),
            },
            Request::Pipeline(pipeline) => {
                let replies = connection
                    .send_packed_commands(pipeline, 0, pipeline.len())
                    .await?;
                for reply in &replies {
                    if let Value::ServerError(error) = reply {
                        let error = error.clone().into();
                        if remedy(&error) != Remedy::Nothing {
                            return Err(error);
                        }
                    }
                }
                Ok(Value::Array(replies))
            }
        }
    }
}

/// Links to one server that take turns.
pub(crate) struct Links {
    connector: Connector,
    links: Vec<Link>,
    turn: AtomicUsize,
    patience: Duration,
}

impl Links {
    /// Some links, which connect at once.
    pub(crate) fn new(connector: &Connector, count: usize, patience: Duration) -> Self {
        let response_timeout = RESPONSE_TIMEOUT.min(patience);
        Self {
            connector: connector.clone(),
            links: (0..count.max(1))
                .map(|_| {
                    let link = Link::new(connector.clone(), response_timeout);
                    link.keep_supervised();
                    link
                })
                .collect(),
            turn: AtomicUsize::new(0),
            patience,
        }
    }

    /// Asks on whichever connection's turn it is.
    ///
    /// What is asked must be such that asking twice does no more than asking once.
    pub(crate) async fn ask(
        &self,
        operation: &'static str,
        request: Request<'_>,
        script: Option<&Script>,
    ) -> Result<Value, StoreError> {
        self.ask_on(self.next(), operation, request, script).await
    }

    /// The link whose turn it is.
    pub(crate) fn next(&self) -> &Link {
        match self.links.as_slice() {
            [only] => only,
            links => &links[self.turn.fetch_add(1, Ordering::Relaxed) % links.len()],
        }
    }

    /// The link for what must arrive in order.
    pub(crate) fn first(&self) -> &Link {
        &self.links[0]
    }

    /// What makes more connections to the same server.
    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Asks on the first connection: what one caller asks there one after the other arrives so.
    pub(crate) async fn ask_in_order(
        &self,
        operation: &'static str,
        request: Request<'_>,
    ) -> Result<Value, StoreError> {
        self.ask_on(self.first(), operation, request, None).await
    }

    async fn ask_on(
        &self,
        link: &Link,
        operation: &'static str,
        request: Request<'_>,
        script: Option<&Script>,
    ) -> Result<Value, StoreError> {
        let mut attempts = Attempts::new(operation, self.patience);
        loop {
            let mut live = match link.live() {
                Some(live) => live,
                None => link.wait(&mut attempts).await?,
            };
            let error = match request.send(&mut live.connection).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match remedy(&error) {
                Remedy::Nothing | Remedy::AskElsewhere => return Err(refused(operation, error)),
                Remedy::Reconnect => {
                    link.report(live.number, error.clone());
                    attempts.pause(error).await?;
                }
                Remedy::Wait => attempts.pause(error).await?,
                Remedy::LoadScript => {
                    if let Some(script) = script {
                        live.load(script).await;
                    }
                    attempts.again(error).await?;
                }
            }
        }
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links")
            .field("count", &self.links.len())
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// All that a store has to ask: the only server, or every primary of a cluster.
#[derive(Debug)]
pub(crate) enum Connections {
    Server(Arc<Links>),
    #[cfg(feature = "cluster")]
    Cluster(Arc<Cluster>),
}

#[cfg_attr(
    not(feature = "cluster"),
    allow(
        unused_variables,
        reason = "only in a cluster it matters what is asked for"
    )
)]
impl Connections {
    /// Asks the server; in a cluster the one that serves the first key.
    ///
    /// What is asked must be such that asking twice does no more than asking once.
    pub(crate) async fn ask(
        &self,
        operation: &'static str,
        request: Request<'_>,
        script: Option<&Script>,
    ) -> Result<Value, StoreError> {
        match self {
            Self::Server(links) => links.ask(operation, request, script).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.ask(operation, request, script).await,
        }
    }

    /// Asks for what has no key; what one caller asks there one after the other arrives so.
    pub(crate) async fn ask_in_order(
        &self,
        operation: &'static str,
        request: Request<'_>,
    ) -> Result<Value, StoreError> {
        match self {
            Self::Server(links) => links.ask_in_order(operation, request).await,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.ask_in_order(operation, request).await,
        }
    }

    /// Connects for a subscriber: in a cluster every node hears everything that is published.
    pub(crate) fn listening(&self) -> Connector {
        match self {
            Self::Server(links) => links.connector().clone(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.voice(),
        }
    }

    /// Links to the server that serves a slot, for one who connects to the same server himself.
    pub(crate) fn serving(&self, slot: Option<u16>) -> Result<Arc<Links>, RedisError> {
        match self {
            Self::Server(links) => Ok(Arc::clone(links)),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.serving(slot),
        }
    }

    /// Links to the node that a slot is moving to, where an error says so.
    pub(crate) fn moving_to(&self, error: &RedisError) -> Option<Arc<Links>> {
        match self {
            Self::Server(_) => None,
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.moving_to(error),
        }
    }

    /// Learns from an error of somebody who has connected himself.
    pub(crate) fn learn(&self, error: &RedisError) {
        match self {
            Self::Server(_) => {}
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.learn(error),
        }
    }

    /// Links to every server that has keys.
    pub(crate) fn primaries(&self) -> Vec<Arc<Links>> {
        match self {
            Self::Server(links) => vec![Arc::clone(links)],
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.primaries(),
        }
    }

    /// Waits until another server than that of `links` serves a slot.
    pub(crate) async fn left(&self, slot: Option<u16>, links: &Arc<Links>) {
        match (self, slot) {
            #[cfg(feature = "cluster")]
            (Self::Cluster(cluster), Some(slot)) => cluster.left(slot, links).await,
            _ => std::future::pending().await,
        }
    }

    /// The slot of a key, where that decides who serves it.
    pub(crate) fn slot(&self, key: &str) -> Option<u16> {
        match self {
            Self::Server(_) => None,
            #[cfg(feature = "cluster")]
            Self::Cluster(_) => Some(crate::cluster::slot(key.as_bytes())),
        }
    }

    /// Whether there are several servers, each with slots of its own.
    pub(crate) fn is_cluster(&self) -> bool {
        !matches!(self, Self::Server(_))
    }

    /// Whether one script may touch both feeds, and all that lies with them.
    pub(crate) fn same_slot(&self, one: &str, other: &str) -> bool {
        self.slot(one) == self.slot(other)
    }
}

/// How long something has been tried already, and what went wrong last.
pub(crate) struct Attempts {
    operation: &'static str,
    since: Instant,
    patience: Duration,
    count: u32,
    pauses: ExponentialBackoff,
    error: Option<RedisError>,
}

impl Attempts {
    pub(crate) fn new(operation: &'static str, patience: Duration) -> Self {
        Self {
            operation,
            since: Instant::now(),
            patience,
            count: 0,
            pauses: pauses(),
            error: None,
        }
    }

    /// How long it may still be tried.
    pub(crate) fn left(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.since + self.patience
    }

    /// Notes why there is no connection; an error where there cannot be one.
    pub(crate) fn note(&mut self, error: &RedisError) -> Result<(), StoreError> {
        if remedy(error) == Remedy::Nothing {
            return Err(refused(self.operation, error.clone()));
        }
        self.error = Some(error.clone());
        Ok(())
    }

    /// Waits a little; an error where the patience is over.
    pub(crate) async fn pause(&mut self, error: RedisError) -> Result<(), StoreError> {
        self.error = Some(error);
        let pause = next_pause(&mut self.pauses);
        if Instant::now() + pause >= self.deadline() {
            return Err(self.over());
        }
        sleep(pause).await;
        Ok(())
    }

    /// As [`pause`](Self::pause), but the second try comes at once.
    pub(crate) async fn again(&mut self, error: RedisError) -> Result<(), StoreError> {
        self.count += 1;
        if self.count == 1 {
            return Ok(());
        }
        self.pause(error).await
    }

    pub(crate) fn over(&mut self) -> StoreError {
        unavailable(self.operation, self.since.elapsed(), self.error.take())
    }
}
