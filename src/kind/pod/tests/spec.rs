use super::{BASE, KIND, LABEL, NAME, at, container, spec};
use crate::kind::testing::{check_cells, check_validation, lines, patched};
use crate::kind::{binding, pod_template};

#[test]
fn policies_are_known() {
    spec(
        "restartPolicy: Maybe",
        &[
            "restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    spec(
        "dnsPolicy: Mine",
        &[
            "dnsPolicy: Unsupported value: \"Mine\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
        ],
    );
    spec(
        "preemptionPolicy: Now",
        &[
            "preemptionPolicy: Unsupported value: \"Now\": supported values: \"PreemptLowerPriority\", \"Never\"",
        ],
    );
    spec(
        "os: {name: plan9}",
        &["os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
    );
    spec(
        "dnsPolicy: None",
        &["dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    );
    spec(
        "dnsConfig: {nameservers: [x], searches: [a_b], options: [{value: a}]}",
        &[
            "dnsConfig.nameservers[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "dnsConfig.searches[0]: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "dnsConfig.options[0]: Required value: must not be empty",
        ],
    );
    spec(
        "activeDeadlineSeconds: 0",
        &["activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
    );
    spec("terminationGracePeriodSeconds: -1", &[]);
    spec(
        "hostname: A, subdomain: a.b",
        &[
            &format!("hostname: Invalid value: \"A\": {LABEL}"),
            "subdomain: Invalid value: \"a.b\": must not contain dots",
        ],
    );
    spec(
        "hostAliases: [{ip: x, hostnames: [a]}]",
        &[
            "hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
    spec(
        "readinessGates: [{conditionType: ''}]",
        &[
            "readinessGates[0].conditionType: Invalid value: \"\": name part must be non-empty",
            &format!("readinessGates[0].conditionType: Invalid value: \"\": name part {NAME}"),
        ],
    );
    spec(
        "schedulingGates: [{name: a}, {name: a}], nodeName: n1",
        &[
            "schedulingGates[1]: Duplicate value: \"a\"",
            "nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ],
    );
    spec("overhead: {cpu: 10m}", &[]);
    spec(
        "resourceClaims: [{name: a}]",
        &[
            "resourceClaims[0]: Invalid value: {\"name\":\"a\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        ],
    );
    check_validation(
        &KIND,
        BASE,
        "{metadata: {annotations: {controller.kubernetes.io/pod-deletion-cost: '+1', kubernetes.io/config.mirror: x}}}",
        &[
            "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
            "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+1\": must be a 32bit integer",
        ],
    );
    check_validation(
        &KIND,
        BASE,
        "{metadata: {annotations: {coracle.dev/egress-hosts: 'a.example.com:443, *, b:0'}}}",
        &[
            "metadata.annotations[coracle.dev/egress-hosts]: Invalid value: \"*\": must be a host: a pod without the annotation may reach all of them",
            "metadata.annotations[coracle.dev/egress-hosts]: Invalid value: \"b:0\": must end in a port from 1 to 65535 after the colon",
        ],
    );
    check_validation(&KIND, BASE, "{metadata: {annotations: {coracle.dev/egress-hosts: ''}}}", &[]);
}

#[test]
fn placement_is_well_formed() {
    let toleration = |fields: &str, expected: &[&str]| {
        at("spec.tolerations[0].", &format!("tolerations: [{{{fields}}}]"), expected);
    };
    toleration("operator: Exists", &[]);
    toleration("key: a, value: b, effect: NoExecute, tolerationSeconds: 5", &[]);
    toleration(
        "value: b",
        &[
            "operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ],
    );
    toleration(
        "key: a, operator: Exists, value: b",
        &["operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"],
    );
    toleration(
        "key: a, operator: In",
        &["operator: Unsupported value: \"In\": supported values: \"Equal\", \"Exists\""],
    );
    toleration(
        "key: a, effect: Evict",
        &[
            "effect: Unsupported value: \"Evict\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ],
    );
    toleration(
        "key: a, tolerationSeconds: 5",
        &["effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set"],
    );

    spec("nodeSelector: {kubernetes.io/os: wasi}", &[]);
    spec("nodeSelector: {'a b': c}", &[&format!("nodeSelector: Invalid value: \"a b\": name part {NAME}")]);

    let term = |term: &str, expected: &[&str]| {
        const PATH: &str =
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        at(
            PATH,
            &format!(
                "affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{term}]}}}}}}"
            ),
            expected,
        );
    };
    term(
        "{matchExpressions: [{key: a, operator: In, values: [b]}, {key: a, operator: Gt, values: ['1']}]}",
        &[],
    );
    term("{matchFields: [{key: metadata.name, operator: In, values: [n1]}]}", &[]);
    term("", &[": Required value: must have at least one node selector term"]);
    term(
        "{matchExpressions: [{key: a, operator: In}]}",
        &[
            "[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ],
    );
    term(
        "{matchExpressions: [{key: a, operator: Exists, values: [b]}]}",
        &[
            "[0].matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ],
    );
    term(
        "{matchExpressions: [{key: a, operator: Lt}]}",
        &[
            "[0].matchExpressions[0].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'",
        ],
    );
    term(
        "{matchExpressions: [{key: a, operator: Is}]}",
        &["[0].matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator"],
    );
    term(
        "{matchFields: [{key: spec.x, operator: In, values: [n1]}]}",
        &["[0].matchFields[0].key: Invalid value: \"spec.x\": not a valid field selector key"],
    );
    spec(
        "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 0, preference: {}}]}}",
        &[
            "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
        ],
    );
    spec(
        "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchExpressions: [{key: a, operator: In}]}}]}}",
        &[
            "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
            "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": name part must be non-empty",
            &format!(
                "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: \"\": name part {NAME}"
            ),
        ],
    );
    spec(
        "topologySpreadConstraints: [{maxSkew: 0, whenUnsatisfiable: Never}]",
        &[
            "topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
            "topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
        ],
    );
    spec(
        "topologySpreadConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway, minDomains: 2}, {maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway}]",
        &[
            "topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{a, ScheduleAnyway}\"",
            "topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
        ],
    );
}

#[test]
fn security_contexts_are_well_formed() {
    spec(
        "securityContext: {runAsUser: 1000, fsGroupChangePolicy: Always, seccompProfile: {type: RuntimeDefault}, sysctls: [{name: net.a/b, value: '1'}]}",
        &[],
    );
    spec(
        "securityContext: {runAsUser: -1, supplementalGroups: [4294967296]}",
        &[
            "securityContext.runAsUser: Invalid value: -1: must be between 0 and 4294967295, inclusive",
            "securityContext.supplementalGroups[0]: Invalid value: 4294967296: must be between 0 and 4294967295, inclusive",
        ],
    );
    spec(
        "securityContext: {fsGroupChangePolicy: Never}",
        &[
            "securityContext.fsGroupChangePolicy: Unsupported value: \"Never\": supported values: \"Always\", \"OnRootMismatch\"",
        ],
    );
    spec(
        "securityContext: {seccompProfile: {type: Localhost}}",
        &[
            "securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
        ],
    );
    spec("securityContext: {sysctls: [{name: ''}]}", &["securityContext.sysctls[0].name: Required value"]);
    spec("hostUsers: false, hostPID: true", &["HostPID: Forbidden: when `pod.Spec.HostUsers` is false"]);
    container("securityContext: {privileged: true, capabilities: {add: [NET_ADMIN]}}", &[]);
    container(
        "securityContext: {privileged: true, allowPrivilegeEscalation: false}",
        &[
            "securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ],
    );
    container(
        "securityContext: {procMount: Unmasked}",
        &[
            "securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
        ],
    );
}

#[test]
fn several_errors_are_all_told() {
    spec(
        "containers: [{name: A}], restartPolicy: x, nodeName: _",
        &[
            &format!("containers[0].name: Invalid value: \"A\": {LABEL}"),
            "containers[0].image: Required value",
            "restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "nodeName: Invalid value: \"_\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
}

/// Templates leave open what only pods need.
#[test]
fn templates_are_judged_like_pods() {
    const TEMPLATE: &str = "{metadata: {name: t}, template: {spec: {containers: [{name: a, image: ' a'}]}}}";
    let check =
        |patch: &str, expected: &[&str]| check_validation(&pod_template::KIND, TEMPLATE, patch, expected);
    check("{}", &[]);
    check(
        "{template: {spec: {hostNetwork: true, containers: [{name: a, image: a, ports: [{containerPort: 1}]}]}}}",
        &[],
    );
    check(
        "{template: {spec: {containers: [{name: a}]}}}",
        &["template.spec.containers[0].image: Required value"],
    );
    check("{template: null}", &["template.spec.containers: Required value"]);
    check(
        "{template: {metadata: {labels: {a: 'b c'}}}}",
        &[
            "template.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
    );
    check(
        "{template: {spec: {ephemeralContainers: [{name: d, image: a}]}}}",
        &["template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template"],
    );

    let template = patched(&pod_template::KIND, TEMPLATE, "{}").to_value();
    assert_eq!(template.pointer("/template/spec/enableServiceLinks"), None);
    check_cells(
        &pod_template::KIND,
        "{metadata: {name: t}, template: {metadata: {labels: {a: b, c: d}}, spec: {containers: [{name: a, image: x}, {name: b, image: z}]}}}",
        &["t", "a,b", "x,z", "a=b,c=d"],
    );

    let binding = patched(&binding::KIND, "{metadata: {name: p}, target: {kind: Pod}}", "{}");
    assert_eq!(
        lines(&binding::KIND.strategy.validate(&*binding)),
        [
            "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
            "target.name: Required value",
        ]
    );
    assert_eq!((binding::KIND.plural, binding::KIND.verbs), ("bindings", &["create"][..]));
}
