//! One request: who asks, for what, and what is answered.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span};

use super::answer::{Answer, events, gzipped, headed, log_pieces, set, text, text_of, told, warning_header};
use super::body::{Body, Failure, Pieces};
use super::documents::Documents;
use super::proxy::{self, Place};
use super::upgrade;
use crate::apiserver::authn::{self, Identity, User};
use crate::apiserver::authz;
use crate::apiserver::history;
use crate::apiserver::metrics::{Labels, Metrics};
use crate::apiserver::negotiate::{self, Accepted, Encoding, Form};
use crate::apiserver::path::{self, Query, Refusal, Route, Target};
use crate::apiserver::protobuf;
use crate::apiserver::render::{self, View};
use crate::apiserver::request::List;
use crate::apiserver::{Api, Error, Options, Request, Response, Verb, table, token};
use crate::clock::Clock;
use crate::kind::Subresource;

/// The largest request body (BEHAVIOURS 2.7).
const BODY_MAX: usize = 3 << 20;
/// What is read of a larger one before it is refused: a client that still sends would not see the answer.
const DISCARD_MAX: u64 = 64 << 20;
/// All request bodies in memory at a time; more wait.
const BODIES_MAX: usize = 256 << 20;
/// For any request but a watch or a followed log, its body included.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// Smaller answers are not worth compressing (BEHAVIOURS 6.6).
const GZIP_MIN: u64 = 128 << 10;
/// Records of a list whose size is not known beforehand that are taken to exceed [`GZIP_MIN`].
const GZIP_RECORDS_MIN: usize = 100;

/// What requests share.
pub(super) struct Context {
    api: Api,
    pub(super) clock: Clock,
    pub(super) address: SocketAddr,
    pub(super) metrics: Metrics,
    pub(super) documents: Documents,
    /// The server shuts down.
    pub(super) stop: CancellationToken,
    /// In bytes.
    bodies: Semaphore,
    /// Streams that are open.
    pub(super) sessions: Arc<Semaphore>,
}

impl Context {
    pub(super) fn new(api: Api, clock: Clock, address: SocketAddr, stop: CancellationToken) -> Self {
        Self {
            api,
            clock,
            address,
            metrics: Metrics::default(),
            documents: Documents::new(crate::kind::ALL),
            stop,
            bodies: Semaphore::new(BODIES_MAX),
            sessions: Arc::new(Semaphore::new(upgrade::SESSIONS_MAX)),
        }
    }

    /// The keys by which others know the cluster's tokens.
    pub(super) fn token_keys(&self) -> String {
        self.api.token_keys()
    }

    /// The newest revision of the store, for the metrics.
    pub(super) fn revision(&self) -> u64 {
        self.api.revision()
    }
}

/// Answers `request`, whatever happens.
pub(super) async fn serve<B>(context: Arc<Context>, identity: &Identity, request: http::Request<B>) -> Answer
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Failure>,
{
    let started = context.clock.monotonic();
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let watch = query.flag("watch").unwrap_or(false);
    let route = path::route(parts.method.as_str(), parts.uri.path(), watch);
    let labels = labels(&route, &parts.method);
    let span =
        info_span!("request", verb = labels.verb, resource = labels.resource, code = tracing::field::Empty);
    let exchange = Exchange { context: &context, identity, parts: &parts, query: &query, labels: &labels };
    // Boxed, because the compiler loses sight of what can be sent between threads in so deep a future.
    let answering: BoxFuture<'_, Answer> = Box::pin(exchange.answer(route, body));
    let answer = match AssertUnwindSafe(answering.instrument(span.clone())).catch_unwind().await {
        Ok(answer) => answer,
        Err(panic) => {
            error!(parent: &span, panic = told(panic.as_ref()), path = parts.uri.path(), "a request panicked");
            exchange.failed(&Error::internal("the server panicked on this request; its log says more"))
        }
    };
    let code = answer.status().as_u16();
    span.record("code", code);
    context.metrics.answered(&labels, code, context.clock.monotonic().saturating_sub(started));
    debug!(parent: &span, method = %parts.method, path = parts.uri.path(), "answered");
    answer
}

fn labels(route: &Result<Route, Refusal>, method: &Method) -> Labels {
    let verb = match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let mut labels = Labels { verb, group: "", version: "", resource: "", subresource: "" };
    if let Ok(Route::Resource(target)) = route {
        labels.verb = match target.verb {
            Verb::List => "LIST",
            Verb::Watch => "WATCH",
            Verb::Get | Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection => {
                verb
            }
        };
        labels.group = target.kind.group;
        labels.version = target.kind.version;
        labels.resource = target.kind.plural;
        labels.subresource = target.subresource.map_or("", Subresource::name);
        if target.subresource.is_some_and(|one| one.is_stream() || one == Subresource::Proxy) {
            labels.verb = "CONNECT";
        }
    }
    labels
}

