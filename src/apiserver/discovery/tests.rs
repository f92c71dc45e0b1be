use super::*;
use crate::kind::{ALL, config_map};

static ONE: &[&Kind] = &[&config_map::KIND];

fn text(document: &Document) -> &str {
    std::str::from_utf8(&document.json).unwrap()
}

#[test]
fn entries_have_the_order_that_scripts_look_for() {
    let document = Discovery::new(ONE).group_version("", "v1").unwrap();
    assert_eq!(
        text(&document),
        r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"configmaps","singularName":"configmap","namespaced":true,"kind":"ConfigMap","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["cm"],"storageVersionHash":"qFsyl6wFWjQ="},{"name":"configmaps/history","singularName":"","namespaced":true,"group":"coracle.dev","version":"v1","kind":"ObjectHistory","verbs":["get"]}]}"#
    );
    assert_eq!(document.etag.len(), 66);
}

#[test]
fn the_aggregated_form_says_all_at_once() {
    let discovery = Discovery::new(ONE);
    assert_eq!(
        text(&discovery.aggregated(true, "v2")),
        r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[{"metadata":{"creationTimestamp":null},"versions":[{"version":"v1","resources":[{"resource":"configmaps","responseKind":{"group":"","version":"v1","kind":"ConfigMap"},"scope":"Namespaced","singularResource":"configmap","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["cm"],"subresources":[{"subresource":"history","responseKind":{"group":"coracle.dev","version":"v1","kind":"ObjectHistory"},"verbs":["get"]}]}],"freshness":"Current"}]}]}"#
    );
    assert!(text(&discovery.aggregated(false, "v2beta1")).ends_with(r#""metadata":{},"items":[]}"#));
}

#[test]
fn versions_and_groups() {
    let discovery = Discovery::new(ALL);
    assert_eq!(
        text(&discovery.legacy("127.0.0.1:6443")),
        r#"{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[{"clientCIDR":"0.0.0.0/0","serverAddress":"127.0.0.1:6443"}]}"#
    );
    assert!(text(&discovery.groups()).starts_with(r#"{"kind":"APIGroupList","apiVersion":"v1","groups":["#));
    assert!(discovery.group("teapots.example").is_none());
    assert!(discovery.group_version("", "v7").is_none());
    for (group, version) in discovery.group_versions() {
        assert!(discovery.group_version(group, version).is_some(), "{group}/{version}");
    }
}

#[test]
fn every_kind_sorts_its_verbs_and_has_an_own_name() {
    let mut names = std::collections::BTreeSet::new();
    for kind in ALL {
        assert!(kind.verbs.is_sorted(), "{kind:?}");
        assert!(names.insert((kind.group, kind.version, kind.plural)), "{kind:?}");
        for subresource in kind.subresources {
            assert!(subresource_verbs(*subresource).is_sorted());
        }
    }
}
