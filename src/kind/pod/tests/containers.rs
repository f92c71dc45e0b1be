use super::{KIND, LABEL, NAME, at, container, in_container, spec};
use crate::kind::testing::check_validation;

const QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

#[test]
fn containers_have_names_and_images() {
    spec("", &[]);
    spec("containers: []", &["containers: Required value"]);
    spec("containers: null", &["containers: Required value"]);
    check_validation(&KIND, "{metadata: {name: a}}", "{}", &["spec.containers: Required value"]);
    spec("containers: [{image: a}]", &["containers[0].name: Required value"]);
    spec("containers: [{name: app}]", &["containers[0].image: Required value"]);
    spec(
        "containers: [{name: App, image: a}]",
        &[&format!("containers[0].name: Invalid value: \"App\": {LABEL}")],
    );
    spec(
        "containers: [{name: a.b, image: a}]",
        &["containers[0].name: Invalid value: \"a.b\": must not contain dots"],
    );
    spec(
        "containers: [{name: a, image: ' a'}]",
        &["containers[0].image: Invalid value: \" a\": must not have leading or trailing whitespace"],
    );
    spec(
        "containers: [{name: a, image: a}, {name: a, image: a}]",
        &["containers[1].name: Duplicate value: \"a\""],
    );
    container(
        "imagePullPolicy: Sometimes",
        &[
            "imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    container(
        "terminationMessagePolicy: x",
        &[
            "terminationMessagePolicy: Unsupported value: \"x\": supported values: \"File\", \"FallbackToLogsOnError\"",
        ],
    );
    container("restartPolicy: Always", &["restartPolicy: Forbidden: may not be set for non-init containers"]);
    container(
        "resizePolicy: [{resourceName: gpu, restartPolicy: NotRequired}]",
        &["resizePolicy: Unsupported value: \"gpu\": supported values: \"cpu\", \"memory\""],
    );
}

#[test]
fn ports_are_numbers_with_names() {
    container(
        "ports: [{containerPort: 80, name: http}, {containerPort: 53, protocol: UDP, hostPort: 53}]",
        &[],
    );
    container("ports: [{name: http}]", &["ports[0].containerPort: Required value"]);
    container(
        "ports: [{containerPort: 65536}]",
        &["ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive"],
    );
    container(
        "ports: [{containerPort: -1}]",
        &["ports[0].containerPort: Invalid value: -1: must be between 1 and 65535, inclusive"],
    );
    container(
        "ports: [{containerPort: 1, hostPort: 70000}]",
        &["ports[0].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
    );
    container(
        "ports: [{containerPort: 1, protocol: ICMP}]",
        &["ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\""],
    );
    container(
        "ports: [{containerPort: 1, name: a}, {containerPort: 2, name: a}]",
        &["ports[1].name: Duplicate value: \"a\""],
    );
    container(
        "ports: [{containerPort: 1, name: '80'}]",
        &["ports[0].name: Invalid value: \"80\": must contain at least one letter (a-z)"],
    );
    container(
        "ports: [{containerPort: 1, hostPort: 8}, {containerPort: 2, hostPort: 8}]",
        &["ports[1].hostPort: Duplicate value: \"TCP//8\""],
    );
    container(
        "ports: [{containerPort: 1, hostPort: 8}, {containerPort: 2, hostPort: 8, protocol: UDP}]",
        &[],
    );
    container(
        "ports: [{containerPort: 1, hostPort: 8}, {containerPort: 2, hostPort: 8, hostIP: 127.0.0.1}]",
        &[],
    );
    spec(
        "containers: [{name: a, image: a, ports: [{containerPort: 1, hostPort: 8}]}, {name: b, image: a, ports: [{containerPort: 1, hostPort: 8}]}]",
        &["containers[1].ports[0].hostPort: Duplicate value: \"TCP//8\""],
    );
    spec(
        "hostNetwork: true, containers: [{name: a, image: a, ports: [{containerPort: 1, hostPort: 8}]}]",
        &[
            "containers[0].ports[0].hostPort: Invalid value: 8: must match `containerPort` when `hostNetwork` is true",
        ],
    );
}

/// BEHAVIOURS 10.1 to 10.4.
#[test]
fn variables_have_one_source() {
    container("env: [{name: A, value: a}, {name: a.b-c, value: ''}, {name: '1 b'}]", &[]);
    container("env: [{value: a}]", &["env[0].name: Required value"]);
    container(
        "env: [{name: a=b}]",
        &[
            "env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        ],
    );
    container(
        "env: [{name: A, valueFrom: {}}]",
        &[
            "env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        ],
    );
    container(
        "env: [{name: A, value: a, valueFrom: {secretKeyRef: {name: s, key: k}}}]",
        &["env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"],
    );
    container(
        "env: [{name: A, valueFrom: {configMapKeyRef: {name: s, key: k}, secretKeyRef: {name: s, key: k}}}]",
        &["env[0].valueFrom: Invalid value: \"\": may not have more than one field specified at a time"],
    );
    container(
        "env: [{name: A, valueFrom: {configMapKeyRef: {name: s}}}]",
        &["env[0].valueFrom.configMapKeyRef.key: Required value"],
    );
    container(
        "env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: a/b}}}]",
        &[
            "env[0].valueFrom.secretKeyRef.key: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
    container("envFrom: [{configMapRef: {name: a}, prefix: P_}, {secretRef: {name: b}}]", &[]);
    container(
        "envFrom: [{prefix: P}]",
        &["envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"],
    );
    container("envFrom: [{configMapRef: {}}]", &["envFrom[0].configMapRef.name: Required value"]);
    container(
        "envFrom: [{configMapRef: {name: a}, secretRef: {name: b}}]",
        &["envFrom: Invalid value: \"\": may not have more than one field specified at a time"],
    );
}

#[test]
fn references_name_fields_that_exist() {
    let field = |path: &str, expected: &[&str]| {
        at(
            "spec.containers[0].env[0].valueFrom.fieldRef",
            &in_container(&format!("env: [{{name: A, valueFrom: {{fieldRef: {{fieldPath: \"{path}\"}}}}}}]")),
            expected,
        );
    };
    field("metadata.name", &[]);
    field("status.podIPs", &[]);
    field("metadata.labels['app.example.com/x']", &[]);
    field("metadata.annotations['Upper.example.com/X']", &[]);
    field("", &[".fieldPath: Required value"]);
    field(
        "spec.foo",
        &[
            ".fieldPath: Invalid value: \"spec.foo\": error converting fieldPath: field label not supported: spec.foo",
        ],
    );
    field(
        "status.phase",
        &[
            ".fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ],
    );
    field(
        "metadata.name['a']",
        &[
            ".fieldPath: Invalid value: \"metadata.name['a']\": error converting fieldPath: field label does not support subscript: metadata.name['a']",
        ],
    );
    field("metadata.labels['a b']", &[&format!(": Invalid value: \"a b\": name part {NAME}")]);

    let resource = |reference: &str, expected: &[&str]| {
        at(
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.",
            &in_container(&format!("env: [{{name: A, valueFrom: {{resourceFieldRef: {{{reference}}}}}}}]")),
            expected,
        );
    };
    resource("resource: limits.cpu, divisor: 1m", &[]);
    resource("resource: requests.memory, divisor: 1Mi", &[]);
    resource("resource: requests.memory, divisor: 0", &[]);
    resource("resource: limits.hugepages-2Mi", &[]);
    resource("containerName: a", &["resource: Required value"]);
    resource(
        "resource: cpu",
        &[
            "resource: Unsupported value: \"cpu\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\"",
        ],
    );
    resource(
        "resource: limits.cpu, divisor: 2",
        &[
            "divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
        ],
    );
    resource(
        "resource: limits.memory, divisor: 3Mi",
        &[
            "divisor: Invalid value: \"limits.memory\": only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource",
        ],
    );
}

#[test]
fn resources_are_amounts_within_limits() {
    container("resources: {limits: {cpu: 1, memory: 1Gi, example.com/gpu: 1}, requests: {cpu: 0.5}}", &[]);
    container(
        "resources: {limits: {cpu: a lot}}",
        &[
            &format!("resources.limits[cpu]: Invalid value: \"a lot\": {QUANTITY}"),
            &format!("resources.requests[cpu]: Invalid value: \"a lot\": {QUANTITY}"),
        ],
    );
    container(
        "resources: {limits: {cpu: 1}, requests: {cpu: 2}}",
        &["resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
    );
    container(
        "resources: {limits: {memory: 1024Mi}, requests: {memory: 1.5Gi}}",
        &["resources.requests: Invalid value: \"1536Mi\": must be less than or equal to memory limit of 1Gi"],
    );
    container(
        "resources: {requests: {cpu: -1}}",
        &["resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
    );
    container(
        "resources: {requests: {cpus: 1}}",
        &[
            "resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
            "resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource for containers",
        ],
    );
    container(
        "resources: {requests: {pods: 1}}",
        &["resources.requests[pods]: Invalid value: \"pods\": must be a standard resource for containers"],
    );
    container(
        "resources: {requests: {example.com/gpu: 1}}",
        &["resources.limits: Required value: Limit must be set for non overcommitable resources"],
    );
    container(
        "resources: {limits: {example.com/gpu: 2}, requests: {example.com/gpu: 1}}",
        &["resources.requests: Invalid value: \"1\": must be equal to example.com/gpu limit of 2"],
    );
    container(
        "resources: {limits: {hugepages-2Mi: 3Mi}, requests: {hugepages-2Mi: 3Mi, cpu: 1}}",
        &[
            "resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
            "resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
        ],
    );
    container(
        "resources: {limits: {hugepages-2Mi: 4Mi}}",
        &["resources: Forbidden: HugePages require cpu or memory"],
    );
    container("resources: {claims: [{name: a}]}", &["resources.claims[0]: Not found: \"a\""]);
}

/// BEHAVIOURS 9.9.
#[test]
fn probes_and_hooks_do_one_thing() {
    container(
        "livenessProbe: {httpGet: {port: http}}, readinessProbe: {tcpSocket: {port: 80}, successThreshold: 2}, startupProbe: {exec: {command: [a]}}",
        &[],
    );
    container("livenessProbe: {}", &["livenessProbe: Required value: must specify a handler type"]);
    container("livenessProbe: {exec: {}}", &["livenessProbe.exec.command: Required value"]);
    container(
        "livenessProbe: {exec: {command: [a]}, grpc: {port: 1}}",
        &["livenessProbe.grpc: Forbidden: may not specify more than 1 handler type"],
    );
    container(
        "livenessProbe: {httpGet: {port: 0}}",
        &["livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive"],
    );
    container(
        "livenessProbe: {httpGet: {port: 1, scheme: FTP}}",
        &["livenessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\""],
    );
    container(
        "livenessProbe: {grpc: {port: 1}, successThreshold: 2}",
        &["livenessProbe.successThreshold: Invalid value: 2: must be 1"],
    );
    container(
        "startupProbe: {grpc: {port: 1}, successThreshold: 2}",
        &["startupProbe.successThreshold: Invalid value: 2: must be 1"],
    );
    container(
        "livenessProbe: {grpc: {port: 1}, initialDelaySeconds: -1, periodSeconds: -2}",
        &[
            "livenessProbe.initialDelaySeconds: Invalid value: -1: must be greater than or equal to 0",
            "livenessProbe.periodSeconds: Invalid value: -2: must be greater than or equal to 0",
        ],
    );
    container(
        "livenessProbe: {grpc: {port: 1}, terminationGracePeriodSeconds: 0}",
        &["livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0"],
    );
    container(
        "readinessProbe: {grpc: {port: 1}, terminationGracePeriodSeconds: 5}",
        &[
            "readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
        ],
    );
    container("lifecycle: {preStop: {sleep: {seconds: 30}}}", &[]);
    container(
        "lifecycle: {preStop: {sleep: {seconds: 31}}}",
        &[
            "lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ],
    );
    container(
        "lifecycle: {postStart: {}}",
        &["lifecycle.postStart: Required value: must specify a handler type"],
    );
}

/// BEHAVIOURS 9.8.
#[test]
fn init_containers_are_not_probed_unless_sidecars() {
    let init = |fields: &str, expected: &[&str]| {
        at("spec.initContainers[0].", &format!("initContainers: [{{image: a, {fields}}}]"), expected);
    };
    init(
        "name: a, restartPolicy: Always, readinessProbe: {grpc: {port: 1}}, lifecycle: {preStop: {exec: {command: [a]}}}",
        &[],
    );
    init("name: app", &["name: Duplicate value: \"app\""]);
    init(
        "name: a, restartPolicy: Never",
        &["restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
    );
    let why = "Forbidden: may not be set for init containers without restartPolicy=Always";
    init(
        "name: a, livenessProbe: {grpc: {port: 1}}, lifecycle: {}",
        &[&format!("lifecycle: {why}"), &format!("livenessProbe: {why}")],
    );
    spec("initContainers: [{name: a}]", &["initContainers[0].image: Required value"]);
    spec(
        "initContainers: [{name: a, image: a, ports: [{containerPort: 1, hostPort: 8}]}, {name: b, image: a, ports: [{containerPort: 1, hostPort: 8}]}]",
        &[],
    );
}