/// One request and what it is answered with.
struct Exchange<'a> {
    context: &'a Arc<Context>,
    identity: &'a Identity,
    parts: &'a Parts,
    query: &'a Query,
    labels: &'a Labels,
}

impl Exchange<'_> {
    async fn answer<B>(&self, route: Result<Route, Refusal>, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Failure>,
    {
        self.try_answer(route, body).await.unwrap_or_else(|refusal| match refusal {
            Refusal::NoPage => text(404, "404 page not found\n"),
            Refusal::Status(error) => self.failed(&error),
        })
    }

    async fn try_answer<B>(&self, route: Result<Route, Refusal>, body: B) -> Result<Answer, Refusal>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Failure>,
    {
        let bearer = |token: &str| self.context.api.bearer(token);
        let user = authn::authenticate(self.identity, self.header(header::AUTHORIZATION), bearer)
            .ok_or_else(Error::unauthorized)?;
        let user = self.impersonated(user)?;
        match route? {
            Route::Document(document) => {
                let path = self.parts.uri.path();
                authz::authorize_path(&user, "get", path)?;
                let head = self.parts.method == Method::HEAD;
                let mut answer = self.context.documents.answer(
                    self.context,
                    &document,
                    self.query,
                    &self.parts.headers,
                )?;
                if !answer.headers().contains_key(header::CONTENT_ENCODING) && self.gzips(answer.body()) {
                    answer = gzipped(answer);
                }
                if head {
                    *answer.body_mut() = Body::empty();
                }
                Ok(answer)
            }
            Route::Resource(target) => Ok(self.resource(user, target, body).await?),
        }
    }

    async fn resource<B>(&self, user: User, target: Target, body: B) -> Result<Answer, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Failure>,
    {
        let Target { verb, kind, subresource, namespace, name } = target;
        let is_log = subresource == Some(Subresource::Log);
        let is_proxy = subresource == Some(Subresource::Proxy);
        // The kubelet's own answers may be in other forms.
        let is_stream = subresource.is_some_and(Subresource::is_stream) || (is_proxy && kind.is_namespaced());
        let mut accepted = if is_log || is_stream {
            Accepted::DEFAULT
        } else {
            negotiate::resource(self.header(header::ACCEPT), verb == Verb::Watch)?
        };
        let include = table::include(
            self.query.get("includeObject").filter(|_| matches!(accepted.form, Form::Table(_))),
        )?;
        if matches!(
            subresource,
            Some(
                Subresource::History
                    | Subresource::Eviction
                    | Subresource::Token
                    | Subresource::Scale
                    | Subresource::Trigger
                    | Subresource::Queue
            )
        ) {
            // It is no object of its kind, so there are no other forms of it.
            accepted.form = Form::AsIs;
        }
        let view = View { form: accepted.form, include, clock: self.context.clock };
        if is_proxy {
            return self.proxy(Target { verb, kind, subresource, namespace, name }, user, body, &view).await;
        }
        let options = path::options(self.query)?;
        let endless = verb == Verb::Watch || (is_log && options.log.follow);
        let request = async {
            let body = self.read(body).await?;
            let request = Request { user, verb, kind, subresource, namespace, name, options, body };
            self.context.api.handle(request).await
        };
        let response = if endless {
            request.await?
        } else {
            self.context.clock.timeout(REQUEST_MAX, request).await.map_err(|_| {
                Error::new(504, "Timeout", "Timeout: request did not complete within the allotted timeout")
            })??
        };
        debug!(verb = verb.name(), "handled");
        self.respond(response, verb, kind, accepted, &view)
    }

    /// A request that somebody else answers; its query and its body are theirs to read.
    async fn proxy<B>(&self, target: Target, user: User, body: B, view: &View) -> Result<Answer, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Failure>,
    {
        let Target { verb, kind, subresource, namespace, name } = target;
        let place = Place::of(self.parts.uri.path(), kind.is_namespaced());
        let options = Options { proxy_path: place.rest.to_owned(), ..Options::default() };
        let asked = Request {
            user,
            verb,
            kind,
            subresource,
            namespace,
            name,
            options,
            body: crate::apiserver::Body::Empty,
        };
        match self.context.api.handle(asked).await? {
            Response::Proxy(backend) => {
                let guard = self.context.metrics.stream(self.labels);
                proxy::forward(self.context, self.parts, body, place, backend, guard).await
            }
            other => self.respond(other, verb, kind, Accepted::DEFAULT, view),
        }
    }

    fn respond(
        &self,
        response: Response,
        verb: Verb,
        kind: &'static crate::kind::Kind,
        accepted: Accepted,
        view: &View,
    ) -> Result<Answer, Error> {
        let code = |created: bool| if created { 201 } else { 200 };
        match response {
            Response::Record { record, created } => {
                self.json(code(created), view.record(kind, &record)?, accepted)
            }
            Response::Object { object, created } => {
                self.json(code(created), view.object(kind, object.as_ref())?, accepted)
            }
            Response::Status(mut status) | Response::Deleted { mut status, .. } => {
                let code = *status.code.get_or_insert(if verb == Verb::Create { 201 } else { 200 });
                self.json(u16::try_from(code).unwrap_or(500), render::status(&status), accepted)
            }
            Response::List(list) => self.list(list, accepted, view),
            Response::Watch(stream) => {
                let events = events(
                    stream,
                    view.watch(kind)?,
                    self.context.stop.clone(),
                    self.context.metrics.stream(self.labels),
                );
                Ok(headed(200, "application/json", Body::stream(events, None)))
            }
            Response::Text(log) => {
                let guard = self.context.metrics.stream(self.labels);
                let pieces = log_pieces(log, self.context.stop.clone(), guard);
                Ok(headed(200, "text/plain", Body::stream(pieces, None)))
            }
            Response::Stream(streaming) => {
                let guard = self.context.metrics.stream(self.labels);
                upgrade::answer(self.context, self.parts, streaming, guard)
            }
            Response::Proxy(_) => Err(Error::internal("a request to be carried on has no answer here")),
            Response::Document(document) => self.json(200, document.to_string().into(), accepted),
            Response::History(history) => self.pieces(history::pieces(kind, history), accepted),
            Response::Accepted(response) => {
                let mut answer = self.respond(*response, verb, kind, accepted, view)?;
                *answer.status_mut() = StatusCode::ACCEPTED;
                Ok(answer)
            }
            Response::Warned { warnings, response } => {
                let mut answer = self.respond(*response, verb, kind, accepted, view)?;
                for warning in &warnings {
                    if let Ok(value) = HeaderValue::from_bytes(warning_header(warning).as_bytes()) {
                        answer.headers_mut().append(header::WARNING, value);
                    }
                }
                Ok(answer)
            }
        }
    }

    fn list(&self, list: List, accepted: Accepted, view: &View) -> Result<Answer, Error> {
        let mut writer = view.list(list)?;
        if accepted.encoding == Encoding::Yaml || accepted.pretty {
            let mut whole = Vec::new();
            while let Some(pieces) = writer.next_piece() {
                whole.extend(pieces.into_iter().flatten());
            }
            return self.json(200, whole.into(), accepted);
        }
        let bytes = writer.bytes_left();
        let gzips = self.takes_gzip()
            && bytes.map_or(writer.records_left() > GZIP_RECORDS_MIN, |bytes| bytes > GZIP_MIN);
        let pieces = stream::iter(std::iter::from_fn(move || writer.next_piece().map(Pieces::from_iter)));
        let answer = headed(200, "application/json", Body::stream(pieces, bytes));
        Ok(if gzips { gzipped(answer) } else { answer })
    }

    /// An answer that is JSON in pieces, whose number of bytes is not known beforehand.
    fn pieces(
        &self,
        pieces: impl Iterator<Item = Vec<Bytes>> + Send + 'static,
        accepted: Accepted,
    ) -> Result<Answer, Error> {
        if accepted.encoding == Encoding::Yaml || accepted.pretty {
            let whole: Vec<u8> = pieces.flatten().flatten().collect();
            return self.json(200, whole.into(), accepted);
        }
        let pieces = stream::iter(pieces.map(Pieces::from_iter));
        let answer = headed(200, "application/json", Body::stream(pieces, None));
        Ok(if self.takes_gzip() { gzipped(answer) } else { answer })
    }

    /// An answer that is one piece of JSON, in the encoding that was asked for.
    fn json(&self, code: u16, json: Bytes, accepted: Accepted) -> Result<Answer, Error> {
        let answer = match accepted.encoding {
            Encoding::Yaml => headed(code, "application/yaml", Body::whole(render::yaml(&json)?)),
            Encoding::Json if accepted.pretty || self.query.flag("pretty") == Some(true) => {
                headed(code, "application/json", Body::whole(render::pretty(&json)?))
            }
            Encoding::Json => headed(code, "application/json", Body::whole(json)),
        };
        Ok(if self.gzips(answer.body()) { gzipped(answer) } else { answer })
    }

    fn failed(&self, error: &Error) -> Answer {
        let json = render::status(&error.0);
        let accepted = negotiate::resource(self.header(header::ACCEPT), false);
        let yaml = accepted.is_ok_and(|accepted| accepted.encoding == Encoding::Yaml);
        let mut answer = match render::yaml(&json) {
            Ok(text) if yaml => headed(error.code(), "application/yaml", Body::whole(text)),
            Ok(_) | Err(_) => headed(error.code(), "application/json", Body::whole(json)),
        };
        let retry_after = error.0.details.as_ref().and_then(|details| details.retry_after_seconds);
        if let Some(seconds) = retry_after {
            set(&mut answer, header::RETRY_AFTER, &seconds.to_string());
        }
        answer
    }

    fn takes_gzip(&self) -> bool {
        negotiate::accepts_gzip(self.header(header::ACCEPT_ENCODING))
    }

    fn gzips(&self, body: &Body) -> bool {
        let large = http_body::Body::size_hint(body).exact().is_some_and(|bytes| bytes > GZIP_MIN);
        large && self.takes_gzip()
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        text_of(&self.parts.headers, name)
    }

    /// Reads the body, which all requests but GET may have.
    async fn read<B>(&self, mut body: B) -> Result<crate::apiserver::Body, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
    {
        use crate::apiserver::Body as Read;
        if self.parts.method == Method::GET || body.is_end_stream() {
            return Ok(Read::Empty);
        }
        let hint = body.size_hint();
        let promised = hint.exact().unwrap_or(u64::MAX);
        let too_large = || Error::too_large(format!("Request entity too large: limit is {BODY_MAX}"));
        if hint.lower() > DISCARD_MAX {
            return Err(too_large());
        }
        let room = usize::try_from(promised).unwrap_or(BODY_MAX).min(BODY_MAX);
        let _room = self
            .context
            .bodies
            .acquire_many(u32::try_from(room).expect("3 MiB are fewer than u32 can count"))
            .await
            .map_err(Error::internal)?;
        let mut bytes = BytesMut::new();
        let mut total: u64 = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(Error::bad_request("the request's body ended before it was complete"));
            };
            let Ok(data) = frame.into_data() else { continue };
            total += u64::try_from(data.len()).unwrap_or(u64::MAX);
            if total > DISCARD_MAX {
                return Err(too_large());
            }
            if bytes.len() + data.len() <= BODY_MAX {
                bytes.extend_from_slice(&data);
            }
        }
        match u64::try_from(bytes.len()) {
            Ok(kept) if kept == total => {}
            Ok(_) | Err(_) => return Err(too_large()),
        }
        if bytes.is_empty() {
            return Ok(Read::Empty);
        }
        let media_type = self.header(header::CONTENT_TYPE);
        let essence = media_type.and_then(|media_type| media_type.split(';').next()).unwrap_or_default();
        if essence.trim() == protobuf::MEDIA_TYPE {
            let media_type = Some("application/json".to_owned());
            return Ok(Read::Bytes { media_type, bytes: protobuf::to_json(&bytes)? });
        }
        Ok(Read::Bytes { media_type: media_type.map(str::to_owned), bytes: bytes.freeze() })
    }

    /// The user that the administrator speaks for (BEHAVIOURS 18.1).
    fn impersonated(&self, user: User) -> Result<User, Error> {
        let header = |name: &'static str| self.header(HeaderName::from_static(name));
        let groups: Vec<String> = self
            .parts
            .headers
            .get_all("impersonate-group")
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        let Some(name) = header("impersonate-user").filter(|name| !name.is_empty()) else {
            return if groups.is_empty() {
                Ok(user)
            } else {
                Err(Error::bad_request(
                    "requested groups to impersonate without impersonating a user: Impersonate-User is missing",
                ))
            };
        };
        if !user.is_in("system:masters") {
            let message = format!(
                "users {name:?} is forbidden: User {:?} cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
                user.name
            );
            return Err(Error::new(403, "Forbidden", message));
        }
        let mut other = User::named(name, groups);
        if other.groups.is_empty()
            && let Some((namespace, _)) = token::account_of(name)
        {
            other.groups = token::groups(namespace);
        }
        other.uid = header("impersonate-uid").unwrap_or_default().to_owned();
        for (header, value) in &self.parts.headers {
            let name = header.as_str().strip_prefix("impersonate-extra-").map(path::decode);
            if let (Some(name), Ok(value)) = (name, value.to_str()) {
                other.extra.entry(name).or_default().push(value.to_owned());
            }
        }
        let own = if name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
        if !other.is_in(own) {
            other.groups.push(own.to_owned());
        }
        Ok(other)
    }
}
