//! What guests ask of others over HTTP: `wasi:http/outgoing-handler`.
//!
//! A name is looked up and an address is routed by the container's [`Network`], as for its sockets, and the
//! connection leaves from the pod's address; so what reaches a service, and what may not be reached, is the
//! same for both. Each request has a connection of its own, HTTP/1.1, with TLS for `https`: certificates are
//! checked against the roots of the machine and those that the runtime was made with.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddrV4;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::stream::Pause;
use crate::clock::Clock;
use crate::runtime::network::{LookupError, Network, Protocol, Refusal, as_ipv4};
use crate::runtime::sockets::connect;
use crate::runtime::sockets::options::Options;

/// Requests of one instance that are under way at a time.
const REQUESTS_MAX: usize = 256;
/// How long a connection may take that the guest gave no time for.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How long an answer may take to begin, and to go on, that the guest gave no time for.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;
/// The longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 256 << 10;
/// The most that a guest may write of a request's or an answer's body before it is taken.
const WRITE_MAX: usize = 64 << 10;

/// Whom guests believe: the roots of the machine and others, read when they are first needed.
#[derive(Clone, Default)]
pub(in crate::runtime) struct Trust(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// DER.
    roots: Vec<Vec<u8>>,
    config: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Trust {
    pub(in crate::runtime) fn new(roots: Vec<Vec<u8>>) -> Self {
        Self(Arc::new(Inner { roots, config: OnceLock::new() }))
    }

    async fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        if self.0.config.get().is_none() {
            let inner = Arc::clone(&self.0);
            // Reads files. That it does not end is told below.
            let read = tokio::task::spawn_blocking(move || {
                inner.config.get_or_init(|| inner.make());
            });
            drop(read.await);
        }
        let config = self.0.config.get().cloned().unwrap_or_else(|| Err("cannot be read".to_owned()));
        config.map_err(|error| Error::InternalError(Some(format!("the machine's certificates: {error}"))))
    }
}

impl Inner {
    fn make(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = self.roots.iter().map(|root| CertificateDer::from(root.clone()));
        let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider));
        let verifier = verifier.map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            // It is none but the platform's; rustls calls any that is not its own dangerous.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        Ok(Arc::new(builder.with_no_client_auth()))
    }
}

/// How one instance asks.
pub(in crate::runtime) struct Hooks {
    network: Option<Arc<dyn Network>>,
    clock: Clock,
    trust: Trust,
    places: Option<Arc<Semaphore>>,
}

impl Hooks {
    pub(in crate::runtime) fn new(network: Option<Arc<dyn Network>>, clock: Clock, trust: Trust) -> Self {
        Self { network, clock, trust, places: None }
    }
}

/// What is left to do for a request once its answer has begun.
type Rest = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Rest), Error>> + Send> {
        let places = self.places.get_or_insert_with(|| Arc::new(Semaphore::new(REQUESTS_MAX)));
        let place = Arc::clone(places).try_acquire_owned();
        let (network, clock, trust) = (self.network.clone(), self.clock, self.trust.clone());
        Box::new(async move {
            let place = place.map_err(|_| Error::ConnectionLimitReached)?;
            let network = network.ok_or(Error::HttpRequestDenied)?;
            let times = Times::of(options.as_ref());
            let target = Target::of(request.uri())?;
            let connecting = async {
                let stream = connect(&*network, &target).await?;
                stream.set_nodelay(true).map_err(Error::Connect)?;
                if !target.tls {
                    return handshake(stream).await;
                }
                let config = trust.config().await?;
                let name = ServerName::try_from(target.host.clone());
                let name = name.map_err(|_| Error::HttpRequestUriInvalid)?;
                let secured = TlsConnector::from(config).connect(name, stream).await;
                handshake(secured.map_err(|error| tls_error(&error))?).await
            };
            let connected = clock.timeout(times.connect, connecting).await;
            let (sender, connection) = connected.map_err(|_| Error::ConnectionTimeout)??;
            exchange(sender, connection, request, times, clock, place).await
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        WRITE_MAX
    }
}

/// How long what may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) connect: Duration,
    pub(super) first_byte: Duration,
    pub(super) between_bytes: Duration,
}

