use super::*;

fn settings(pairs: &[(&str, &[u8])], part: Option<&str>) -> Settings {
    let values = pairs.iter().map(|(key, value)| ((*key).to_owned(), Bytes::copy_from_slice(value)));
    Settings { values: Arc::new(values.collect()), part: part.map(Arc::from) }
}

#[test]
fn later_settings_win_and_only_text_is_shown() {
    let volume: &[(&str, &[u8])] = &[("d/a", b"deep"), ("d/b", b"\xff"), ("dd", b"no"), ("k", b"file")];
    let shown = Shown {
        settings: vec![settings(&[("k", b"env"), ("only", b"1")], None), settings(volume, None)],
        ..Shown::default()
    };
    let pairs: Vec<_> = shown.all().into_iter().collect();
    assert_eq!(pairs, [("d/a", "deep"), ("dd", "no"), ("k", "file"), ("only", "1")]);
    for (key, value) in [("k", Some("file")), ("only", Some("1")), ("d/b", None), ("none", None), ("d", None)]
    {
        assert_eq!(shown.get(key), value, "{key}");
    }
    // What is not text hides nothing.
    let shown = Shown {
        settings: vec![settings(&[("k", b"env")], None), settings(&[("k", b"\xff")], None)],
        ..Shown::default()
    };
    assert_eq!((shown.get("k"), shown.all().get("k")), (Some("env"), Some(&"env")));
    for (part, keys) in [("d", &["d/a"][..]), ("d/a", &["d/a"]), ("k", &["k"]), ("none", &[])] {
        let shown = Shown { settings: vec![settings(volume, Some(part))], ..Shown::default() };
        assert_eq!(shown.all().into_keys().collect::<Vec<_>>(), keys, "{part}");
        assert_eq!(shown.get("dd"), None);
    }
}

#[test]
fn a_change_is_heard_of_once_and_never_missed() {
    crate::clock::virtual_runtime().unwrap().block_on(async {
        let clock = crate::clock::Clock::starting_at(jiff::Timestamp::UNIX_EPOCH);
        let config = Config::default();
        let show = |revision| config.show(Shown { revision, ..Shown::default() });
        let is_ready = async |seen, config: Option<&Config>| {
            let mut change = Change { seen, news: config.map(|config| config.0.subscribe()) };
            clock.timeout(std::time::Duration::from_secs(3600), change.ready()).await.is_ok()
        };
        assert!(!is_ready(0, Some(&config)).await);
        show(7);
        // Whoever has seen another one is told at once, even if nothing changes any more.
        assert!(is_ready(0, Some(&config)).await);
        assert!(is_ready(6, Some(&config)).await);
        assert!(!is_ready(7, Some(&config)).await);
        show(7);
        assert!(!is_ready(7, Some(&config)).await);
        // Without a configuration the revision is 0 for good.
        assert!(is_ready(1, None).await);
        assert!(!is_ready(0, None).await);
        let mut waiting = Change { seen: 7, news: Some(config.0.subscribe()) };
        let (_, ()) = tokio::join!(waiting.ready(), async { show(8) });
    });
}
