//! Answers HTTP requests as a handler (`wasi:http/incoming-handler`): the node has the socket, and calls this
//! for each request.
//!
//! - `GET /` greets, with the pod's name (`HOSTNAME`).
//! - `POST /echo` answers what it was sent, as it comes, trailers too.
//! - `GET /fetch/URL` answers what is at `http://URL`.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

struct Hello;

wasip2::http::proxy::export!(Hello);

impl wasip2::exports::http::incoming_handler::Guest for Hello {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match (request.method(), path.as_str()) {
            (Method::Get | Method::Head, "/") => {
                let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "nobody".to_owned());
                text(answer, 200, &format!("hello from {name}\n"));
            }
            (Method::Post | Method::Put, "/echo") => {
                let body = request.consume().expect("nobody has taken it");
                pass(answer, 200, body);
            }
            (Method::Get, path) if path.starts_with("/fetch/") => match fetch(&path["/fetch/".len()..]) {
                Ok((status, body)) => pass(answer, status, body),
                Err(why) => text(answer, 502, &format!("{why}\n")),
            },
            (_, path) => text(answer, 404, &format!("{path} is not served in this way\n")),
        }
    }
}

/// Answers with a text.
fn text(answer: ResponseOutparam, status: u16, text: &str) {
    let length = text.len().to_string().into_bytes();
    let headers = Fields::from_list(&[("content-length".to_owned(), length)]).expect("a valid header");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("a valid status");
    let body = response.body().expect("nobody has taken it");
    ResponseOutparam::set(answer, Ok(response));
    let out = body.write().expect("nobody has taken it");
    // A client that went away is nobody's fault, and HEAD has no body.
    out.blocking_write_and_flush(text.as_bytes()).ok();
    drop(out);
    OutgoingBody::finish(body, None).ok();
}

/// Answers with a body that is not here yet.
fn pass(answer: ResponseOutparam, status: u16, from: IncomingBody) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a valid status");
    let body = response.body().expect("nobody has taken it");
    ResponseOutparam::set(answer, Ok(response));
    let input = from.stream().expect("nobody has taken it");
    let output = body.write().expect("nobody has taken it");
    loop {
        match output.blocking_splice(&input, 64 << 10) {
            Ok(_) => {}
            Err(StreamError::Closed) => break,
            // Dropped without its end, the client learns that it is not whole.
            Err(StreamError::LastOperationFailed(_)) => return,
        }
    }
    output.blocking_flush().ok();
    drop((input, output));
    let trailers = IncomingBody::finish(from);
    trailers.subscribe().block();
    let trailers = trailers.get().and_then(Result::ok).and_then(Result::ok).flatten();
    OutgoingBody::finish(body, trailers.map(|trailers| trailers.clone())).ok();
}

/// The answer of another server, once its head is here.
fn fetch(url: &str) -> Result<(u16, IncomingBody), String> {
    let (host, path) = url.split_once('/').unwrap_or((url, ""));
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).expect("a valid scheme");
    request.set_authority(Some(host)).map_err(|()| format!("{host:?} is no host"))?;
    request.set_path_with_query(Some(&format!("/{path}"))).map_err(|()| format!("/{path} is no path"))?;
    let told = |error| format!("cannot fetch {url}: {error:?}");
    let response = outgoing_handler::handle(request, None).map_err(told)?;
    response.subscribe().block();
    let response = response.get().expect("it is here").expect("nobody has taken it").map_err(told)?;
    Ok((response.status(), response.consume().expect("nobody has taken it")))
}
