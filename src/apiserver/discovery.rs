//! What is served, as clients find out: `/api`, `/apis` and below (BEHAVIOURS 7.1, 7.2, 2.8).
//!
//! Everything is derived from the list of kinds. Fields are declared in the order in which they are
//! written, because scripts look for them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::path::subresource_verbs;
use crate::kind::{Kind, Scope, Subresource, eviction, scale, token_request};

/// A document that is sent as it is, with the tag by which clients ask whether it changed.
#[derive(Clone, Debug)]
pub struct Document {
    pub json: Bytes,
    /// With its quotes.
    pub etag: String,
}

impl Document {
    fn new(content: &impl Serialize) -> Self {
        let json = serde_json::to_vec(content).expect("a discovery document has string keys only");
        let etag = format!("\"{}\"", hex(&Sha256::digest(&json)));
        Self { json: json.into(), etag }
    }
}

/// Upper-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The kinds of a server, ordered by group and version as they are first listed.
pub struct Discovery {
    kinds: &'static [&'static Kind],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    name: &'static str,
    versions: Vec<GroupVersion>,
    preferred_version: GroupVersion,
}

#[derive(Serialize)]
struct GroupList {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    groups: Vec<Group>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerAddress {
    #[serde(rename = "clientCIDR")]
    client_cidr: &'static str,
    server_address: String,
}

#[derive(Serialize)]
struct Versions {
    kind: &'static str,
    versions: Vec<&'static str>,
    #[serde(rename = "serverAddressByClientCIDRs")]
    addresses: Vec<ServerAddress>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceList {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    group_version: String,
    resources: Vec<Resource>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    singular_name: &'static str,
    namespaced: bool,
    /// Of `kind`, if it is not that of the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    kind: &'static str,
    verbs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_version_hash: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedList {
    kind: &'static str,
    api_version: String,
    metadata: NoMeta,
    items: Vec<AggregatedGroup>,
}

#[derive(Serialize)]
struct NoMeta {}

#[derive(Serialize)]
struct AggregatedGroup {
    metadata: GroupMeta,
    versions: Vec<AggregatedVersion>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupMeta {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'static str,
    creation_timestamp: Option<&'static str>,
}

#[derive(Serialize)]
struct AggregatedVersion {
    version: &'static str,
    resources: Vec<AggregatedResource>,
    freshness: &'static str,
}

#[derive(Serialize)]
struct ResponseKind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedResource {
    resource: &'static str,
    response_kind: ResponseKind,
    scope: &'static str,
    singular_resource: &'static str,
    verbs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<AggregatedSubresource>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedSubresource {
    subresource: &'static str,
    response_kind: ResponseKind,
    verbs: Vec<&'static str>,
}

impl Discovery {
    #[must_use]
    pub fn new(kinds: &'static [&'static Kind]) -> Self {
        Self { kinds }
    }

    /// `/api`: versions of the core group.
    #[must_use]
    pub fn legacy(&self, server_address: &str) -> Document {
        Document::new(&Versions {
            kind: "APIVersions",
            versions: self.versions(""),
            addresses: vec![ServerAddress {
                client_cidr: "0.0.0.0/0",
                server_address: server_address.to_owned(),
            }],
        })
    }

    /// `/apis`: all other groups.
    #[must_use]
    pub fn groups(&self) -> Document {
        let groups = self.group_names().into_iter().map(|name| self.describe(name)).collect();
        Document::new(&GroupList { kind: "APIGroupList", api_version: "v1", groups })
    }

    /// `/apis/<group>`
    #[must_use]
    pub fn group(&self, name: &str) -> Option<Document> {
        let name = self.group_names().into_iter().find(|group| *group == name)?;
        let described = self.describe(name);
        Some(Document::new(&Group { kind: Some("APIGroup"), api_version: Some("v1"), ..described }))
    }

    /// `/api/<version>`, `/apis/<group>/<version>`: resources and their subresources, sorted.
    #[must_use]
    pub fn group_version(&self, group: &str, version: &str) -> Option<Document> {
        let kinds = self.kinds_of(group, version);
        let first = *kinds.first()?;
        let mut resources: Vec<Resource> = kinds.iter().flat_map(|kind| resources(kind)).collect();
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        Some(Document::new(&ResourceList {
            kind: "APIResourceList",
            api_version: (!group.is_empty()).then_some("v1"),
            group_version: first.api_version(),
            resources,
        }))
    }

    /// The aggregated form of `/api` (`core`) or `/apis`, in a version of `apidiscovery.k8s.io`.
    #[must_use]
    pub fn aggregated(&self, core: bool, version: &str) -> Document {
        let groups = if core { vec![""] } else { self.group_names() };
        let items = groups.into_iter().map(|group| self.aggregated_group(group)).collect();
        Document::new(&AggregatedList {
            kind: "APIGroupDiscoveryList",
            api_version: format!("apidiscovery.k8s.io/{version}"),
            metadata: NoMeta {},
            items,
        })
    }

    fn aggregated_group(&self, group: &'static str) -> AggregatedGroup {
        let versions = self.versions(group).into_iter().map(|version| {
            let mut resources: Vec<AggregatedResource> =
                self.kinds_of(group, version).into_iter().map(aggregated_resource).collect();
            resources.sort_by_key(|resource| resource.resource);
            AggregatedVersion { version, resources, freshness: "Current" }
        });
        AggregatedGroup {
            metadata: GroupMeta { name: group, creation_timestamp: None },
            versions: versions.collect(),
        }
    }

    /// The named groups, in order of appearance.
    fn group_names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for kind in self.kinds.iter().filter(|kind| !kind.group.is_empty()) {
            if !names.contains(&kind.group) {
                names.push(kind.group);
            }
        }
        names
    }

    /// The versions of a group, the preferred one first.
    fn versions(&self, group: &str) -> Vec<&'static str> {
        let mut versions = Vec::new();
        for kind in self.kinds.iter().filter(|kind| kind.group == group) {
            if !versions.contains(&kind.version) {
                versions.push(kind.version);
            }
        }
        versions
    }

    /// All group-versions, the core's first.
    #[must_use]
    pub fn group_versions(&self) -> Vec<(&'static str, &'static str)> {
        let mut groups = vec![""];
        groups.extend(self.group_names());
        let versions = |group| self.versions(group).into_iter().map(move |version| (group, version));
        groups.into_iter().flat_map(versions).collect()
    }

    /// The kinds of one group-version, as listed.
    #[must_use]
    pub fn kinds_of(&self, group: &str, version: &str) -> Vec<&'static Kind> {
        let of = |kind: &&Kind| kind.group == group && kind.version == version;
        self.kinds.iter().copied().filter(of).collect()
    }

