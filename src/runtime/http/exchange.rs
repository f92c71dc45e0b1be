//! One request, and the instance that answers it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use jiff::SignedDuration;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::Instances;
use super::body::{Answer, Received, Taking};
use super::gate::{Busy, Entered, Next};
use super::server::{Entry, Live, Server};
use super::stream::STALL_MAX;
use crate::clock::Clock;
use crate::runtime::instance::{self, Guest, PoolFull};
use crate::runtime::limits::Meter;
use crate::runtime::stdio::Output;
use crate::runtime::turns::Switch;
use crate::runtime::{Exit, Fuel, wasm};

/// How long a client may take nothing of its answer while others wait for an instance; well below the time that
/// those wait.
const STALL_WANTED_MAX: Duration = Duration::from_secs(5);
/// How long a request waits for an instance.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Requests that are answered one after the other before the thread has a look at what else there is.
const IN_A_ROW: u32 = 8;
/// Of a path, what is told in a line of the log.
const PATH_TOLD_MAX: usize = 256;

/// An instance that answers requests.
pub(super) struct Handler {
    store: Store<Guest>,
    proxy: Proxy,
    meter: Arc<Meter>,
}

/// Why there is no answer of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Connect,
    Host,
    TooLarge,
    Busy(Busy),
    Over,
    Failed,
    TooSlow,
    Informational,
}

impl From<Busy> for Refusal {
    fn from(busy: Busy) -> Self {
        Self::Busy(busy)
    }
}

