use k8s_openapi::api::core::v1::Pod;

use super::KIND;
use crate::kind::testing::{lines, object};

const BASE: &str = "
metadata: {name: a}
spec: {restartPolicy: POLICY, containers: [{name: a}], initContainers: [{name: s, restartPolicy: Always}, {name: i}]}
status:
  phase: Running
  qosClass: BestEffort
  containerStatuses: [{name: a, image: i, imageID: i, ready: false, restartCount: 0, state: {terminated: {exitCode: CODE}}}]
  initContainerStatuses:
  - {name: s, image: i, imageID: i, ready: false, restartCount: 0, state: {terminated: {exitCode: CODE}}}
  - {name: i, image: i, imageID: i, ready: false, restartCount: 0, state: {terminated: {exitCode: CODE}}}
";

/// The errors of putting `status` in place of the old one.
#[track_caller]
fn check(policy: &str, exit_code: u8, status: &str, expected: &[&str]) {
    let old = BASE.replace("POLICY", policy).replace("CODE", &exit_code.to_string());
    let old = object(&KIND, &old);
    let mut new =
        object(&KIND, &format!("{{spec: {{nodeName: ignored, containers: []}}, status: {{{status}}}}}"));
    KIND.strategy.prepare_status_update(&mut *new, &*old);
    assert_eq!(new.downcast_ref::<Pod>().unwrap().spec, old.downcast_ref::<Pod>().unwrap().spec);
    assert_eq!(lines(&KIND.strategy.validate_status_update(&*new, &*old)), expected, "{status}");
}

#[test]
fn what_a_node_says_must_make_sense() {
    let check = |status: &str, expected: &[&str]| check("Always", 0, status, expected);
    check(
        "phase: Running, hostIP: 127.64.0.1, hostIPs: [{ip: 127.64.0.1}], podIPs: [{ip: 127.128.0.1}, {ip: '::1'}]",
        &[],
    );
    check("qosClass: Guaranteed", &["status.qosClass: Invalid value: \"Guaranteed\": field is immutable"]);
    check(
        "podIPs: [{ip: x}]",
        &[
            "status.podIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
    check(
        "podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.1}]",
        &[
            "status.podIPs[1]: Duplicate value: \"10.0.0.1\"",
            "status.podIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.1\"]: may specify no more than one IP for each IP family",
        ],
    );
    check(
        "hostIPs: [{ip: 10.0.0.1}]",
        &["status.hostIPs[0].ip: Invalid value: \"10.0.0.1\": must be equal to `hostIP`"],
    );
    check("conditions: [{type: Ready, status: 'True'}, {type: example.com/x, status: 'True'}]", &[]);
}

#[test]
fn the_ended_stay_ended() {
    const RUNNING: &str = "
        containerStatuses: [{name: a, image: i, imageID: i, ready: true, restartCount: 1, state: {running: {}}}],
        initContainerStatuses: [
          {name: s, image: i, imageID: i, ready: true, restartCount: 1, state: {running: {}}},
          {name: i, image: i, imageID: i, ready: true, restartCount: 1, state: {running: {}}}]";
    let stays = [
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
        "status.initContainerStatuses[1].state: Forbidden: may not be transitioned to non-terminated state",
    ];
    check("Always", 1, RUNNING, &[]);
    check("OnFailure", 1, RUNNING, &[]);
    check("OnFailure", 0, RUNNING, &stays);
    check("Never", 1, RUNNING, &stays);
}

#[test]
fn the_single_address_is_the_first() {
    #[track_caller]
    fn check(status: &str, one: Option<&str>, all: &[&str]) {
        let old = object(&KIND, "{}");
        let mut new = object(&KIND, &format!("{{status: {{{status}}}}}"));
        KIND.strategy.prepare_status_update(&mut *new, &*old);
        let status = new.downcast_ref::<Pod>().unwrap().status.clone().unwrap();
        let addresses: Vec<String> = status.pod_ips.into_iter().flatten().map(|one| one.ip).collect();
        assert_eq!(
            (status.pod_ip.as_deref(), addresses),
            (one, all.iter().map(ToString::to_string).collect())
        );
    }
    check("phase: Pending", None, &[]);
    check("podIP: 10.0.0.1", Some("10.0.0.1"), &["10.0.0.1"]);
    check("podIPs: [{ip: 10.0.0.1}, {ip: '::1'}]", Some("10.0.0.1"), &["10.0.0.1", "::1"]);
    check("podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: '::1'}]", Some("10.0.0.1"), &["10.0.0.1", "::1"]);
    check("podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.1}]", Some("10.0.0.2"), &["10.0.0.2"]);
}