    fn describe(&self, name: &'static str) -> Group {
        let version = |version| GroupVersion { group_version: format!("{name}/{version}"), version };
        let versions = self.versions(name);
        Group {
            kind: None,
            api_version: None,
            name,
            preferred_version: version(versions[0]),
            versions: versions.into_iter().map(version).collect(),
        }
    }
}

fn resources(kind: &Kind) -> Vec<Resource> {
    let mut all = vec![Resource {
        name: kind.plural.to_owned(),
        singular_name: kind.singular,
        namespaced: kind.is_namespaced(),
        group: None,
        version: None,
        kind: kind.kind,
        verbs: kind.verbs.to_vec(),
        short_names: kind.short_names.to_vec(),
        categories: kind.categories.to_vec(),
        storage_version_hash: stores(kind).then(|| storage_version_hash(kind)),
    }];
    all.extend(kind.subresources.iter().map(|subresource| {
        let response = response_kind(kind, *subresource);
        let is_foreign = response.group != kind.group;
        Resource {
            name: format!("{}/{}", kind.plural, subresource.name()),
            singular_name: "",
            namespaced: kind.is_namespaced(),
            group: is_foreign.then_some(response.group),
            version: is_foreign.then_some(response.version),
            kind: response.kind,
            verbs: subresource_verbs(*subresource).to_vec(),
            short_names: Vec::new(),
            categories: Vec::new(),
            storage_version_hash: None,
        }
    }));
    all
}

fn aggregated_resource(kind: &'static Kind) -> AggregatedResource {
    let subresources = kind.subresources.iter().map(|subresource| AggregatedSubresource {
        subresource: subresource.name(),
        response_kind: response_kind(kind, *subresource),
        verbs: subresource_verbs(*subresource).to_vec(),
    });
    let mut subresources: Vec<AggregatedSubresource> = subresources.collect();
    subresources.sort_by_key(|one| one.subresource);
    AggregatedResource {
        resource: kind.plural,
        response_kind: ResponseKind { group: kind.group, version: kind.version, kind: kind.kind },
        scope: match kind.scope {
            Scope::Namespaced => "Namespaced",
            Scope::Cluster => "Cluster",
        },
        singular_resource: kind.singular,
        verbs: kind.verbs.to_vec(),
        short_names: kind.short_names.to_vec(),
        categories: kind.categories.to_vec(),
        subresources,
    }
}

/// What a subresource takes or answers.
fn response_kind(kind: &Kind, subresource: Subresource) -> ResponseKind {
    let (group, version, kind) = match subresource {
        Subresource::Status | Subresource::Log | Subresource::Finalize | Subresource::EphemeralContainers => {
            (kind.group, kind.version, kind.kind)
        }
        Subresource::Binding => (kind.group, kind.version, "Binding"),
        Subresource::Exec => (kind.group, kind.version, "PodExecOptions"),
        Subresource::Attach => (kind.group, kind.version, "PodAttachOptions"),
        Subresource::PortForward => (kind.group, kind.version, "PodPortForwardOptions"),
        Subresource::Proxy => match kind.kind {
            "Node" => (kind.group, kind.version, "NodeProxyOptions"),
            "Service" => (kind.group, kind.version, "ServiceProxyOptions"),
            _ => (kind.group, kind.version, "PodProxyOptions"),
        },
        Subresource::History => ("coracle.dev", "v1", "ObjectHistory"),
        Subresource::Trigger => ("coracle.dev", "v1", "Trigger"),
        Subresource::Scale => (scale::KIND.group, scale::KIND.version, scale::KIND.kind),
        Subresource::Eviction => (eviction::KIND.group, eviction::KIND.version, eviction::KIND.kind),
        Subresource::Queue => ("coracle.dev", "v1", "WorkQueue"),
        Subresource::Token => {
            (token_request::KIND.group, token_request::KIND.version, token_request::KIND.kind)
        }
    };
    ResponseKind { group, version, kind }
}

/// Whether objects of the kind are kept, rather than acted upon as a Binding is.
fn stores(kind: &Kind) -> bool {
    kind.verbs.contains(&"get")
}

/// Names the stored form, as apiserver's `StorageVersionHash` does.
fn storage_version_hash(kind: &Kind) -> String {
    let stored = kind.stored_as.unwrap_or(kind);
    let digest = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind));
    STANDARD.encode(&digest[..8])
}

#[cfg(test)]
mod tests;
