use super::*;
use crate::kind::Object;
use k8s_openapi::api::core::v1::ConfigMap;

const MOMENT: Moment = Moment(1_700_000_000_123_456);

fn record(name: &str, revision: Revision) -> std::sync::Arc<Record> {
    let key = Key { collection: "configmaps", namespace: "ns".into(), name: name.into() };
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    let encoded = map.encode();
    Record::commit(key, revision, 3, MOMENT, None, Box::new(map), &encoded)
}

fn transaction() -> Vec<u8> {
    let put = Event { revision: 7, record: record("a", 7), previous: None, deleted: false };
    let delete = Event { revision: 8, record: record("b", 8), previous: Some(record("b", 4)), deleted: true };
    let mut buffer = Vec::new();
    put_transaction(&mut buffer, 99, MOMENT, &[put, delete]);
    buffer
}

#[test]
fn a_transaction_comes_back() {
    let buffer = transaction();
    let Some(LogFrame::Transaction { first, committed, writes }) = parse_log(&buffer[FRAME_HEADER_BYTES..])
    else {
        panic!("a transaction")
    };
    assert_eq!((first, committed), (7, MOMENT));
    let key = |name| KeyText { collection: "configmaps", namespace: "ns", name };
    assert_eq!((writes[0].revision, writes[0].key), (7, key("a")));
    assert_eq!(writes[1], Logged { revision: 8, key: key("b"), put: None });
    let content = writes[0].put.unwrap();
    let expected = record("a", 7);
    let read = |revision| content.record(expected.key.clone(), revision, committed, None);
    let Ok(Stored::Record(record)) = read(7) else { panic!("a record") };
    assert_eq!(
        (record.created, &record.json, record.revision_at()),
        (3, &expected.json, expected.revision_at())
    );
    // The bytes of another revision are not taken for this one's.
    assert_eq!(read(70).err(), Some("an object's bytes do not carry its revision"));
    assert!(!format!("{writes:?}").contains("ConfigMap"));
}

#[test]
fn no_cut_payload_makes_sense() {
    let buffer = transaction();
    let payload = &buffer[FRAME_HEADER_BYTES..];
    for end in 0..payload.len() {
        assert_eq!(parse_log(&payload[..end]), None, "cut at {end}");
    }
    let mut longer = payload.to_vec();
    longer.push(0);
    assert_eq!(parse_log(&longer), None);
}

#[test]
fn no_payload_makes_it_panic() {
    let buffer = transaction();
    for at in FRAME_HEADER_BYTES..buffer.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = buffer.clone();
            bytes[at] = value;
            // Anything but a panic or an endless allocation.
            drop(parse_log(&bytes[FRAME_HEADER_BYTES..]));
            drop(parse_snapshot(&bytes[FRAME_HEADER_BYTES..]));
        }
    }
}

#[test]
fn a_mark_is_of_its_collections() {
    assert_eq!(sealed_mark(&["a", "b"]), sealed_mark(&["b", "a"]));
    assert_ne!(sealed_mark(&["a"]), sealed_mark(&["a", "b"]));
    assert_ne!(sealed_mark(&[]), 0);
}

#[test]
fn a_header_tells_what_is_wrong() {
    let good = header(Contents::Log, 5, 9);
    assert_eq!(check_header(&good, Contents::Log, 5), Ok((FORMAT, 9)));
    assert_eq!(check_header(&header_of(1, Contents::Log, 5, 0), Contents::Log, 5), Ok((1, 0)));
    let misplaced = Err(HeaderError::Damaged("the header does not belong to a file of this name"));
    assert_eq!(check_header(&good, Contents::Log, 6), misplaced);
    assert_eq!(check_header(&good, Contents::Snapshot, 5), misplaced);
    assert_eq!(check_header(&header_of(0, Contents::Log, 5, 0), Contents::Log, 5), misplaced);
    assert_eq!(
        check_header(&header_of(7, Contents::Log, 5, 0), Contents::Log, 5),
        Err(HeaderError::Newer(7))
    );
    for at in 0..HEADER_BYTES {
        let mut bad = good;
        bad[at] ^= 4;
        let foreign = Err(HeaderError::Damaged("the header is not one of Coracle's"));
        assert_eq!(check_header(&bad, Contents::Log, 5), foreign, "at {at}");
    }
}

#[test]
fn what_was_flushed_is_known_from_what_came_later() {
    let mut tail = b"not a frame at all".to_vec();
    assert!(!was_flushed(&tail, 1000));
    // Written before anything behind byte 1000 was flushed.
    put_closed(&mut tail, 1000);
    assert!(!was_flushed(&tail, 1000));
    let at = 1000 + to_u64(tail.len());
    put_closed(&mut tail, at);
    assert!(was_flushed(&tail, 1000));
}
