use super::*;
use crate::kind::ALL;

/// A message, written by hand.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(mut self, number: u8, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.0.push(number << 3 | 2);
        self.number(u64::try_from(content.len()).unwrap());
        self.0.extend_from_slice(content);
        self
    }

    fn varint(mut self, number: u8, value: i64) -> Self {
        self.0.push(number << 3);
        self.number(value.cast_unsigned());
        self
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap());
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn m() -> Message {
    Message::default()
}

fn body(api_version: &str, kind: &str, object: &Message) -> Vec<u8> {
    let envelope = m().bytes(1, m().bytes(1, api_version).bytes(2, kind)).bytes(2, object);
    [MAGIC, envelope.as_ref()].concat()
}

#[track_caller]
fn check(api_version: &str, kind: &str, object: &Message, mut expected: Value) {
    expected["apiVersion"] = json!(api_version);
    expected["kind"] = json!(kind);
    let found: Value = serde_json::from_slice(&to_json(&body(api_version, kind, object)).unwrap()).unwrap();
    assert_eq!(found, expected);
}

#[test]
fn a_namespace_as_kubectl_sends_it() {
    let sent = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x1f\x0a\x17\x0a\x07default\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00\x12\x00\x1a\x02\x0a\x00\x1a\x00\x22\x00";
    let found: Value = serde_json::from_slice(&to_json(sent).unwrap()).unwrap();
    let expected = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}, "spec": {}, "status": {},
    });
    assert_eq!(found, expected);
}

#[test]
fn each_type_has_its_form_in_json() {
    let name = |name: &str| m().bytes(1, name);
    let entry = |key: &str, value: &Message| m().bytes(1, key).bytes(2, value);
    check(
        "v1",
        "Secret",
        &m().bytes(1, name("s").bytes(8, m().varint(1, 1_700_000_000)))
            .bytes(2, m().bytes(1, "k").bytes(2, [0u8, 255]))
            .bytes(2, m().bytes(1, "empty"))
            .bytes(3, "Opaque")
            .varint(5, 0),
        json!({
            "metadata": {"name": "s", "creationTimestamp": "2023-11-14T22:13:20Z"},
            "data": {"k": "AP8=", "empty": ""}, "type": "Opaque", "immutable": false,
        }),
    );
    let container = name("c")
        .bytes(3, "sh")
        .bytes(3, "-c")
        .bytes(6, name("p").varint(2, 0).varint(3, 80).bytes(4, "TCP"))
        .bytes(8, m().bytes(1, entry("cpu", &m().bytes(1, "100m"))));
    let probe = m().bytes(1, m().bytes(2, m().bytes(1, "/").bytes(2, m().varint(1, 1).bytes(3, "http"))));
    let container = container.bytes(10, probe);
    check(
        "v1",
        "Pod",
        &m().bytes(1, name("p")).bytes(
            2,
            m().bytes(1, name("v").bytes(2, m().bytes(2, m())))
                .bytes(2, container)
                .varint(4, 0)
                .varint(11, 0),
        ),
        json!({
            "metadata": {"name": "p"},
            "spec": {
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{
                    "name": "c", "command": ["sh", "-c"],
                    "ports": [{"name": "p", "containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "100m"}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
                }],
                "terminationGracePeriodSeconds": 0,
            },
        }),
    );
    check(
        "coordination.k8s.io/v1",
        "Lease",
        &m().bytes(1, name("l")).bytes(
            2,
            m().bytes(1, "me").varint(2, 40).bytes(4, m().varint(1, 1_700_000_000).varint(2, 1_000)),
        ),
        json!({
            "metadata": {"name": "l"},
            "spec": {
                "holderIdentity": "me", "leaseDurationSeconds": 40, "renewTime": "2023-11-14T22:13:20.000001Z",
            },
        }),
    );
    check("v1", "DeleteOptions", &m().varint(1, 0), json!({"gracePeriodSeconds": 0}));
    check("v1", "ConfigMap", &m().varint(90 / 8, 7).varint(5, -1), json!({}));
}

#[test]
fn what_is_no_message_is_told() {
    let cut = body("v1", "ConfigMap", &m().bytes(1, m().bytes(1, "name")));
    let inner_cut = body("v1", "ConfigMap", &Message(vec![0x0a, 0x7f]));
    for (bytes, expected) in [
        (&b"{}"[..], "does not begin with the bytes"),
        (&cut[..cut.len() - 2], "a field is cut off"),
        (&inner_cut, "a field is cut off"),
        (&body("v1", "ConfigMap", &Message(vec![0x0b])), "wire type"),
        (&body("v1", "ConfigMap", &m().varint(1, 1)), "another type"),
        (&body("v1", "ConfigMap", &m().bytes(1, m().bytes(1, [0xff]))), "not UTF-8"),
        (&body("v1", "Teapot", &m()), r#"no kind "Teapot" is registered for version "v1""#),
        (&[MAGIC, &[0xff; 12]].concat(), "a number is too long"),
    ] {
        let error = to_json(bytes).unwrap_err();
        assert!(error.code() == 400 && error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn every_kind_can_be_read_with_every_field() {
    for (name, fields) in MESSAGES.iter() {
        for field in fields {
            let mut kind = &field.kind;
            while let Type::List(inner) | Type::Map(inner) = kind {
                kind = inner;
            }
            if let Type::Message(inner) = kind {
                assert!(MESSAGES.contains_key(inner), "{name}.{}: {inner}", field.name);
            }
        }
    }
    // Others are never sent to us.
    let sent = ALL.iter().filter(|kind| kind.verbs.contains(&"create"));
    for kind in sent.chain(crate::kind::OF_SUBRESOURCES) {
        assert!(message_of(&kind.api_version(), kind.kind).is_some(), "{kind:?} is in fields.txt");
    }
}
