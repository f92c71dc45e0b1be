use futures_util::StreamExt;

use super::*;
use crate::clock::virtual_runtime;

/// A log with four lines a second apart and a fifth that has not ended.
async fn five_lines() -> Arc<Log> {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let log = Arc::new(Log::new(clock, 10_000));
    for text in ["one\n", "two\nthree\n", "four\n", "fi"] {
        log.write(text.as_bytes());
        clock.sleep(std::time::Duration::from_secs(1)).await;
    }
    log.write(b"v");
    log
}

async fn all(log: &Arc<Log>, query: LogQuery) -> String {
    let chunks: Vec<Bytes> = log.read(&query).collect().await;
    String::from_utf8(chunks.concat()).unwrap()
}

#[test]
fn a_query_selects() {
    let cases = [
        (LogQuery::default(), "one\ntwo\nthree\nfour\nfiv"),
        (LogQuery { tail_lines: Some(2), ..LogQuery::default() }, "four\nfiv"),
        (LogQuery { tail_lines: Some(0), ..LogQuery::default() }, ""),
        (LogQuery { tail_lines: Some(99), ..LogQuery::default() }, "one\ntwo\nthree\nfour\nfiv"),
        (
            LogQuery { since: Some("2026-01-01T00:00:01Z".parse().unwrap()), ..LogQuery::default() },
            "two\nthree\nfour\nfiv",
        ),
        (
            LogQuery {
                since: Some("2026-01-01T00:00:02Z".parse().unwrap()),
                tail_lines: Some(3),
                ..LogQuery::default()
            },
            "four\nfiv",
        ),
        (LogQuery { limit_bytes: Some(6), ..LogQuery::default() }, "one\ntw"),
        (LogQuery { limit_bytes: Some(0), ..LogQuery::default() }, ""),
        (
            LogQuery { timestamps: true, tail_lines: Some(2), ..LogQuery::default() },
            "2026-01-01T00:00:02.000000000Z four\n2026-01-01T00:00:03.000000000Z fiv",
        ),
    ];
    virtual_runtime().unwrap().block_on(async {
        let log = five_lines().await;
        for (query, expected) in cases {
            assert_eq!(all(&log, query.clone()).await, expected, "{query:?}");
        }
        assert_eq!(log.tail(2, 100), "four\nfiv");
        assert_eq!(log.tail(2, 5), "r\nfiv");
        log.close();
        log.write(b"too late");
        assert_eq!(all(&log, LogQuery::default()).await, "one\ntwo\nthree\nfour\nfiv");
    });
}

#[test]
fn followers_see_what_is_added_until_the_end() {
    virtual_runtime().unwrap().block_on(async {
        let log = five_lines().await;
        let follow = |tail_lines| LogQuery { follow: true, tail_lines, ..LogQuery::default() };
        let readers = [None, Some(1), Some(0)].map(|tail| {
            let log = Arc::clone(&log);
            tokio::spawn(async move { all(&log, follow(tail)).await })
        });
        tokio::task::yield_now().await;
        for text in ["e\n", "six\nsev", "en"] {
            log.write(text.as_bytes());
            tokio::task::yield_now().await;
        }
        log.close();
        let expected = ["one\ntwo\nthree\nfour\nfive\nsix\nseven", "five\nsix\nseven", "e\nsix\nseven"];
        for (reader, expected) in readers.into_iter().zip(expected) {
            assert_eq!(reader.await.unwrap(), expected);
        }
    });
}

#[test]
fn a_limit_ends_following() {
    virtual_runtime().unwrap().block_on(async {
        let log = five_lines().await;
        let query = LogQuery { follow: true, limit_bytes: Some(4), ..LogQuery::default() };
        assert_eq!(all(&log, query).await, "one\n");
    });
}

#[test]
fn the_oldest_lines_go_first() {
    virtual_runtime().unwrap().block_on(async {
        let log = Arc::new(Log::new(Clock::starting_at(Timestamp::UNIX_EPOCH), 10_000));
        let mut slow = log.read(&LogQuery { follow: true, ..LogQuery::default() });
        log.write(b"first\n");
        assert_eq!(slow.next().await.unwrap(), "first\n");
        for n in 0..10_000 {
            log.write(format!("line {n}\n").as_bytes());
        }
        let kept = all(&log, LogQuery::default()).await;
        assert!(kept.ends_with("line 9999\n") && kept.starts_with("line "), "{kept}");
        assert!(kept.len() < 10_000, "{}", kept.len());
        log.close();
        let rest: Vec<Bytes> = slow.collect().await;
        assert_eq!(rest.concat(), kept.as_bytes());
    });
}

#[test]
fn a_line_without_end_is_bounded_too() {
    virtual_runtime().unwrap().block_on(async {
        let log = Arc::new(Log::new(Clock::starting_at(Timestamp::UNIX_EPOCH), 100_000));
        for _ in 0..1_000 {
            log.write(&[b'x'; 1_000]);
        }
        let query = LogQuery { timestamps: true, ..LogQuery::default() };
        let kept = all(&log, query).await;
        assert!(kept.len() < 120_000 && kept.len() > 50_000, "{}", kept.len());
        assert_eq!(kept.matches('Z').count(), 1);
        log.write(b"\nnext\n");
        assert_eq!(log.tail(1, 100), "next\n");
    });
}
