//! How lists of the API types merge: facts that the Go types carry as tags, by type and field.
//!
//! Strategic merge patches go by `patch_*`; server-side apply and ownership by the rest. OpenAPI
//! shows both as `x-kubernetes-*` extensions. Lists that are not here are replaced as a whole. Only
//! types that a served kind reaches are listed; a kind with new ones brings its lines along.

/// What is known of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeKey {
    /// `x-kubernetes-list-type`: `atomic`, `set` or `map`.
    pub list_type: Option<&'static str>,
    /// `x-kubernetes-list-map-keys` of a `map`.
    pub map_keys: &'static [&'static str],
    /// `x-kubernetes-patch-strategy`: `merge`, `merge,retainKeys`; none replaces.
    pub patch_strategy: Option<&'static str>,
    /// `x-kubernetes-patch-merge-key`; none on merged lists of plain values.
    pub patch_merge_key: Option<&'static str>,
    /// `x-kubernetes-map-type` of a field that is an object: `atomic`.
    pub map_type: Option<&'static str>,
}

const NONE: MergeKey =
    MergeKey { list_type: None, map_keys: &[], patch_strategy: None, patch_merge_key: None, map_type: None };
const ATOMIC: MergeKey = MergeKey { list_type: Some("atomic"), ..NONE };
const MAP_ATOMIC: MergeKey = MergeKey { map_type: Some("atomic"), ..NONE };
const SET: MergeKey = MergeKey { list_type: Some("set"), ..NONE };
const SET_MERGED: MergeKey = MergeKey { patch_strategy: Some("merge"), ..SET };

/// A map that only server-side apply knows.
const fn keyed(map_keys: &'static [&'static str]) -> MergeKey {
    MergeKey { list_type: Some("map"), map_keys, ..NONE }
}

const fn merged(map_keys: &'static [&'static str], patch_merge_key: &'static str) -> MergeKey {
    MergeKey { patch_strategy: Some("merge"), patch_merge_key: Some(patch_merge_key), ..keyed(map_keys) }
}

const fn retained(map_keys: &'static [&'static str], patch_merge_key: &'static str) -> MergeKey {
    MergeKey { patch_strategy: Some("merge,retainKeys"), ..merged(map_keys, patch_merge_key) }
}

/// The facts about `field` of the type with the short name `type_name` (`PodSpec`, `Container`).
#[must_use]
pub fn lookup(type_name: &str, field: &str) -> Option<&'static MergeKey> {
    let at = TABLE.binary_search_by_key(&(type_name, field), |(name, field, _)| (name, field)).ok()?;
    Some(&TABLE[at].2)
}