impl Refusal {
    pub(super) fn response(self) -> Response<Answer> {
        let (status, text) = match self {
            Self::Connect => (405, "this server is no proxy\n"),
            Self::Host => (400, "the request names no host, or more than one\n"),
            Self::TooLarge => (413, "the body is longer than this container takes\n"),
            Self::Busy(Busy::Full) => (503, "too many requests are waiting already\n"),
            Self::Busy(Busy::Late) => (503, "no instance became free in time\n"),
            Self::Over => (503, "the container is being stopped\n"),
            Self::Failed => (500, "the handler failed; the container's log says why\n"),
            Self::TooSlow => (504, "the handler took longer than it may\n"),
            Self::Informational => (500, "the handler answered with a status that is no answer\n"),
        };
        let mut response = Response::new(Answer::text(text));
        *response.status_mut() = StatusCode::from_u16(status).expect("it is one");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if status == 503 {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// What the guest answers, or that it does not.
type Told = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// Where it says so, once.
type Teller = Arc<Mutex<Option<oneshot::Sender<Told>>>>;

/// Nobody hears it if the client has gone.
fn say(teller: &Teller, told: Told) {
    if let Some(tell) = teller.lock().expect("no holder panics").take() {
        tell.send(told).ok();
    }
}

/// A request that is to be answered.
pub(super) struct Job {
    request: Request<Received>,
    taking: Arc<Taking>,
    tell: oneshot::Sender<Told>,
    done: oneshot::Sender<()>,
}

/// The use of one place, with one instance after the other if need be.
struct Run {
    server: Arc<Server>,
    meter: Arc<Meter>,
    next: Next<Job, Handler>,
    /// Held until it is over.
    _entry: Entry,
}

impl Server {
    /// Answers a request, whatever happens.
    pub(super) async fn answer(
        self: Arc<Self>,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Response<Answer> {
        let is_http1 = request.version() < Version::HTTP_2;
        let line = self.parts.http.access_log.then(|| AccessLine::of(&self, peer, &request));
        let mut response = self.try_answer(request).await.unwrap_or_else(Refusal::response);
        if is_http1 && self.closing.is_cancelled() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let Some(mut line) = line else { return response };
        line.status = response.status();
        response.map(|answer| answer.logged(Some(line)))
    }

    async fn try_answer(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Answer>, Refusal> {
        let clock = self.parts.shared.clock();
        let max = self.parts.http.body_bytes_max;
        if request.method() == Method::CONNECT {
            return Err(Refusal::Connect);
        }
        if max.is_some_and(|max| request.body().size_hint().lower() > max) {
            return Err(Refusal::TooLarge);
        }
        if request.uri().authority().is_none() {
            match request.headers().get(HOST) {
                Some(host) if host.to_str().is_ok() => {}
                Some(_) => return Err(Refusal::Host),
                // HTTP/1.0 knows no hosts.
                None => {
                    let own = format!("{}:{}", self.parts.network.address(), self.parts.http.port);
                    let own = HeaderValue::try_from(own).map_err(|_| Refusal::Host)?;
                    request.headers_mut().insert(HOST, own);
                }
            }
        }
        let (tell, mut told) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let taking = Arc::new(Taking::default());
        let request = request.map(|body| Received::new(body, max, clock));
        let told = match self.gate.enter(Job { request, taking: Arc::clone(&taking), tell, done })? {
            Entered::Now(next) => {
                let (run, meter, switch) = Run::new(self, next).ok_or(Refusal::Over)?;
                self.parts.stage.begin_here(Box::pin(run.one()), meter, switch).await;
                told.await
            }
            Entered::Later(ticket) => match clock.timeout(WAIT_MAX, &mut told).await {
                Ok(told) => told,
                Err(_) if ticket.leave() => return Err(Busy::Late.into()),
                Err(_) => told.await,
            },
        };
        match told {
            Ok(Ok(response)) if response.status().is_informational() => Err(Refusal::Informational),
            Ok(Ok(response)) => Ok(response.map(|body| Answer::guest(body, is_done, taking, clock))),
            Ok(Err(ErrorCode::HttpResponseTimeout)) => Err(Refusal::TooSlow),
            Ok(Err(_)) | Err(_) => Err(Refusal::Failed),
        }
    }

    /// Returns when a client has taken nothing of its answer for too long: less, where others wait for an instance.
    async fn stalled(&self, taking: &Taking) {
        let clock = self.parts.shared.clock();
        loop {
            clock.sleep(STALL_WANTED_MAX).await;
            let max = if self.gate.is_wanted() { STALL_WANTED_MAX } else { STALL_MAX };
            if taking.stalled(clock.monotonic()) >= max {
                return;
            }
        }
    }

    /// Returns when a request has taken as long as one may: how long that is.
    async fn overdue(&self) -> Duration {
        let Some(max) = self.parts.http.time_max else { return std::future::pending().await };
        self.parts.shared.clock().sleep(max).await;
        max
    }

    /// A new instance.
    async fn instantiate(&self, meter: &Arc<Meter>) -> Result<Handler, String> {
        if let Some(proxy) = self.parts.image.pooled_proxy()
            && let Ok(made) = self.instantiate_by(proxy, meter).await
        {
            return made;
        }
        let proxy = wasm::spare_proxy(&self.parts.shared, &self.parts.image).await?;
        let made = self.instantiate_by(&proxy, meter).await;
        made.unwrap_or_else(|PoolFull| Err("no memory is left for another instance".to_owned()))
    }

    async fn instantiate_by(
        &self,
        proxy: &ProxyPre<Guest>,
        meter: &Arc<Meter>,
    ) -> Result<Result<Handler, String>, PoolFull> {
        let parts = &self.parts;
        let (world, environment) = (parts.shared.world(), &self.environment);
        let store = instance::store(proxy.engine(), &parts.spec, environment, world, meter, &parts.stop);
        let mut store = match store {
            Ok(store) => store,
            Err(error) => return Ok(Err(error)),
        };
        match proxy.instantiate_async(&mut store).await {
            Ok(proxy) => Ok(Ok(Handler { store, proxy, meter: Arc::clone(meter) })),
            Err(error) if instance::is_pool_full(&error) => Err(PoolFull),
            Err(error) => Ok(Err(instance::told(&store, &error))),
        }
    }

    /// A line in the container's log, unless there are too many.
    fn complain(&self, method: &Method, uri: &Uri, text: &str) {
        let Some(kept_back) = self.complaints.admit(self.parts.shared.clock().monotonic()) else { return };
        let before = if kept_back > 0 {
            format!("coracle: {kept_back} more requests failed\n")
        } else {
            String::new()
        };
        let path = told_path(uri);
        let line = format!("{before}coracle: {method} {path} failed: {text}\n");
        tracing::debug!(container = self.parts.spec.label, "{}", line.trim_end());
        self.parts.spec.stdio.stderr.put(line.as_bytes());
    }
}

impl Run {
    /// With what measures and what ends it; `None` once all is over.
    fn new(server: &Arc<Server>, next: Next<Job, Handler>) -> Option<(Self, Arc<Meter>, Arc<Switch>)> {
        let switch = Arc::new(Switch::default());
        let entry = Live::enter(server, &switch)?;
        let meter = next.1.as_ref().map_or_else(
            || Arc::new(Meter::new(Arc::clone(&server.parts.spec.budget), Fuel::Off)),
            |handler| Arc::clone(&handler.meter),
        );
        let run = Self { server: Arc::clone(server), meter: Arc::clone(&meter), next, _entry: entry };
        Some((run, meter, switch))
    }

    /// Answers one request. Those in line come in a run of their own: the client of this one is not to wait for them.
    async fn one(self) -> Exit {
        let Self { server, meter, next: (place, handler, job), _entry } = self;
        let handler = server.respond(handler, job, &meter).await;
        if let Some(next) = place.next(handler)
            && let Some((run, meter, switch)) = Self::new(&server, next)
        {
            server.parts.stage.begin(Box::pin(run.line()), meter, switch, None);
        }
        Exit::Code(0)
    }

    /// Answers requests until nobody is in line.
    async fn line(self) -> Exit {
        let Self { server, meter, mut next, _entry } = self;
        for in_a_row in 1_u32.. {
            let (place, handler, job) = next;
            let handler = server.respond(handler, job, &meter).await;
            let Some(then) = place.next(handler) else { break };
            next = then;
            // The answers want to be sent, by the same threads.
            if in_a_row % IN_A_ROW == 0 {
                tokio::task::yield_now().await;
            }
        }
        Exit::Code(0)
    }
}

impl Server {
    /// Has a request answered by that instance, or by a new one; the instance, if it goes on to answer others.
    async fn respond(&self, handler: Option<Handler>, job: Job, meter: &Arc<Meter>) -> Option<Handler> {
        let Job { request, taking, tell, done } = job;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let made = match handler {
            Some(handler) => Ok(handler),
            None => self.instantiate(meter).await,
        };
        let mut handler = match made {
            Ok(handler) => handler,
            Err(text) => {
                self.complain(&method, &uri, &text);
                return None;
            }
        };
        // Dropped before the instance if the run is: the end of its answer is then known for what it is.
        let done = done;
        // An instance that is kept may keep what it was given to answer with.
        let teller = Arc::new(Mutex::new(Some(tell)));
        let handled = tokio::select! {
            biased;
            handled = handler.handle(request, &teller) => handled,
            () = self.stalled(&taking) => Err("nobody took its answer".to_owned()),
            max = self.overdue() => {
                say(&teller, Err(ErrorCode::HttpResponseTimeout));
                Err(format!("it took longer than {}", human(max)))
            }
        };
        match handled {
            Ok(None) => {}
            Ok(Some(text)) => self.complain(&method, &uri, &text),
            Err(text) => {
                self.complain(&method, &uri, &text);
                drop(done);
                return None;
            }
        }
        // Nobody hears it if the client has gone.
        done.send(()).ok();
        matches!(self.parts.http.instances, Instances::Kept(_)).then_some(handler)
    }
}

impl Handler {
    /// Lets it answer. What is to be said of an answer that is none; an error if the instance has ended.
    async fn handle(&mut self, request: Request<Received>, tell: &Teller) -> Result<Option<String>, String> {
        self.store.set_epoch_deadline(1);
        let teller = Arc::clone(tell);
        let complaint = Arc::new(Mutex::new(None));
        let complained = Arc::clone(&complaint);
        let mut http = self.store.data_mut().http();
        let begun = http.new_incoming_request(Scheme::Http, request).and_then(|request| {
            let answer = http.new_response_outparam_from_callback(move |told| {
                if let Err(code) = &told {
                    let text = format!("it answered with the error {code:?}");
                    *complained.lock().expect("no holder panics") = Some(text);
                }
                say(&teller, told);
            })?;
            Ok((request, answer))
        });
        let (request, answer) = begun.map_err(|error| format!("{error:#}"))?;
        let handled =
            self.proxy.wasi_http_incoming_handler().call_handle(&mut self.store, request, answer).await;
        handled.map_err(|error| instance::told(&self.store, &error))?;
        let silent = tell.lock().expect("no holder panics").take().map(|_| "it did not answer".to_owned());
        Ok(silent.or_else(|| complaint.lock().expect("no holder panics").take()))
    }
}

/// As a user writes it: `1m 30s`.
fn human(duration: Duration) -> String {
    SignedDuration::try_from(duration)
        .map_or_else(|_| "it may".to_owned(), |duration| format!("{duration:#}"))
}

fn told_path(uri: &Uri) -> &str {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // A URI is ASCII, or hyper has refused it.
    path.get(..PATH_TOLD_MAX).unwrap_or(path)
}

/// A line of the access log.
pub(super) struct AccessLine {
    output: Output,
    clock: Clock,
    began: Duration,
    peer: SocketAddr,
    method: Method,
    uri: Uri,
    version: Version,
    pub(super) status: StatusCode,
}

impl AccessLine {
    fn of<B>(server: &Server, peer: SocketAddr, request: &Request<B>) -> Self {
        let clock = server.parts.shared.clock();
        Self {
            output: server.parts.spec.stdio.stdout.clone(),
            clock,
            began: clock.monotonic(),
            peer,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            status: StatusCode::OK,
        }
    }

    /// Writes it, once so many bytes were sent.
    pub(super) fn write(self, sent: u64) {
        let took = self.clock.monotonic().saturating_sub(self.began);
        let (ip, path) = (self.peer.ip(), told_path(&self.uri));
        let (method, version, status) = (&self.method, self.version, self.status.as_u16());
        let seconds = took.as_secs_f64();
        let line = format!("{ip} \"{method} {path} {version:?}\" {status} {sent} {seconds:.6}\n");
        self.output.put(line.as_bytes());
    }
}
