//! The integration tests: one binary, real clusters on free ports, real kubectl.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod harness;
mod http_load;

mod apps;
mod canary;
mod client_library;
mod config;
mod config_history;
mod control_plane;
mod crash;
mod cron;
mod cron_kubectl;
mod datagrams;
mod debug;
mod drain;
mod egress;
mod exec;
mod guest;
mod http_failures;
mod http_pods;
mod jobs;
mod kills;
mod kubectl;
mod lifecycle;
mod names;
mod pod_limits;
mod pods;
mod policy;
mod proxy;
mod python_client;
mod queue;
mod registry;
mod reload;
mod restart;
mod sealing;
mod service_failures;
mod services;
mod simulated;
mod terminal;
mod tidy;
mod tokens;
mod virtual_time;
