use k8s_openapi::api::core::v1::Pod;

use super::KIND;
use crate::kind::testing::{check_defaults, object, patched};

#[test]
fn a_bare_pod_is_filled_in() {
    check_defaults(
        &KIND,
        "spec: {containers: [{name: app, image: web}]}",
        r#"{
            "spec": {
                "containers": [{
                    "name": "app",
                    "image": "web",
                    "imagePullPolicy": "Always",
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                }],
                "dnsPolicy": "ClusterFirst",
                "enableServiceLinks": true,
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30
            }
        }"#,
    );
}

#[test]
fn everything_inside_is_filled_in() {
    check_defaults(
        &KIND,
        "
        spec:
          restartPolicy: Never
          dnsPolicy: Default
          schedulerName: mine
          enableServiceLinks: false
          terminationGracePeriodSeconds: 0
          serviceAccount: robot
          hostNetwork: true
          initContainers:
          - {name: setup, image: 'a:v1', resources: {limits: {memory: 1024Mi}}}
          containers:
          - name: app
            image: reg.io:5000/a/b@sha256:0000
            ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP, hostPort: 53}]
            env:
            - {name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            resources: {limits: {cpu: 0.5, memory: 1Gi}, requests: {cpu: 100m}}
            livenessProbe: {httpGet: {port: 80}, periodSeconds: 5}
            readinessProbe: {grpc: {port: 9}, successThreshold: 2}
            lifecycle: {preStop: {httpGet: {port: 80, path: /bye}}}
          volumes:
          - name: none
          - {name: map, configMap: {name: m}}
          - {name: secret, secret: {secretName: s, defaultMode: 256}}
          - {name: down, downwardAPI: {items: [{path: a, fieldRef: {fieldPath: metadata.labels}}]}}
          - {name: all, projected: {sources: [{serviceAccountToken: {path: token}}]}}
          - {name: host, hostPath: {path: /tmp}}
        ",
        r#"{
            "spec": {
                "containers": [{
                    "name": "app",
                    "image": "reg.io:5000/a/b@sha256:0000",
                    "imagePullPolicy": "IfNotPresent",
                    "env": [{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                    "lifecycle": {"preStop": {"httpGet": {"path": "/bye", "port": 80, "scheme": "HTTP"}}},
                    "livenessProbe": {
                        "failureThreshold": 3, "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
                        "periodSeconds": 5, "successThreshold": 1, "timeoutSeconds": 1
                    },
                    "ports": [
                        {"containerPort": 80, "hostPort": 80, "protocol": "TCP"},
                        {"containerPort": 53, "hostPort": 53, "protocol": "UDP"}
                    ],
                    "readinessProbe": {
                        "failureThreshold": 3, "grpc": {"port": 9, "service": ""},
                        "periodSeconds": 10, "successThreshold": 2, "timeoutSeconds": 1
                    },
                    "resources": {
                        "limits": {"cpu": "500m", "memory": "1Gi"},
                        "requests": {"cpu": "100m", "memory": "1Gi"}
                    },
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                }],
                "dnsPolicy": "Default",
                "enableServiceLinks": false,
                "hostNetwork": true,
                "initContainers": [{
                    "name": "setup",
                    "image": "a:v1",
                    "imagePullPolicy": "IfNotPresent",
                    "resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                }],
                "restartPolicy": "Never",
                "schedulerName": "mine",
                "securityContext": {},
                "serviceAccount": "robot",
                "serviceAccountName": "robot",
                "terminationGracePeriodSeconds": 0,
                "volumes": [
                    {"name": "none", "emptyDir": {}},
                    {"name": "map", "configMap": {"defaultMode": 420, "name": "m"}},
                    {"name": "secret", "secret": {"defaultMode": 256, "secretName": "s"}},
                    {"name": "down", "downwardAPI": {"defaultMode": 420, "items": [
                        {"path": "a", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}
                    ]}},
                    {"name": "all", "projected": {"defaultMode": 420, "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3600, "path": "token"}}
                    ]}},
                    {"name": "host", "hostPath": {"path": "/tmp", "type": ""}}
                ]
            }
        }"#,
    );
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, policy) in [
        ("web", "Always"),
        ("web:latest", "Always"),
        ("reg.io:5000/web", "Always"),
        ("reg.io:5000/web:latest", "Always"),
        ("Reg.IO/web", "Always"),
        ("localhost/web:v1", "IfNotPresent"),
        ("web:v1", "IfNotPresent"),
        ("web@sha256:00", "IfNotPresent"),
        ("web:latest@sha256:00", "Always"),
        ("Web", "IfNotPresent"),
        ("", "IfNotPresent"),
    ] {
        let given = format!("spec: {{containers: [{{name: a, image: '{image}'}}]}}");
        let pod = patched(&KIND, &given, "{}");
        let spec = pod.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref()).unwrap();
        assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some(policy), "{image}");
    }
}

