use http::Request;

use super::*;

fn handshake(method: &str, headers: &[(&str, &str)]) -> Result<String, String> {
    let mut request = Request::builder().method(method).uri("/api/v1/namespaces/n/pods/p/exec");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    key(&parts).map(str::to_owned).map_err(|error| error.to_string())
}

/// BEHAVIOURS 8.7: what cannot be served is answered at once, and says what is.
#[test]
fn only_a_websocket_is_taken() {
    let websocket = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "abc"),
    ];
    assert_eq!(handshake("GET", &websocket), Ok("abc".to_owned()));
    for (method, headers, why) in [
        ("GET", &[][..], "Upgrade request required"),
        ("GET", &[("upgrade", "websocket")], "Upgrade request required"),
        ("POST", &[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")], "SPDY/3.1 is not served"),
        ("POST", &websocket, "begins with GET"),
        ("GET", &websocket[..2], "must be 13"),
        ("GET", &websocket[..3], "Sec-WebSocket-Key is missing"),
    ] {
        let error = handshake(method, headers).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

fn ports(ports: &[u16]) -> Streaming {
    Streaming::Ports(crate::apiserver::stream::Ports {
        pod: "p".into(),
        uid: "u".into(),
        ports: ports.to_vec(),
        dial: Arc::new(|_| Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })),
    })
}

/// BEHAVIOURS 8.7.
#[test]
fn what_both_know_is_spoken() {
    let program = || Streaming::Program(Box::pin(std::future::pending()));
    let name = |asked: &[&str], streaming: Streaming| match choose(asked, &streaming) {
        Ok((_, name)) => Ok(name),
        Err(error) => Err(error.to_string()),
    };
    assert_eq!(name(&["v5.channel.k8s.io"], program()), Ok("v5.channel.k8s.io"));
    assert_eq!(name(&[], program()), Ok(""));
    assert_eq!(name(&[spdy::PROTOCOL], ports(&[])), Ok(spdy::PROTOCOL));
    assert_eq!(name(&["v4.channel.k8s.io"], ports(&[80])), Ok("v4.channel.k8s.io"));
    let missing = name(&["v4.channel.k8s.io"], ports(&[])).unwrap_err();
    assert!(missing.contains("ports"), "{missing}");
    let many: Vec<u16> = (1..100).collect();
    assert!(name(&["v4.channel.k8s.io"], ports(&many)).is_err());
    let unknown = name(&["soap"], program()).unwrap_err();
    assert!(unknown.contains("soap") && unknown.contains("v4.channel.k8s.io"), "{unknown}");
}
