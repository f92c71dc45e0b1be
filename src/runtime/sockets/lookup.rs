//! `wasi:sockets/ip-name-lookup`: a guest's names, as its network knows them.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::vec;

use async_trait::async_trait;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network as WasiNetwork};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::HasNetwork;
use crate::runtime::network::{LookupError, Network};

/// The longest name that is looked up, in bytes: longer ones are none of DNS.
const NAME_BYTES_MAX: usize = 253;

type Found = Result<vec::IntoIter<IpAddr>, ErrorCode>;

/// The addresses of a name: the guest's `resolve-address-stream`.
struct Lookup {
    /// None once it has come to `found`.
    asking: Option<Pin<Box<dyn Future<Output = Found> + Send>>>,
    found: Found,
}

impl Lookup {
    fn start(network: Option<&Arc<dyn Network>>, name: String) -> Result<Self, ErrorCode> {
        let Some(network) = network.cloned() else { return Err(ErrorCode::PermanentResolverFailure) };
        // The last dot is none of the name's own.
        let length = name.strip_suffix('.').unwrap_or(&name).len();
        if length == 0 || length > NAME_BYTES_MAX {
            return Err(ErrorCode::NameUnresolvable);
        }
        let asking = Box::pin(async move {
            match network.lookup(&name).await {
                Ok(found) => Ok(found.into_iter()),
                Err(LookupError::Unknown) => Err(ErrorCode::NameUnresolvable),
                Err(LookupError::Temporary) => Err(ErrorCode::TemporaryResolverFailure),
                Err(LookupError::Permanent) => Err(ErrorCode::PermanentResolverFailure),
                Err(LookupError::Refused) => Err(ErrorCode::AccessDenied),
            }
        });
        let mut lookup = Self { asking: Some(asking), found: Err(ErrorCode::WouldBlock) };
        // The cluster's own names are known without waiting.
        if lookup.poll(&mut Context::from_waker(Waker::noop())).is_ready()
            && let Err(error) = lookup.found
        {
            return Err(error);
        }
        Ok(lookup)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(asking) = &mut self.asking {
            let Poll::Ready(found) = asking.as_mut().poll(context) else { return Poll::Pending };
            self.found = found;
            self.asking = None;
        }
        Poll::Ready(())
    }

    fn next(&mut self) -> Result<Option<IpAddress>, ErrorCode> {
        if self.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Err(ErrorCode::WouldBlock);
        }
        match &mut self.found {
            Ok(found) => Ok(found.next().map(IpAddress::from)),
            Err(error) => Err(*error),
        }
    }
}

#[async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }
}

/// Replaces the interface as a whole, its resource too; shadowing is allowed by the caller.
pub(super) fn shadow<T: HasNetwork + 'static>(linker: &mut Linker<T>, name: &str) -> wasmtime::Result<()> {
    let mut interface = linker.instance(name)?;
    let stream = ResourceType::host::<Lookup>();
    interface.resource("resolve-address-stream", stream, |mut store, rep| {
        store.data_mut().ctx().table.delete(Resource::<Lookup>::new_own(rep))?;
        Ok(())
    })?;
    interface.func_wrap(
        "resolve-addresses",
        |mut store: StoreContextMut<'_, T>, (network, name): (Resource<WasiNetwork>, String)| {
            // Whoever has no network resource has no network.
            store.data_mut().ctx().table.get(&network)?;
            let started = Lookup::start(store.data().network(), name);
            let table = store.data_mut().ctx().table;
            Ok((match started {
                Ok(lookup) => Ok(table.push(lookup)?),
                Err(error) => Err(error),
            },))
        },
    )?;
    interface.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<Lookup>,)| {
            let lookup: &mut Lookup = store.data_mut().ctx().table.get_mut(&this)?;
            Ok((lookup.next(),))
        },
    )?;
    interface.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, T>, (this,): (Resource<Lookup>,)| {
            let pollable: Resource<DynPollable> = subscribe(store.data_mut().ctx().table, this)?;
            Ok((pollable,))
        },
    )
}
