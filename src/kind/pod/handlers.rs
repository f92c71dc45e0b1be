//! Probes and lifecycle hooks (BEHAVIOURS 9.9, 9.12).

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
};

use super::{list, text};
use crate::kind::field::{Errors, Path};
use crate::kind::validation::{each, http_header_name, not_negative, port_number, port_number_or_name};

/// What a probe or hook does; just one of these.
#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

/// The probes and hooks of a container that may have them, in a pod that gets `grace` seconds.
pub(super) fn validate(container: &Container, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    if let Some(lifecycle) = &container.lifecycle {
        let path = path.child("lifecycle");
        for (which, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            if let Some(LifecycleHandler { exec, http_get, tcp_socket, sleep }) = hook {
                let handler = Handler {
                    exec: exec.as_ref(),
                    http_get: http_get.as_ref(),
                    tcp_socket: tcp_socket.as_ref(),
                    sleep: sleep.as_ref(),
                    ..Handler::default()
                };
                validate_handler(&handler, grace, &path.child(which), errors);
            }
        }
    }
    for (which, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        let Some(probe) = probe else { continue };
        let path = path.child(which);
        validate_probe(probe, grace, &path, errors);
        if which == "readinessProbe" {
            if let Some(seconds) = probe.termination_grace_period_seconds {
                let path = path.child("terminationGracePeriodSeconds");
                errors.invalid(&path, seconds, "must not be set for readinessProbes");
            }
        } else if probe.success_threshold != Some(1) {
            let threshold = probe.success_threshold.unwrap_or_default();
            errors.invalid(&path.child("successThreshold"), threshold, "must be 1");
        }
    }
}

fn validate_probe(probe: &Probe, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    validate_handler(&handler, grace, path, errors);
    for (which, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        not_negative(errors, &path.child(which), number.unwrap_or_default().into());
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        let path = path.child("terminationGracePeriodSeconds");
        errors.invalid(&path, seconds, "must be greater than 0");
    }
}

fn validate_handler(handler: &Handler<'_>, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    let given: Vec<&str> = [
        ("exec", handler.exec.is_some()),
        ("httpGet", handler.http_get.is_some()),
        ("tcpSocket", handler.tcp_socket.is_some()),
        ("grpc", handler.grpc.is_some()),
        ("sleep", handler.sleep.is_some()),
    ]
    .into_iter()
    .filter_map(|(which, given)| given.then_some(which))
    .collect();
    let Some((first, others)) = given.split_first() else {
        return errors.required(path, "must specify a handler type");
    };
    // Only the first is looked into.
    let path_of_first = path.child(first);
    match *handler {
        Handler { exec: Some(exec), .. } => {
            if list(&exec.command).is_empty() {
                errors.required(&path_of_first.child("command"), "");
            }
        }
        Handler { http_get: Some(get), .. } => validate_http_get(get, &path_of_first, errors),
        Handler { tcp_socket: Some(socket), .. } => {
            port_number_or_name(errors, &path_of_first.child("port"), &socket.port);
        }
        Handler { grpc: Some(grpc), .. } => {
            each(errors, &path_of_first.child("port"), grpc.port, port_number(grpc.port));
        }
        Handler { sleep: Some(sleep), .. } => {
            if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&sleep.seconds)) {
                let why =
                    format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.invalid(&path_of_first, sleep.seconds, &why);
            }
        }
        Handler { .. } => {}
    }
    for other in others {
        errors.forbidden(&path.child(other), "may not specify more than 1 handler type");
    }
}

fn validate_http_get(get: &HTTPGetAction, path: &Path, errors: &mut Errors) {
    if text(&get.path).is_empty() {
        errors.required(&path.child("path"), "");
    }
    port_number_or_name(errors, &path.child("port"), &get.port);
    let scheme = text(&get.scheme);
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.unsupported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in list(&get.http_headers) {
        each(errors, &path.child("httpHeaders"), &header.name, http_header_name(&header.name));
    }
}
