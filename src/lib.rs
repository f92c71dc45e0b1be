//! Coracle: a whole Kubernetes cluster in one binary, whose pods are WebAssembly.
//!
//! The modules are listed in reading order, which is also the order of imports: a module uses only
//! what stands above it here. `ARCHITECTURE.md` draws the path of a request through them.

pub mod clock;
pub mod random;

pub mod kind;
pub mod store;

pub mod apiserver;
pub mod client;

pub mod controller;
pub mod scheduler;

pub mod guests;
pub mod runtime;

pub mod network;

pub mod kubelet;

pub mod cluster;

pub mod bench;
pub mod cli;
