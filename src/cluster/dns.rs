//! The cluster's name server, if it may listen: guests look names up without it.

use std::io;

use k8s_openapi::api::core::v1::Service;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{self, Client, Recorder};
use crate::clock::Clock;
use crate::controller;
use crate::network::Networks;
use crate::network::dns::server::Server;
use crate::network::dns::upstream::PORT;

/// The server, or why there is none.
pub(super) struct Dns {
    told: controller::Dns,
    stop: CancellationToken,
    running: io::Result<JoinHandle<()>>,
}

impl Dns {
    pub(super) async fn start(networks: &Networks, clock: Clock) -> Self {
        let (address, stop) = (networks.plan().dns(), CancellationToken::new());
        let server = Server::bind(address, networks.names(), clock).await;
        let running = server.map(|server| tokio::spawn(server.run(stop.clone())));
        let told = controller::Dns { address, port: PORT, is_served: running.is_ok() };
        Self { told, stop, running }
    }

    /// What the controllers are to know.
    pub(super) fn told(&self) -> controller::Dns {
        self.told
    }

    /// Says why nobody answers, if so, and what to do about it.
    pub(super) async fn tell(&self, client: &Client, recorder: &Recorder) {
        let Err(error) = &self.running else { return };
        let message = complaint(self.told, error);
        tracing::warn!("{message}");
        match client.get::<Service>("kube-system", "kube-dns").await {
            Ok(service) => recorder.warning(&client::reference(&*service, None), "FailedToListen", message),
            Err(error) => tracing::debug!(%error, "there is no service to tell it of"),
        }
    }

    pub(super) async fn shutdown(self) {
        self.stop.cancel();
        if let Ok(running) = self.running
            && let Err(error) = running.await
        {
            tracing::error!(%error, "the name server failed");
        }
    }
}

/// What to say of a server that may not listen.
fn complaint(told: controller::Dns, error: &io::Error) -> String {
    let mend = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "let the program use ports below 1024, with `setcap cap_net_bind_service=+ep` on it or `sysctl \
             net.ipv4.ip_unprivileged_port_start=53`"
        }
        io::ErrorKind::AddrInUse => "stop what listens there",
        _ => "see to it that the address can be listened on",
    };
    let controller::Dns { address, port, .. } = told;
    format!(
        "cannot answer DNS queries on {address}:{port}: {error}; programs that run in pods find names all the \
         same, others on this machine do not: {mend}, and start the cluster again"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_the_server_from_listening_is_told_with_the_mend() {
        let told = controller::Dns { address: [127, 96, 0, 10].into(), port: 53, is_served: false };
        for (kind, mend) in [
            (io::ErrorKind::PermissionDenied, "setcap cap_net_bind_service=+ep"),
            (io::ErrorKind::AddrInUse, "stop what listens there"),
            (io::ErrorKind::AddrNotAvailable, "can be listened on"),
        ] {
            let said = complaint(told, &kind.into());
            assert!(said.starts_with("cannot answer DNS queries on 127.96.0.10:53: "), "{said}");
            assert!(said.contains(mend), "{said}");
        }
    }
}
