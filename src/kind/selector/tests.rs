use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split_whitespace()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn label_selectors_match() {
    for (selector, set, matches) in [
        ("", "", true),
        ("", "a=b", true),
        ("a=b", "a=b", true),
        ("a==b", "a=b", true),
        ("a=b", "a=c", false),
        ("a=b", "", false),
        ("a!=b", "a=b", false),
        ("a!=b", "a=c", true),
        ("a!=b", "", true),
        ("a in (x,y)", "a=y", true),
        ("a in (x,y)", "a=z", false),
        ("a in (x,y)", "", false),
        ("a notin (x)", "a=x", false),
        ("a notin (x)", "", true),
        ("a", "a=", true),
        ("a", "b=", false),
        ("!a", "b=", true),
        ("!a", "a=1", false),
        ("a=", "a=", true),
        ("a in (,x)", "a=", true),
        ("a>5", "a=6", true),
        ("a<5", "a=6", false),
        ("a>5", "a=x", false),
        (" a = b , c ", "a=b c=d", true),
        ("example.com/a=b,c notin (d)", "example.com/a=b c=d", false),
        ("a=in", "a=in", true),
    ] {
        let parsed = LabelSelector::parse(selector).unwrap_or_else(|why| panic!("{selector}: {why}"));
        assert_eq!(parsed.matches(Some(&labels(set))), matches, "{selector} on {set}");
    }
    assert!(LabelSelector::parse("!a").unwrap().matches(None));
}

#[test]
fn bad_label_selectors_say_what_was_found() {
    for (selector, why) in [
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in x", "unable to parse requirement: found 'x' expected: '('"),
        ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
    ] {
        assert_eq!(LabelSelector::parse(selector).unwrap_err(), why, "{selector}");
    }
    for selector in ["a in ()", "-a=b", "a=-b", "/a", "A.b/x/y", "a>x"] {
        assert!(LabelSelector::parse(selector).is_err(), "{selector}");
    }
}

#[test]
fn a_spec_selector_of_nothing_matches_all_and_a_missing_one_none() {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
    let all = LabelSelector::from_meta(Some(&MetaSelector::default())).unwrap();
    assert!(all.matches(None) && all.matches_everything());
    assert!(!LabelSelector::from_meta(None).unwrap().matches(None));
    let selector = MetaSelector {
        match_labels: Some(labels("a=b")),
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: "c".into(),
            operator: "Exists".into(),
            values: None,
        }]),
    };
    let selector = LabelSelector::from_meta(Some(&selector)).unwrap();
    assert!(selector.matches(Some(&labels("a=b c=d"))));
    assert!(!selector.matches(Some(&labels("a=b"))));
}

#[test]
fn field_selectors_match() {
    for (selector, matches) in [
        ("", true),
        ("metadata.name=a", true),
        ("metadata.name==a", true),
        ("metadata.name!=a", false),
        ("metadata.name=a,spec.nodeName=", true),
        ("metadata.name=a,spec.nodeName!=", false),
        (r"metadata.name=a\,b", false),
    ] {
        let parsed = FieldSelector::parse(selector).unwrap();
        let value = |field: &str| (field == "metadata.name").then_some(Cow::Borrowed("a"));
        assert_eq!(parsed.matches(value), matches, "{selector}");
    }
    assert_eq!(FieldSelector::parse("a=b,c!=d").unwrap().required("a"), Some("b"));
    assert_eq!(FieldSelector::parse("a=b,c!=d").unwrap().required("c"), None);
    for selector in ["a", "a=b,c", r"a=b\c"] {
        assert!(FieldSelector::parse(selector).is_err(), "{selector}");
    }
}
