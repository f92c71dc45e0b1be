//! `pods/exec`, `pods/attach` and `pods/portforward`: with which container, and whether it runs
//! (BEHAVIOURS 8.7). Nothing begins here: the connection must first be the client's and ours alone.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::log::container;
use super::{Inner, Target, decoded};
use crate::apiserver::request::{Options, Response, StreamOptions};
use crate::apiserver::status::Error;
use crate::apiserver::stream::{Ports, Streaming};
use crate::kind::Object;

impl Inner {
    pub(super) fn exec(&self, target: &Target, options: &Options) -> Result<Response, Error> {
        let object = decoded(target.kind, &*self.find(target)?);
        let pod = running(target, &object)?;
        let asked = wanted(&options.streams)?;
        if asked.command.first().is_none_or(String::is_empty) {
            return Err(Error::bad_request("you must specify at least one command for the container"));
        }
        if let Some(place) = asked.command.iter().position(|word| word.contains('\0')) {
            let why = format!("cannot pass word {place} of the command: it holds a NUL byte");
            return Err(Error::bad_request(why));
        }
        let container = container(pod, asked.container.as_deref()).map_err(Error::bad_request)?;
        Ok(Response::Stream(Streaming::Program(self.nodes.exec(pod, container, &asked)?)))
    }

    pub(super) fn attach(&self, target: &Target, options: &Options) -> Result<Response, Error> {
        let object = decoded(target.kind, &*self.find(target)?);
        let pod = running(target, &object)?;
        let asked = wanted(&options.streams)?;
        let container = container(pod, asked.container.as_deref()).map_err(Error::bad_request)?;
        Ok(Response::Stream(Streaming::Program(self.nodes.attach(pod, container, &asked)?)))
    }

    pub(super) fn port_forward(&self, target: &Target, options: &Options) -> Result<Response, Error> {
        let object = decoded(target.kind, &*self.find(target)?);
        let pod = running(target, &object)?;
        Ok(Response::Stream(Streaming::Ports(Ports {
            pod: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            ports: options.streams.ports.clone(),
            dial: self.nodes.dial(pod)?,
        })))
    }
}

/// The pod, if it has a node.
fn running<'a>(target: &Target, object: &'a Arc<dyn Object>) -> Result<&'a Pod, Error> {
    let Some(pod) = object.downcast_ref::<Pod>() else {
        return Err(Error::method_not_allowed(target.kind));
    };
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if node.is_none_or(str::is_empty) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        return Err(Error::bad_request(format!("pod {name} does not have a host assigned")));
    }
    Ok(pod)
}

/// What is asked for, as far as it goes together: a terminal has one stream of output.
fn wanted(options: &StreamOptions) -> Result<StreamOptions, Error> {
    if !options.stdin && !options.stdout && !options.stderr {
        return Err(Error::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let stderr = options.stderr && !options.tty;
    Ok(StreamOptions { stderr, ..options.clone() })
}

#[cfg(test)]
mod tests;
