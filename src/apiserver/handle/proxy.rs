//! `pods/proxy`, `services/proxy` and `nodes/proxy`: whom a request is for (BEHAVIOURS 8.8). It is carried
//! by those who have it, in `http/proxy.rs`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::{Inner, Target, decoded};
use crate::apiserver::request::{Backend, List, Options, Response, Verb};
use crate::apiserver::status::Error;
use crate::kind::{self, Object};
use crate::store::Range;

/// The label by which a slice says whose it is.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// `name`, `name:port`, `scheme:name:port`, as URLs name who is proxied to.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    is_https: bool,
    name: &'a str,
    /// A number or a name; may be empty.
    port: &'a str,
}

impl<'a> Asked<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let is_https = match scheme {
            "" | "http" => false,
            "https" => true,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { is_https, name, port })
    }

    fn port_number(&self) -> Option<u16> {
        self.port.parse().ok().filter(|port| *port != 0)
    }
}

impl Inner {
    pub(super) fn proxy(&self, target: &Target, verb: Verb, options: &Options) -> Result<Response, Error> {
        let text = target.name()?;
        let what = target.kind.singular;
        let asked = Asked::parse(text)
            .ok_or_else(|| Error::bad_request(format!("invalid {what} request {text:?}")))?;
        let record = self.store.get(&target.key(asked.name));
        let record = record.ok_or_else(|| Error::not_found(target.kind, asked.name))?;
        let object = decoded(target.kind, &record);
        let address = if let Some(pod) = object.downcast_ref::<Pod>() {
            of_pod(pod, &asked)?
        } else if let Some(service) = object.downcast_ref::<Service>() {
            let ends = of_service(service, &asked, &self.slices(target, asked.name))?;
            let dice = self.random.below(u64::try_from(ends.len()).unwrap_or(1));
            ends[usize::try_from(dice).unwrap_or_default() % ends.len()]
        } else if let Some(node) = object.downcast_ref::<Node>() {
            match of_node(node, &asked)? {
                Some(address) => address,
                None => return self.kubelet(asked.name, verb, &options.proxy_path),
            }
        } else {
            return Err(Error::method_not_allowed(target.kind));
        };
        let connection = self.nodes.connect(address);
        Ok(Response::Proxy(Backend { is_https: asked.is_https, address, connection }))
    }

    /// The slices of a service.
    fn slices(&self, target: &Target, service: &str) -> Vec<Arc<dyn Object>> {
        let kind = kind::of::<EndpointSlice>();
        let namespace = target.namespace.as_deref().map(Into::into);
        let range = Range { collection: kind.collection(), namespace };
        let listing = self.store.list(&range, None, None, &|record| {
            let object = decoded(kind, record);
            let labels = object.metadata().labels.as_ref();
            labels.and_then(|labels| labels.get(SERVICE_LABEL)).is_some_and(|name| name == service)
        });
        listing.records.iter().map(|record| decoded(kind, record)).collect()
    }

    /// What a kubelet says of itself: it has no port of its own here.
    fn kubelet(&self, node: &str, verb: Verb, path: &str) -> Result<Response, Error> {
        if verb != Verb::Get {
            return Err(Error::new(405, "MethodNotAllowed", "a kubelet only answers GET"));
        }
        match path.trim_matches('/') {
            "healthz" => {
                let text = futures_util::stream::iter([bytes::Bytes::from_static(b"ok")]);
                Ok(Response::Text(Box::pin(text)))
            }
            "pods" => {
                let kind = kind::of::<Pod>();
                let range = Range { collection: kind.collection(), namespace: None };
                let listing = self.store.list(&range, None, None, &|record| {
                    let object = decoded(kind, record);
                    let spec = object.downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref());
                    spec.and_then(|spec| spec.node_name.as_deref()) == Some(node)
                });
                let (revision, records) = (listing.revision, listing.records);
                Ok(Response::List(List { kind, revision, records, continue_token: None, remaining: None }))
            }
            _ => Err(Error::new(
                404,
                "NotFound",
                "the kubelet answers /healthz and /pods; name a port, as in NODE:PORT, for what listens on \
                 the node's address",
            )),
        }
    }
}

fn of_pod(pod: &Pod, asked: &Asked<'_>) -> Result<SocketAddr, Error> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default();
    let ip: IpAddr = ip.parse().map_err(|_| Error::bad_request("address not allowed"))?;
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let port = if asked.port.is_empty() {
        // The first that a container says it has, as upstream's.
        let first = ports.next().and_then(|port| u16::try_from(port.container_port).ok());
        first.unwrap_or(if asked.is_https { 443 } else { 80 })
    } else {
        asked.port_number().ok_or_else(|| {
            Error::bad_request(format!(
                "invalid port {:?} of pod {:?}: give its number",
                asked.port, asked.name
            ))
        })?
    };
    Ok(SocketAddr::new(ip, port))
}

/// Every endpoint that may be asked, at least one.
fn of_service(
    service: &Service,
    asked: &Asked<'_>,
    slices: &[Arc<dyn Object>],
) -> Result<Vec<SocketAddr>, Error> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let name = |port: &k8s_openapi::api::core::v1::ServicePort| port.name.clone().unwrap_or_default();
    // A number is the service's port, whose name leads to the endpoints' own.
    let port_name = match asked.port_number() {
        Some(number) => ports.iter().find(|port| port.port == i32::from(number)).map(name),
        None => Some(asked.port.to_owned()),
    };
    let port_name = port_name.ok_or_else(|| {
        unavailable(format!("no service port {:?} found for service {:?}", asked.port, asked.name))
    })?;
    let mut found = Vec::new();
    for slice in slices.iter().filter_map(|slice| slice.downcast_ref::<EndpointSlice>()) {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let port = ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|port| u16::try_from(port.port?).ok()) else { continue };
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.as_ref();
            if conditions.and_then(|conditions| conditions.ready).unwrap_or(true) {
                let address = endpoint.addresses.first().and_then(|address| address.parse().ok());
                found.extend(address.map(|ip: IpAddr| SocketAddr::new(ip, port)));
            }
        }
    }
    if found.is_empty() {
        return Err(unavailable(format!("no endpoints available for service {:?}", asked.name)));
    }
    Ok(found)
}

/// None is the kubelet itself.
fn of_node(node: &Node, asked: &Asked<'_>) -> Result<Option<SocketAddr>, Error> {
    if asked.port.is_empty() {
        return Ok(None);
    }
    let port = asked.port_number().ok_or_else(|| {
        Error::bad_request(format!("invalid port {:?} of node {:?}: give its number", asked.port, asked.name))
    })?;
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let ip = addresses.iter().find(|address| address.type_ == "InternalIP");
    let ip = ip.and_then(|address| address.address.parse::<IpAddr>().ok());
    let ip = ip.ok_or_else(|| Error::bad_request("address not allowed"))?;
    Ok(Some(SocketAddr::new(ip, port)))
}

fn unavailable(message: String) -> Error {
    Error::new(503, "ServiceUnavailable", message)
}

#[cfg(test)]
mod tests;
