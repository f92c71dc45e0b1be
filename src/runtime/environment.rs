//! What a guest is told with its start: variables, arguments, and the directory it begins in.
//!
//! wasmtime-wasi keeps a copy of these in each instance. Here all instances of a container share one, which a
//! guest that is made for every request asks for seldom.

use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::ContainerSpec;

#[cfg(test)]
mod tests;

/// The version of the interface that wasmtime-wasi links; guests of others are matched to it.
const INTERFACE: &str = "wasi:cli/environment@0.2.12";

/// What one container's guests are told.
pub(super) struct Environment {
    variables: Arc<Vec<(String, String)>>,
    arguments: Arc<Vec<String>>,
    directory: Option<Arc<String>>,
}

impl Environment {
    pub(super) fn of(spec: &ContainerSpec) -> Arc<Self> {
        let mut variables = spec.env.clone();
        if let Some(directory) = &spec.working_dir
            && !variables.iter().any(|(name, _)| name == "PWD")
        {
            variables.push(("PWD".to_owned(), directory.clone()));
        }
        Arc::new(Self {
            variables: Arc::new(variables),
            arguments: Arc::new(spec.args.clone()),
            directory: spec.working_dir.clone().map(Arc::new),
        })
    }
}

/// The part of a guest's store that the interface needs.
pub(super) trait HasEnvironment: 'static {
    fn environment(&self) -> &Environment;
}

/// Replaces wasmtime-wasi's functions in `linker`.
pub(super) fn shadow<T: HasEnvironment>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut interface = linker.instance(INTERFACE)?;
    interface.func_wrap("get-environment", |store: StoreContextMut<'_, T>, (): ()| {
        Ok((Arc::clone(&store.data().environment().variables),))
    })?;
    interface.func_wrap("get-arguments", |store: StoreContextMut<'_, T>, (): ()| {
        Ok((Arc::clone(&store.data().environment().arguments),))
    })?;
    interface.func_wrap("initial-cwd", |store: StoreContextMut<'_, T>, (): ()| {
        Ok((store.data().environment().directory.clone(),))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}
