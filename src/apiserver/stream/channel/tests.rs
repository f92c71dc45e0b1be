use serde_json::{Value, json};

use super::*;

const V1: Protocol = protocol("", Generation::V1, false);
const V4: Protocol = protocol("v4.channel.k8s.io", Generation::V4, false);
const V5: Protocol = protocol("v5.channel.k8s.io", Generation::V5, false);
const BASE64: Protocol = protocol("v4.base64.channel.k8s.io", Generation::V4, true);

/// BEHAVIOURS 8.7.
#[test]
fn the_first_protocol_that_both_know_is_spoken() {
    for (asked, there_are, expected) in [
        (&["v5.channel.k8s.io"][..], COMMAND, Some("v5.channel.k8s.io")),
        (&["v4.channel.k8s.io", "v5.channel.k8s.io"], COMMAND, Some("v4.channel.k8s.io")),
        (&["v9.channel.k8s.io", "base64.channel.k8s.io"], COMMAND, Some("base64.channel.k8s.io")),
        (&[], COMMAND, Some("")),
        (&["soap"], COMMAND, None),
        (&["v5.channel.k8s.io"], PORTS, None),
        (&["v4.channel.k8s.io"], PORTS, Some("v4.channel.k8s.io")),
    ] {
        assert_eq!(choose(asked, there_are).map(|one| one.name), expected, "{asked:?}");
    }
}

#[test]
fn messages_are_read() {
    let data = |channel, bytes: &'static [u8]| Some(Incoming::Data(channel, Bytes::from_static(bytes)));
    for (protocol, message, expected) in [
        (V4, &b"\x00abc"[..], data(0, b"abc")),
        (V4, b"\x00", data(0, b"")),
        (V4, b"", None),
        (V4, b"\xff\x00", data(255, b"\x00")),
        (V5, b"\xff\x00", Some(Incoming::Closed(0))),
        (V5, b"\xff", None),
        (V5, b"\x04{}", data(4, b"{}")),
        (BASE64, b"0YWJj", data(0, b"abc")),
        (BASE64, b"0*", None),
        (BASE64, b"xYWJj", None),
        (BASE64, b"\xff0", None),
    ] {
        assert_eq!(protocol.read(Bytes::from_static(message)), expected, "{protocol:?} {message:?}");
    }
}

#[test]
fn messages_are_written() {
    assert_eq!(V5.write(STDOUT, b"abc"), b"\x01abc");
    assert_eq!(BASE64.write(STDERR, b"abc"), b"2YWJj");
}

/// BEHAVIOURS 8.7.
#[test]
fn the_end_is_told() {
    let told = |protocol: Protocol, ended: &Result<Ended, Status>| -> Value {
        serde_json::from_slice(&protocol.ending(ended).unwrap()).unwrap()
    };
    let (fine, failed) = (Ok(Ended::default()), Ok(Ended { code: 3, text: None }));
    assert_eq!(told(V4, &fine), json!({"metadata": {}, "status": "Success"}));
    assert_eq!(
        told(V5, &failed),
        json!({
            "metadata": {},
            "status": "Failure",
            "reason": "NonZeroExitCode",
            "message": "command terminated with non-zero exit code: command terminated with exit code 3",
            "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
        })
    );
    assert_eq!(V1.ending(&fine), None);
    let text = V1.ending(&failed).unwrap();
    assert!(text.ends_with(b"terminated with exit code 3"));
}