/// Sorted by type and field.
static TABLE: &[(&str, &str, MergeKey)] = &[
    ("Capabilities", "add", ATOMIC),
    ("Capabilities", "drop", ATOMIC),
    ("CephFSVolumeSource", "monitors", ATOMIC),
    ("ConfigMapProjection", "items", ATOMIC),
    ("ConfigMapVolumeSource", "items", ATOMIC),
    ("Container", "args", ATOMIC),
    ("Container", "command", ATOMIC),
    ("Container", "env", merged(&["name"], "name")),
    ("Container", "envFrom", ATOMIC),
    ("Container", "ports", merged(&["containerPort", "protocol"], "containerPort")),
    ("Container", "resizePolicy", ATOMIC),
    ("Container", "volumeDevices", merged(&["devicePath"], "devicePath")),
    ("Container", "volumeMounts", merged(&["mountPath"], "mountPath")),
    ("ContainerImage", "names", ATOMIC),
    ("ContainerStatus", "allocatedResourcesStatus", merged(&["name"], "name")),
    ("ContainerStatus", "volumeMounts", merged(&["mountPath"], "mountPath")),
    ("DaemonSetStatus", "conditions", merged(&["type"], "type")),
    ("DeploymentSpec", "strategy", MergeKey { patch_strategy: Some("retainKeys"), ..NONE }),
    ("DeploymentStatus", "conditions", merged(&["type"], "type")),
    ("DownwardAPIProjection", "items", ATOMIC),
    ("DownwardAPIVolumeSource", "items", ATOMIC),
    ("Endpoint", "addresses", SET),
    ("EndpointHints", "forZones", ATOMIC),
    ("EndpointSlice", "endpoints", ATOMIC),
    ("EndpointSlice", "ports", ATOMIC),
    ("EndpointSubset", "addresses", ATOMIC),
    ("EndpointSubset", "notReadyAddresses", ATOMIC),
    ("EndpointSubset", "ports", ATOMIC),
    ("Endpoints", "subsets", ATOMIC),
    ("EphemeralContainer", "args", ATOMIC),
    ("EphemeralContainer", "command", ATOMIC),
    ("EphemeralContainer", "env", merged(&["name"], "name")),
    ("EphemeralContainer", "envFrom", ATOMIC),
    ("EphemeralContainer", "ports", merged(&["containerPort", "protocol"], "containerPort")),
    ("EphemeralContainer", "resizePolicy", ATOMIC),
    ("EphemeralContainer", "volumeDevices", merged(&["devicePath"], "devicePath")),
    ("EphemeralContainer", "volumeMounts", merged(&["mountPath"], "mountPath")),
    ("ExecAction", "command", ATOMIC),
    ("FCVolumeSource", "targetWWNs", ATOMIC),
    ("FCVolumeSource", "wwids", ATOMIC),
    ("HTTPGetAction", "httpHeaders", ATOMIC),
    ("HostAlias", "hostnames", ATOMIC),
    ("ISCSIVolumeSource", "portals", ATOMIC),
    ("LabelSelector", "matchExpressions", ATOMIC),
    ("LabelSelectorRequirement", "values", ATOMIC),
    ("LimitRangeSpec", "limits", ATOMIC),
    ("LinuxContainerUser", "supplementalGroups", ATOMIC),
    ("LoadBalancerIngress", "ports", ATOMIC),
    ("LoadBalancerStatus", "ingress", ATOMIC),
    ("NamespaceSpec", "finalizers", ATOMIC),
    ("NamespaceStatus", "conditions", merged(&["type"], "type")),
    ("NetworkPolicyEgressRule", "ports", ATOMIC),
    ("NetworkPolicyEgressRule", "to", ATOMIC),
    ("NetworkPolicyIngressRule", "from", ATOMIC),
    ("NetworkPolicyIngressRule", "ports", ATOMIC),
    ("NetworkPolicySpec", "egress", ATOMIC),
    ("NetworkPolicySpec", "ingress", ATOMIC),
    ("NetworkPolicySpec", "policyTypes", ATOMIC),
    ("NodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution", ATOMIC),
    ("NodeSelector", "nodeSelectorTerms", ATOMIC),
    ("NodeSelectorRequirement", "values", ATOMIC),
    ("NodeSelectorTerm", "matchExpressions", ATOMIC),
    ("NodeSelectorTerm", "matchFields", ATOMIC),
    ("NodeSpec", "podCIDRs", SET_MERGED),
    ("NodeSpec", "taints", ATOMIC),
    ("NodeStatus", "addresses", merged(&["type"], "type")),
    ("NodeStatus", "conditions", merged(&["type"], "type")),
    ("NodeStatus", "images", ATOMIC),
    ("NodeStatus", "runtimeHandlers", ATOMIC),
    ("NodeStatus", "volumesAttached", ATOMIC),
    ("NodeStatus", "volumesInUse", ATOMIC),
    ("ObjectMeta", "finalizers", SET_MERGED),
    ("ObjectMeta", "managedFields", ATOMIC),
    ("ObjectMeta", "ownerReferences", merged(&["uid"], "uid")),
    ("PersistentVolumeClaimStatus", "accessModes", ATOMIC),
    ("PersistentVolumeClaimStatus", "conditions", merged(&["type"], "type")),
    ("PodAffinity", "preferredDuringSchedulingIgnoredDuringExecution", ATOMIC),
    ("PodAffinity", "requiredDuringSchedulingIgnoredDuringExecution", ATOMIC),
    ("PodAffinityTerm", "matchLabelKeys", ATOMIC),
    ("PodAffinityTerm", "mismatchLabelKeys", ATOMIC),
    ("PodAffinityTerm", "namespaces", ATOMIC),
    ("PodAntiAffinity", "preferredDuringSchedulingIgnoredDuringExecution", ATOMIC),
    ("PodAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution", ATOMIC),
    ("PodDNSConfig", "nameservers", ATOMIC),
    ("PodDNSConfig", "options", ATOMIC),
    ("PodDNSConfig", "searches", ATOMIC),
    ("PodDisruptionBudgetSpec", "selector", MergeKey { patch_strategy: Some("replace"), ..NONE }),
    ("PodDisruptionBudgetStatus", "conditions", merged(&["type"], "type")),
    ("PodSecurityContext", "supplementalGroups", ATOMIC),
    ("PodSecurityContext", "sysctls", ATOMIC),
    ("PodSpec", "containers", merged(&["name"], "name")),
    ("PodSpec", "ephemeralContainers", merged(&["name"], "name")),
    ("PodSpec", "hostAliases", merged(&["ip"], "ip")),
    ("PodSpec", "imagePullSecrets", merged(&["name"], "name")),
    ("PodSpec", "initContainers", merged(&["name"], "name")),
    ("PodSpec", "nodeSelector", MAP_ATOMIC),
    ("PodSpec", "readinessGates", ATOMIC),
    ("PodSpec", "resourceClaims", retained(&["name"], "name")),
    ("PodSpec", "schedulingGates", merged(&["name"], "name")),
    ("PodSpec", "tolerations", ATOMIC),
    ("PodSpec", "topologySpreadConstraints", merged(&["topologyKey", "whenUnsatisfiable"], "topologyKey")),
    ("PodSpec", "volumes", retained(&["name"], "name")),
    ("PodStatus", "conditions", merged(&["type"], "type")),
    ("PodStatus", "containerStatuses", ATOMIC),
    ("PodStatus", "ephemeralContainerStatuses", ATOMIC),
    ("PodStatus", "hostIPs", MergeKey { list_type: Some("atomic"), ..merged(&[], "ip") }),
    ("PodStatus", "initContainerStatuses", ATOMIC),
    ("PodStatus", "podIPs", merged(&["ip"], "ip")),
    ("PodStatus", "resourceClaimStatuses", retained(&["name"], "name")),
    ("ProjectedVolumeSource", "sources", ATOMIC),
    ("RBDVolumeSource", "monitors", ATOMIC),
    ("ReplicaSetStatus", "conditions", merged(&["type"], "type")),
    ("ReplicationControllerSpec", "selector", MAP_ATOMIC),
    ("ReplicationControllerStatus", "conditions", merged(&["type"], "type")),
    ("ResourceQuotaSpec", "scopes", ATOMIC),
    ("ResourceRequirements", "claims", keyed(&["name"])),
    ("ResourceStatus", "resources", keyed(&["resourceID"])),
    ("Scheduling", "nodeSelector", MAP_ATOMIC),
    ("Scheduling", "tolerations", ATOMIC),
    ("ScopeSelector", "matchExpressions", ATOMIC),
    ("ScopedResourceSelectorRequirement", "values", ATOMIC),
    ("SecretProjection", "items", ATOMIC),
    ("SecretVolumeSource", "items", ATOMIC),
    ("ServiceAccount", "imagePullSecrets", ATOMIC),
    ("ServiceAccount", "secrets", merged(&["name"], "name")),
    ("ServiceSpec", "clusterIPs", ATOMIC),
    ("ServiceSpec", "externalIPs", ATOMIC),
    ("ServiceSpec", "ipFamilies", ATOMIC),
    ("ServiceSpec", "loadBalancerSourceRanges", ATOMIC),
    ("ServiceSpec", "ports", merged(&["port", "protocol"], "port")),
    ("ServiceSpec", "selector", MAP_ATOMIC),
    ("ServiceStatus", "conditions", merged(&["type"], "type")),
    ("StatefulSetSpec", "volumeClaimTemplates", ATOMIC),
    ("StatefulSetStatus", "conditions", merged(&["type"], "type")),
    ("TopologySpreadConstraint", "matchLabelKeys", ATOMIC),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_type() {
        assert!(TABLE.is_sorted_by_key(|(name, field, _)| (name, field)));
        let ports = lookup("Container", "ports").unwrap();
        assert_eq!(ports.map_keys, ["containerPort", "protocol"]);
        assert_eq!(ports.patch_merge_key, Some("containerPort"));
        assert_eq!(lookup("PodSpec", "volumes").unwrap().patch_strategy, Some("merge,retainKeys"));
        assert_eq!(lookup("PodSpec", "tolerations").unwrap().list_type, Some("atomic"));
        assert_eq!(lookup("ObjectMeta", "finalizers").unwrap().patch_strategy, Some("merge"));
        assert_eq!(lookup("PodSpec", "nodeName"), None);
    }
}
