use super::*;

/// The route as a short line: `list configmaps in a`.
fn show(method: &str, url: &str) -> String {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let watch = Query::parse(query).flag("watch").unwrap_or(false);
    match route(method, path, watch) {
        Err(Refusal::NoPage) => "no page".to_owned(),
        Err(Refusal::Status(error)) => format!("{} {error}", error.code()),
        Ok(Route::Document(document)) => format!("{document:?}"),
        Ok(Route::Resource(target)) => {
            let mut line = format!("{} {}", target.verb.name(), target.kind.plural);
            if let Some(name) = target.name {
                line += &format!(" {name}");
            }
            if let Some(subresource) = target.subresource {
                line += &format!(" {}", subresource.name());
            }
            if let Some(namespace) = target.namespace {
                line += &format!(" in {namespace}");
            }
            line
        }
    }
}

#[test]
fn urls_lead_where_kubernetes_leads_them() {
    for (method, url, expected) in [
        ("GET", "/api/v1/configmaps", "list configmaps"),
        ("GET", "/api/v1/configmaps?watch=1", "watch configmaps"),
        ("GET", "/api/v1/configmaps?watch=false", "list configmaps"),
        ("GET", "/api/v1/namespaces/a/configmaps?watch", "watch configmaps in a"),
        ("GET", "/api/v1/namespaces/a/configmaps/", "list configmaps in a"),
        ("POST", "/api/v1/namespaces/a/configmaps", "create configmaps in a"),
        ("DELETE", "/api/v1/namespaces/a/configmaps", "deletecollection configmaps in a"),
        ("GET", "/api/v1/namespaces/a/configmaps/b", "get configmaps b in a"),
        ("GET", "/api/v1/namespaces/a/configmaps/b?watch=1", "get configmaps b in a"),
        ("GET", "/api/v1/namespaces/a/configmaps/b%2Dc", "get configmaps b-c in a"),
        ("PUT", "/api/v1/namespaces/a/configmaps/b", "update configmaps b in a"),
        ("PATCH", "/api/v1/namespaces/a/configmaps/b", "patch configmaps b in a"),
        ("DELETE", "/api/v1/namespaces/a/configmaps/b", "delete configmaps b in a"),
        ("POST", "/api/v1/namespaces/a/configmaps/b", "405 Method not allowed"),
        ("POST", "/api/v1/configmaps", "405 Method not allowed"),
        ("DELETE", "/api/v1/configmaps", "405 Method not allowed"),
        ("BREW", "/api/v1/configmaps", "405 Method not allowed"),
        ("GET", "/api/v1/configmaps/b", "404 the server could not find the requested resource"),
        ("GET", "/api/v1/teapots", "404 the server could not find the requested resource"),
        (
            "GET",
            "/api/v1/namespaces/a/configmaps/b/status",
            "404 the server could not find the requested resource",
        ),
        ("GET", "/api/v1/namespaces/a/configmaps/..", "400 invalid resource name \"..\""),
        ("GET", "/apis/teapots.example/v1/teapots", "no page"),
        ("GET", "/", "Index"),
        ("GET", "/api", "Legacy"),
        ("GET", "/api/", "Legacy"),
        ("GET", "/api/v1", r#"GroupVersion("", "v1")"#),
        ("GET", "/apis", "Groups"),
        ("GET", "/apis/batch", r#"Group("batch")"#),
        ("GET", "/apis/batch/v1", r#"GroupVersion("batch", "v1")"#),
        ("GET", "/openapi/v3/apis/batch/v1?hash=1", r#"OpenApi("apis/batch/v1")"#),
        ("HEAD", "/readyz", r#"Health("readyz", None)"#),
        ("GET", "/livez/ping", r#"Health("livez", Some("ping"))"#),
        ("POST", "/version", "405 Method not allowed"),
        ("GET", "/teapot", "no page"),
    ] {
        assert_eq!(show(method, url), expected, "{method} {url}");
    }
}

#[test]
fn options_are_read_as_apimachinery_reads_them() {
    let query = Query::parse(
        "limit=500&continue=&labelSelector=a%3Db%2Cc+in+(d)&dryRun=All&dryRun=x&force=&gracePeriodSeconds=-1\
         &timeoutSeconds=-5&allowWatchBookmarks=true&sendInitialEvents=0&tailLines=3&sinceTime=2024-01-02T03:04:05Z",
    );
    let options = options(&query).unwrap();
    assert_eq!(options.limit, Some(500));
    assert_eq!(options.continue_token, None);
    assert_eq!(options.label_selector.as_deref(), Some("a=b,c in (d)"));
    assert_eq!(options.dry_run, ["All", "x"]);
    assert_eq!(options.force, Some(true));
    assert_eq!(options.grace_period_seconds, Some(-1));
    assert_eq!(options.timeout_seconds, None);
    assert!(options.allow_watch_bookmarks);
    assert_eq!(options.send_initial_events, Some(false));
    assert_eq!(options.log.tail_lines, Some(3));
    assert_eq!(options.log.since_time.unwrap().to_string(), "2024-01-02T03:04:05Z");
}

#[test]
fn bad_values_are_told() {
    for (query, expected) in [
        ("limit=many", r#"invalid value "many" of the query parameter limit: it must be a whole number"#),
        (
            "tailLines=-1",
            r#"invalid value "-1" of the query parameter tailLines: it must be greater than or equal to 0"#,
        ),
        (
            "sinceTime=noon",
            r#"invalid value "noon" of the query parameter sinceTime: it must be a time as RFC 3339 writes it, like 2006-01-02T15:04:05Z"#,
        ),
    ] {
        let error = options(&Query::parse(query)).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (400, expected));
    }
}