impl Times {
    pub(super) fn of(options: Option<&RequestOptions>) -> Self {
        let silence = |given: Option<Duration>| given.unwrap_or(SILENCE_MAX);
        Self {
            connect: options.and_then(|options| options.connect_timeout).unwrap_or(CONNECT_MAX),
            first_byte: silence(options.and_then(|options| options.first_byte_timeout)),
            between_bytes: silence(options.and_then(|options| options.between_bytes_timeout)),
        }
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tls: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Target {
    pub(super) fn of(uri: &Uri) -> Result<Self, Error> {
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // `http` takes a port that is none for no port.
        let digits = authority.as_str().rsplit_once(':').map(|(_, digits)| digits);
        let names_port = digits.is_some_and(|digits| !digits.contains(']'));
        let port = match authority.port_u16() {
            Some(port) => port,
            None if names_port => return Err(Error::HttpRequestUriInvalid),
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
        };
        if host.is_empty() || port == 0 {
            return Err(Error::HttpRequestUriInvalid);
        }
        Ok(Self { tls, host, port })
    }
}

/// Connects to the first address of the target that can be reached.
async fn connect(network: &dyn Network, target: &Target) -> Result<TcpStream, Error> {
    let found = match target.host.parse() {
        Ok(address) => vec![address],
        Err(_) => network.lookup(&target.host).await.map_err(lookup_error)?,
    };
    let mut error = Error::DestinationIpUnroutable;
    for address in found.into_iter().take(ADDRESSES_MAX) {
        let Some(address) = as_ipv4(address) else { continue };
        let to = SocketAddrV4::new(address, target.port);
        match network.route(Protocol::Tcp, 0, to) {
            Ok(reached) => match connect::connect(network, None, &Options::default(), to, reached).await {
                Ok(stream) => return Ok(stream),
                Err(failed) => error = connect_error(failed),
            },
            Err(Refusal::Denied) => error = Error::DestinationIpProhibited,
            Err(Refusal::NoEndpoint) => error = Error::ConnectionRefused,
        }
    }
    Err(error)
}

fn lookup_error(error: LookupError) -> Error {
    let rcode = match error {
        LookupError::Unknown => "NXDOMAIN",
        LookupError::Temporary => return Error::DnsTimeout,
        LookupError::Permanent => "SERVFAIL",
        LookupError::Refused => return Error::HttpRequestDenied,
    };
    Error::DnsError { rcode: Some(rcode.to_owned()), info_code: None }
}

fn connect_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Error::ConnectionTerminated,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Error::DestinationUnavailable,
        _ => Error::Connect(error),
    }
}

fn tls_error(error: &io::Error) -> Error {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Error::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        _ => Error::TlsProtocolError,
    }
}

/// A connection, whatever it goes over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Connection = http1::Connection<TokioIo<Box<dyn Stream>>, WasiBody>;
type Sender = http1::SendRequest<WasiBody>;

async fn handshake(stream: impl Stream + 'static) -> Result<(Sender, Connection), Error> {
    let stream: Box<dyn Stream> = Box::new(stream);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    builder.handshake(TokioIo::new(stream)).await.map_err(Error::from)
}

/// Sends the request, and gives back the answer once its head is here.
async fn exchange(
    mut sender: Sender,
    connection: Connection,
    mut request: Request<WasiBody>,
    times: Times,
    clock: Clock,
    place: OwnedSemaphorePermit,
) -> Result<(Response<WasiBody>, Rest), Error> {
    // A server is asked for a path; only a proxy is asked for more.
    let path = request.uri().path_and_query().cloned();
    let path = path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    let mut connection = Some(connection);
    let asked = sender.send_request(request);
    let answering = async {
        let mut asked = pin!(asked);
        poll_fn(|context| {
            if let Some(under_way) = &mut connection
                && let Poll::Ready(ended) = Pin::new(under_way).poll(context)
            {
                connection = None;
                if let Err(error) = ended {
                    return Poll::Ready(Err(Error::from(error)));
                }
            }
            asked.as_mut().poll(context).map_err(Error::from)
        })
        .await
    };
    let answered = clock.timeout(times.first_byte, answering).await;
    let response = answered.map_err(|_| Error::ConnectionReadTimeout)??;
    let response =
        response.map(|body| Reply { body, between: times.between_bytes, clock, pause: None }.boxed_unsync());
    let rest = async move {
        let _place = place;
        match connection {
            Some(connection) => connection.await.map_err(Error::from),
            None => Ok(()),
        }
    };
    Ok((response, Box::new(rest)))
}

/// The body of another server's answer.
struct Reply {
    body: Incoming,
    between: Duration,
    clock: Clock,
    pause: Option<Pause>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.pause = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let (clock, between) = (self.clock, self.between);
        let pause = self.pause.get_or_insert_with(|| Box::pin(async move { clock.sleep(between).await }));
        ready!(pause.as_mut().poll(context));
        self.pause = None;
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