/// The classes of BEHAVIOURS 9.3.
#[test]
fn the_quality_of_service_follows_the_resources() {
    #[track_caller]
    fn check(containers: &str, class: &str) {
        let mut pod = patched(&KIND, &format!("spec: {{{containers}}}"), "{}");
        KIND.strategy.prepare_create(&mut *pod);
        let status = pod.downcast_ref::<Pod>().and_then(|pod| pod.status.as_ref()).unwrap();
        assert_eq!(status.qos_class.as_deref(), Some(class), "{containers}");
    }
    let full = "resources: {limits: {cpu: 1, memory: 1Gi}}";
    check("containers: [{name: a}]", "BestEffort");
    check("containers: [{name: a, resources: {requests: {ephemeral-storage: 1Gi}}}]", "BestEffort");
    check("containers: [{name: a, resources: {requests: {cpu: 0}}}]", "BestEffort");
    check(&format!("containers: [{{name: a, {full}}}]"), "Guaranteed");
    check(
        "containers: [{name: a, resources: {limits: {cpu: 1000m, memory: 1Gi}, requests: {cpu: 1, memory: 1024Mi}}}]",
        "Guaranteed",
    );
    check(&format!("containers: [{{name: a, {full}}}, {{name: b}}]"), "Burstable");
    check(&format!("containers: [{{name: a, {full}}}], initContainers: [{{name: b}}]"), "Burstable");
    check("containers: [{name: a, resources: {limits: {cpu: 1}}}]", "Burstable");
    check(
        "containers: [{name: a, resources: {limits: {cpu: 1, memory: 1}, requests: {cpu: 1m}}}]",
        "Burstable",
    );
}

/// BEHAVIOURS 8.1 and 9.1.
#[test]
fn creation_clears_the_status_and_settles_the_priority() {
    let mut pod = patched(
        &KIND,
        "
        spec:
          schedulingGates: [{name: example.com/wait}]
          containers: [{name: a}]
          affinity:
            podAffinity:
              requiredDuringSchedulingIgnoredDuringExecution:
              - {topologyKey: a, labelSelector: {}, matchLabelKeys: [app, absent], mismatchLabelKeys: [tenant]}
        metadata: {name: a, labels: {app: web, tenant: me}}
        status: {phase: Running, podIP: 1.2.3.4}
        ",
        "{}",
    );
    KIND.strategy.prepare_create(&mut *pod);
    let pod = pod.downcast_ref::<Pod>().unwrap();
    assert_eq!(
        serde_json::to_value(&pod.status).unwrap(),
        serde_json::json!({
            "phase": "Pending",
            "qosClass": "BestEffort",
            "conditions": [{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates"
            }]
        })
    );
    let spec = serde_json::to_value(&pod.spec).unwrap();
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&0.into(), &"PreemptLowerPriority".into()));
    assert_eq!(
        spec.pointer("/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/labelSelector"),
        Some(&serde_json::json!({"matchExpressions": [
            {"key": "app", "operator": "In", "values": ["web"]},
            {"key": "tenant", "operator": "NotIn", "values": ["me"]}
        ]}))
    );
}

