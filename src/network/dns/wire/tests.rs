use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn zone(pods: u8) -> Zone {
    let mut zone = Zone::default();
    let service = |name: &str, spec: serde_json::Value| {
        let json = json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec});
        Arc::new(serde_json::from_value::<Service>(json).unwrap())
    };
    zone.set_service(service(
        "web",
        json!({"clusterIP": "127.96.0.9", "ports": [{"name": "http", "port": 80}]}),
    ));
    zone.set_service(service("pods", json!({"clusterIP": "None"})));
    zone.set_service(service("far", json!({"type": "ExternalName", "externalName": "example.com"})));
    let endpoint = |i: u8| json!({"addresses": [format!("127.128.1.{i}")]});
    let slice = json!({
        "metadata": {"name": "pods-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "pods"}},
        "addressType": "IPv4",
        "endpoints": (0..pods).map(endpoint).collect::<Vec<_>>(),
    });
    zone.set_slice(Arc::new(serde_json::from_value::<EndpointSlice>(slice).unwrap()));
    zone
}

fn asked(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn answered(zone: &Zone, asked: &Message, transport: Transport) -> Message {
    match reply(zone, &asked.to_vec().unwrap(), transport) {
        Reply::Answer(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_keeps_the_name_as_it_was_written_and_speaks_for_the_zone() {
    let asked = asked("wEb.N.svc.Cluster.Local.", RecordType::A);
    let answer = answered(&zone(1), &asked, Transport::Udp);
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, ResponseCode::NoError));
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert!(answer.metadata.recursion_desired && !answer.metadata.truncation);
    assert_eq!(answer.queries, asked.queries);
    let [record] = answer.answers.as_slice() else { panic!("{answer:?}") };
    assert_eq!(record.name.to_ascii(), "wEb.N.svc.Cluster.Local.");
    assert_eq!((record.ttl, record.data.to_string().as_str()), (TTL_SECONDS, "127.96.0.9"));
    assert!(answer.authorities.is_empty() && answer.edns.is_none());
}

#[test]
fn what_is_not_there_is_told_with_how_long_that_holds() {
    for (name, kind, code) in [
        ("web.n.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError),
        ("web.m.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
    ] {
        let answer = answered(&zone(1), &asked(name, kind), Transport::Udp);
        assert_eq!(answer.metadata.response_code, code, "{name}");
        assert!(answer.answers.is_empty() && answer.metadata.authoritative, "{name}");
        let [record] = answer.authorities.as_slice() else { panic!("{answer:?}") };
        let RData::SOA(soa) = &record.data else { panic!("{record:?}") };
        assert_eq!((record.name.to_ascii().as_str(), soa.minimum), ("cluster.local.", TTL_SECONDS), "{name}");
    }
}

#[test]
fn services_tell_their_ports() {
    let question = asked("_http._tcp.web.n.svc.cluster.local.", RecordType::SRV);
    let answer = answered(&zone(1), &question, Transport::Udp);
    assert_eq!(answer.answers[0].data.to_string(), "0 100 80 web.n.svc.cluster.local.");
    assert_eq!(answer.additionals[0].data.to_string(), "127.96.0.9");
}

#[test]
fn an_answer_that_is_too_large_comes_over_tcp() {
    let zone = zone(200);
    let mut asked = asked("pods.n.svc.cluster.local.", RecordType::A);
    let small = answered(&zone, &asked, Transport::Udp);
    assert!(small.metadata.truncation && small.answers.is_empty());
    assert_eq!(answered(&zone, &asked, Transport::Tcp).answers.len(), 200);

    let mut edns = Edns::new();
    edns.set_max_payload(65_000);
    asked.set_edns(edns);
    let large = answered(&zone, &asked, Transport::Udp);
    assert!(large.metadata.truncation, "more than {UDP_BYTES_MAX} bytes get lost");
    assert_eq!(large.edns.map(|edns| edns.max_payload()), Some(UDP_BYTES_MAX));
}

#[test]
fn addresses_take_turns() {
    let zone = zone(3);
    let first = |id| {
        let mut asked = asked("pods.n.svc.cluster.local.", RecordType::A);
        asked.metadata.id = id;
        answered(&zone, &asked, Transport::Udp).answers[0].data.to_string()
    };
    let firsts: std::collections::BTreeSet<String> = (0..3).map(first).collect();
    assert_eq!(firsts.len(), 3);
}

#[test]
fn others_are_asked_for_other_names() {
    let question =
        |name: &str, asked: Message| match reply(&zone(1), &asked.to_vec().unwrap(), Transport::Udp) {
            Reply::Others(question) => *question,
            other => panic!("{name}: {other:?}"),
        };
    let address = |name: &str| {
        let name = Name::from_ascii(name).unwrap();
        WireRecord::from_rdata(name, 60, RData::A(A(std::net::Ipv4Addr::new(93, 184, 216, 34))))
    };
    // A name that is none of the cluster's.
    let plain = question("plain", asked("example.com.", RecordType::A));
    let forwarded = Message::from_vec(&plain.forward(99).unwrap()).unwrap();
    assert_eq!((forwarded.metadata.id, forwarded.queries[0].name().to_ascii()), (99, "example.com.".into()));
    let mut others = Message::response(99, OpCode::Query);
    others.add_queries(forwarded.queries.clone());
    others.add_answer(address("example.com."));
    let bytes = others.to_vec().unwrap();
    let others = matching(&forwarded.to_vec().unwrap(), &bytes).unwrap();
    assert_eq!(addresses(&others).unwrap().len(), 1);
    let answer = Message::from_vec(&plain.reply(Some(others))).unwrap();
    assert_eq!((answer.metadata.id, answer.answers.len()), (7, 1));
    assert!(!answer.metadata.authoritative);
    // A name of the cluster's for one that is not.
    let alias = question("alias", asked("far.n.svc.cluster.local.", RecordType::A));
    let forwarded = Message::from_vec(&alias.forward(98).unwrap()).unwrap();
    assert_eq!(forwarded.queries[0].name().to_ascii(), "example.com.");
    let mut others = Message::response(98, OpCode::Query);
    others.add_answer(address("example.com."));
    let answer = Message::from_vec(&alias.reply(Some(others))).unwrap();
    let kinds: Vec<RecordType> = answer.answers.iter().map(WireRecord::record_type).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
    // Nobody answers; nobody was to be asked.
    let lost = question("lost", asked("example.com.", RecordType::A));
    let answer = Message::from_vec(&lost.reply(None)).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let mut alone = asked("example.com.", RecordType::A);
    alone.metadata.recursion_desired = false;
    let alone = question("alone", alone);
    assert!(alone.forward(1).is_none());
    assert_eq!(Message::from_vec(&alone.reply(None)).unwrap().metadata.response_code, ResponseCode::Refused);
}

#[test]
fn answers_to_other_questions_are_not_believed() {
    let ours = address_query("example.com", 5, Transport::Udp).unwrap();
    let mut answer = Message::response(5, OpCode::Query);
    answer.add_queries(Message::from_vec(&ours).unwrap().queries);
    assert!(matching(&ours, &answer.to_vec().unwrap()).is_some());
    answer.metadata.id = 6;
    assert!(matching(&ours, &answer.to_vec().unwrap()).is_none());
    let other = address_query("example.org", 5, Transport::Udp).unwrap();
    assert!(matching(&ours, &other).is_none());
    assert!(matching(&ours, b"").is_none());
}

#[test]
fn what_is_no_question_is_refused_or_left_unanswered() {
    let zone = zone(1);
    let plain = asked("web.n.svc.cluster.local.", RecordType::A);
    let bytes = plain.to_vec().unwrap();
    let code = |bytes: &[u8]| match reply(&zone, bytes, Transport::Udp) {
        Reply::Nothing => "nothing".to_owned(),
        Reply::Answer(bytes) => format!("{:?}", Message::from_vec(&bytes).unwrap().metadata.response_code),
        Reply::Others(_) => "others".to_owned(),
    };
    let changed = |change: &dyn Fn(&mut Message)| {
        let mut message = plain.clone();
        change(&mut message);
        message.to_vec().unwrap()
    };
    for (what, bytes, expected) in [
        ("a question", bytes.clone(), "NoError"),
        ("half a header", bytes[..11].to_vec(), "nothing"),
        ("half a question", bytes[..20].to_vec(), "FormErr"),
        ("no question", changed(&|message| message.queries.clear()), "FormErr"),
        ("an answer", changed(&|message| message.metadata.message_type = MessageType::Response), "nothing"),
        ("an update", changed(&|message| message.metadata.op_code = OpCode::Update), "NotImp"),
        ("the whole zone", asked("cluster.local.", RecordType::AXFR).to_vec().unwrap(), "Refused"),
        (
            "another class",
            changed(&|message| {
                message.queries[0].set_query_class(DNSClass::CH);
            }),
            "Refused",
        ),
        (
            "two questions",
            changed(&|message| {
                let again = message.queries[0].clone();
                message.add_query(again);
            }),
            "FormErr",
        ),
    ] {
        assert_eq!(code(&bytes), expected, "{what}");
    }
}

/// A header that counts so many questions, answers, authorities and additionals, and what follows.
fn message(counts: [u16; 4], rest: &[&[u8]]) -> Vec<u8> {
    let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
    [&[0, 7, 1, 0], &counts[..], &rest.concat()].concat()
}

#[test]
fn messages_that_lie_are_refused() {
    const NAME: &[u8] = b"\x03web\x01n\x03svc\x07cluster\x05local\0";
    const ADDRESS: &[u8] = &[0, 1, 0, 1];
    let long = [b"\x3f".as_slice(), &[b'x'; 63]].concat().repeat(5);
    // Each two bytes go on at the two before them.
    let stairs: Vec<u8> = (0..100_u8).flat_map(|step| [0xc0, 10 + 2 * step]).collect();
    for (what, bytes) in [
        ("a name that goes on at itself", message([1, 0, 0, 0], &[&[0xc0, 12], ADDRESS])),
        ("two that go on at each other", message([1, 0, 0, 0], &[&[0xc0, 14, 0xc0, 12], ADDRESS])),
        ("a name that goes on behind itself", message([1, 0, 0, 0], &[&[0xc0, 18], ADDRESS, NAME])),
        ("a name that goes on beyond the end", message([1, 0, 0, 0], &[&[0xff, 0xff], ADDRESS])),
        ("a label and a loop", message([1, 0, 0, 0], &[b"\x03web\xc0\x0c", ADDRESS])),
        ("half of a pointer", message([1, 0, 0, 0], &[&[0xc0]])),
        ("a label of a kind that is none", message([1, 0, 0, 0], &[b"\x43web\0", ADDRESS])),
        ("a name that is too long", message([1, 0, 0, 0], &[&long, &[0], ADDRESS])),
        ("a name without an end", message([1, 0, 0, 0], &[&long])),
        ("more questions than there are", message([0xffff, 0, 0, 0], &[NAME, ADDRESS])),
        ("more answers than there are", message([1, 0xffff, 0, 0], &[NAME, ADDRESS])),
        ("more authorities than there are", message([1, 0, 1, 0], &[NAME, ADDRESS])),
        ("more additionals than there are", message([1, 0, 0, 1], &[NAME, ADDRESS])),
        (
            "options that go on beyond the end",
            message([1, 0, 0, 1], &[NAME, ADDRESS, &[0, 0, 41, 4, 0, 0, 0, 0, 0, 0xff, 0xff]]),
        ),
        ("many names that go on in each other", message([100, 0, 0, 0], &[&stairs, ADDRESS])),
    ] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let Reply::Answer(answer) = reply(&zone(1), &bytes, transport) else { panic!("{what}") };
            let answer = Message::from_vec(&answer).unwrap();
            let told = (answer.metadata.id, answer.metadata.response_code);
            assert_eq!(told, (7, ResponseCode::FormErr), "{what}");
        }
    }
}

proptest! {
    #[test]
    fn questions_with_many_changes_are_taken(
        edits in prop::collection::vec((any::<u16>(), any::<u8>()), 0..12),
        counts in prop::option::of(any::<[u8; 8]>()),
        pointer in prop::option::of((any::<u16>(), 0_u16..128)),
        more in prop::collection::vec(any::<u8>(), 0..40),
        length in 12_usize..160,
        kind in prop::sample::select(vec![RecordType::A, RecordType::SRV, RecordType::ANY, RecordType::AAAA]),
        over_tcp in any::<bool>(),
    ) {
        let mut whole = asked("_http._tcp.pods.n.svc.cluster.local.", kind);
        whole.set_edns(Edns::new());
        let mut bytes = whole.to_vec().unwrap();
        bytes.extend(more);
        for (at, byte) in edits {
            let at = 12 + usize::from(at) % (bytes.len() - 12);
            bytes[at] = byte;
        }
        if let Some(counts) = counts {
            bytes[4..12].copy_from_slice(&counts);
        }
        if let Some((at, to)) = pointer {
            let at = 12 + usize::from(at) % (bytes.len() - 13);
            bytes[at..at + 2].copy_from_slice(&(0xc000 | to).to_be_bytes());
        }
        bytes.truncate(length);
        let transport = if over_tcp { Transport::Tcp } else { Transport::Udp };
        // Whatever is answered is an answer to that question, and no longer than it may be.
        let checked = |answer: &[u8]| {
            let message = Message::from_vec(answer).unwrap();
            prop_assert_eq!((message.metadata.id, message.metadata.message_type), (7, MessageType::Response));
            prop_assert!(over_tcp || answer.len() <= usize::from(UDP_BYTES_MAX), "{} bytes", answer.len());
            Ok(())
        };
        match reply(&zone(40), &bytes, transport) {
            Reply::Nothing => prop_assert!(false, "a question is always answered: {:?}", bytes),
            Reply::Answer(answer) => checked(&answer)?,
            Reply::Others(question) => {
                if let Some(forward) = question.forward(9) {
                    prop_assert_eq!(Message::from_vec(&forward).unwrap().queries.len(), 1);
                }
                checked(&question.reply(None))?;
            }
        }
    }
    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let ours = address_query("example.com", 5, Transport::Udp).unwrap();
        prop_assert!(matching(&ours, &bytes).is_none());
        for transport in [Transport::Udp, Transport::Tcp] {
            // Whatever is answered, it is an answer.
            if let Reply::Answer(answer) = reply(&zone(2), &bytes, transport) {
                prop_assert!(answer[2] & 0x80 != 0, "{answer:?}");
            }
        }
    }

    #[test]
    fn questions_with_changed_bytes_are_taken(at in 0_usize..60, byte in any::<u8>(), length in 0_usize..60) {
        let mut bytes = asked("_http._tcp.pods.n.svc.cluster.local.", RecordType::SRV).to_vec().unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(length);
        if let Reply::Answer(answer) = reply(&zone(2), &bytes, Transport::Udp) {
            prop_assert!(answer[2] & 0x80 != 0, "{answer:?}");
        }
    }

    #[test]
    fn any_name_is_taken(name in ".{0,300}") {
        let below = format!("{name}.n.svc.cluster.local");
        for kind in [Type::A, Type::Srv, Type::Ptr, Type::Any] {
            let answer = zone(2).answer(&below, kind).unwrap();
            prop_assert!(answer.records.len() <= 3, "{answer:?}");
        }
        if let Some(query) = address_query(&name, 1, Transport::Udp) {
            prop_assert!(Message::from_vec(&query).is_ok());
        }
    }
}
