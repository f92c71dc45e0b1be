use super::*;

const SECRET: KeyText<'static> = KeyText { collection: "secrets", namespace: "ns", name: "a" };
const VERSION: Version<'static> = Version { key: SECRET, created: 3, revision: 7 };

fn sealed(key: &DataKey) -> Vec<u8> {
    let mut buffer = b"before".to_vec();
    key.seal(&VERSION, &mut buffer, 6, |buffer| buffer.extend_from_slice(b"canary"));
    buffer.drain(..6);
    buffer
}

#[test]
fn a_box_opens_as_what_it_was_sealed() {
    let key = DataKey::generate();
    let sealed = sealed(&key);
    assert_eq!(sealed.len(), 6 + SEAL_BYTES);
    assert!(!sealed.windows(3).any(|window| b"canary".windows(3).any(|part| part == window)));
    assert_eq!(key.open(&VERSION, &sealed).unwrap().as_slice(), b"canary");
    // The same once more is other bytes.
    assert_ne!(sealed, super::tests::sealed(&key));
}

#[test]
fn a_box_does_not_open_as_anything_else() {
    let key = DataKey::generate();
    let sealed = sealed(&key);
    let with_name = |name| KeyText { name, ..SECRET };
    // The parts of a key do not run into each other.
    let shifted = KeyText { namespace: "nsa", name: "", ..SECRET };
    let others = [
        Version { key: with_name("b"), ..VERSION },
        Version { key: shifted, ..VERSION },
        Version { key: KeyText { namespace: "other", ..SECRET }, ..VERSION },
        Version { key: KeyText { collection: "configmaps", ..SECRET }, ..VERSION },
        Version { created: 4, ..VERSION },
        Version { revision: 8, ..VERSION },
    ];
    for (i, other) in others.iter().enumerate() {
        assert!(key.open(other, &sealed).is_none(), "case {i}");
    }
    assert!(DataKey::generate().open(&VERSION, &sealed).is_none());
    let same_bytes = DataKey::of(DataKey::generate().id, key.bytes.clone());
    assert!(same_bytes.open(&VERSION, &sealed).is_none(), "another key's name");
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 1;
        assert!(key.open(&VERSION, &bad).is_none(), "flipped at {at}");
        assert!(key.open(&VERSION, &sealed[..at]).is_none(), "cut at {at}");
    }
}

#[test]
fn nothing_printed_tells_a_key() {
    let key = DataKey::of(DataKeyId([0x11; 16]), Zeroizing::new([0x77; KEY_BYTES]));
    assert_eq!(format!("{key:?}"), format!("DataKey({})", "11".repeat(16)));
}