#[test]
fn fields_select_pods() {
    let pod = object(
        &KIND,
        "
        spec: {nodeName: n1, restartPolicy: Never, schedulerName: s, serviceAccountName: r, hostNetwork: true, containers: []}
        status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], nominatedNodeName: n2}
        ",
    );
    let fields: Vec<String> =
        KIND.strategy.fields(&*pod).iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        fields,
        [
            "spec.nodeName=n1",
            "spec.restartPolicy=Never",
            "spec.schedulerName=s",
            "spec.serviceAccountName=r",
            "spec.hostNetwork=true",
            "status.phase=Running",
            "status.podIP=10.0.0.1",
            "status.nominatedNodeName=n2",
        ]
    );
    let bare = object(&KIND, "{}");
    assert_eq!(KIND.strategy.fields(&*bare)[4], ("spec.hostNetwork", "false".to_owned()));
}

/// BEHAVIOURS 9.10 and 4.2.
#[test]
fn deletion_waits_only_for_what_runs() {
    for (pod, requested, seconds) in [
        ("spec: {nodeName: n1, containers: [], terminationGracePeriodSeconds: 30}", None, 30),
        ("spec: {nodeName: n1, containers: [], terminationGracePeriodSeconds: 30}", Some(5), 5),
        ("spec: {nodeName: n1, containers: [], terminationGracePeriodSeconds: 30}", Some(0), 0),
        ("spec: {nodeName: n1, containers: [], terminationGracePeriodSeconds: 30}", Some(-7), 1),
        ("spec: {nodeName: n1, containers: [], terminationGracePeriodSeconds: -1}", None, 1),
        ("spec: {nodeName: n1, containers: []}", None, 0),
        ("spec: {containers: [], terminationGracePeriodSeconds: 30}", Some(5), 0),
        (
            "{spec: {nodeName: n1, containers: [], terminationGracePeriodSeconds: 30}, status: {phase: Failed}}",
            Some(5),
            0,
        ),
        (
            "{spec: {nodeName: n1, containers: [], terminationGracePeriodSeconds: 30}, status: {phase: Succeeded}}",
            None,
            0,
        ),
    ] {
        let object = object(&KIND, pod);
        assert_eq!(KIND.strategy.deletion_grace_seconds(&*object, requested), seconds, "{pod} {requested:?}");
    }
}

#[test]
fn odd_pods_are_accepted_with_warnings() {
    #[track_caller]
    fn check(patch: &str, expected: &[&str]) {
        let pod = patched(&KIND, super::BASE, patch);
        assert_eq!(KIND.strategy.warnings(&*pod), expected, "{patch}");
    }
    check("{}", &[]);
    check(
        "{metadata: {name: a.b}}",
        &[
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
        ],
    );
    check(
        "{spec: {containers: [{name: a, env: [{name: A, value: a}, {name: A, value: '$(A)b'}, {name: A, value: c}]}]}}",
        &[
            "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
        ],
    );
    check(
        "{spec: {containers: [{name: a, ports: [{containerPort: 80}, {containerPort: 80}, {containerPort: 80, hostPort: 1}]}]}}",
        &[
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[1]",
        ],
    );
    check(
        "{spec: {containers: [{name: a, resources: {requests: {memory: 500m}}}]}}",
        &[
            "spec.containers[0].resources.requests[memory]: fractional byte value \"500m\" is invalid, must be an integer",
        ],
    );
    check(
        "{spec: {terminationGracePeriodSeconds: -1, imagePullSecrets: [{name: a}, {name: a}], topologySpreadConstraints: [{maxSkew: 1}]}}",
        &[
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            "spec.imagePullSecrets[1].name: duplicate name \"a\"",
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
        ],
    );
}
