//! A container's environment, command line and working directory (BEHAVIOURS 10.1 to 10.5).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret};

use super::content::{self, Values, Versions};
use super::fields::{self, Facts};
use super::image::ImageConfig;
use super::sources::{Found, Source};

/// Why an environment cannot be made, in the status' words (`CreateContainerConfigError`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EnvError(pub(crate) String);

/// Replaces `$(NAME)` by its value. `$$(NAME)` is the text `$(NAME)`, `$$` is `$`; unknown names
/// and anything else stay as written (upstream `expansion.Expand`).
#[must_use]
pub(crate) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    if !text.contains('$') {
        return text.to_owned();
    }
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            result.push('$');
            rest = escaped;
        } else if let Some((name, behind)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => result.push_str(&value),
                None => result.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = behind;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

/// The ConfigMaps and Secrets that a container's environment names.
pub(crate) fn sources(container: &Container) -> impl Iterator<Item = Source> {
    let from = container.env_from.iter().flatten().filter_map(|from| {
        let map = from.config_map_ref.as_ref().map(|reference| Source::config_map(&reference.name));
        map.or_else(|| from.secret_ref.as_ref().map(|reference| Source::secret(&reference.name)))
    });
    let vars = container.env.iter().flatten().filter_map(|var| {
        let from = var.value_from.as_ref()?;
        let map = from.config_map_key_ref.as_ref().map(|reference| Source::config_map(&reference.name));
        map.or_else(|| from.secret_key_ref.as_ref().map(|reference| Source::secret(&reference.name)))
    });
    from.chain(vars)
}

/// The versions of the sources that an environment is made of.
pub(crate) fn versions(found: &Found) -> Versions {
    let maps =
        found.config_maps.iter().map(|(name, map)| (Source::config_map(name), content::version(&**map)));
    let secrets =
        found.secrets.iter().map(|(name, secret)| (Source::secret(name), content::version(&**secret)));
    maps.chain(secrets).collect()
}

/// What of the environment `wasi:config/store` tells: values of ConfigMaps, those of `envFrom` with
/// their prefix, then variables by their name. Never a Secret's.
pub(crate) fn settings(container: &Container, found: &Found) -> Values {
    let mut settings = Values::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let map = from.config_map_ref.as_ref().and_then(|reference| found.config_map(&reference.name));
        for (key, value) in map.iter().flat_map(|map| map.data.iter().flatten()) {
            settings.insert(format!("{prefix}{key}"), value.clone().into());
        }
    }
    for var in container.env.iter().flatten() {
        let reference = var.value_from.as_ref().and_then(|from| from.config_map_key_ref.as_ref());
        let map = reference.and_then(|reference| found.config_map(&reference.name));
        let data = map.and_then(|map| map.data.as_ref());
        if let Some(value) = reference.and_then(|reference| data?.get(&reference.key)) {
            settings.insert(var.name.clone(), value.clone().into());
        }
    }
    settings
}

/// The environment in order: `envFrom`, `env`, then the services' variables that nothing else sets.
/// What is not text is refused: guests take no other, and a value must not change on its way.
pub(crate) fn build(
    container: &Container,
    facts: &Facts<'_>,
    found: &Found,
    services: &[(String, String)],
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Env::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            let optional = reference.optional.unwrap_or(false);
            let Some(map) = config_map(found, &reference.name, optional)? else { continue };
            for (key, value) in map.data.iter().flatten() {
                env.set(&format!("{prefix}{key}"), value.clone());
            }
        } else if let Some(reference) = &from.secret_ref {
            let optional = reference.optional.unwrap_or(false);
            let Some(secret) = secret(found, &reference.name, optional)? else { continue };
            for (key, value) in secret.data.iter().flatten() {
                let name = format!("{prefix}{key}");
                let value = secret_text(&value.0, &name, key, facts.pod, &reference.name)?;
                env.set(&name, value);
            }
        }
    }
    for var in container.env.iter().flatten() {
        let value = match var.value.as_deref().filter(|value| !value.is_empty()) {
            Some(text) => Some(expand(text, |name| env.get(name).or_else(|| service(services, name)))),
            None => value_from(var, container, facts, found)?,
        };
        if let Some(value) = value {
            env.set(&var.name, value);
        }
    }
    for (name, value) in services {
        if env.get(name).is_none() {
            env.set(name, value.clone());
        }
    }
    match env.list.iter().find(|(_, value)| value.contains('\0')) {
        Some((name, _)) => Err(EnvError(format!(
            "cannot set variable {name:?}: its value holds a NUL byte, where guests would cut it; \
             mount the value as a file instead"
        ))),
        None => Ok(env.list),
    }
}

/// The image's variables, below all others.
pub(crate) fn with_image(env: Vec<(String, String)>, image: &ImageConfig) -> Vec<(String, String)> {
    let is_set = |name: &str| env.iter().any(|(other, _)| other == name);
    let defaults = image.env.iter().filter(|(name, _)| !is_set(name)).cloned();
    let mut all: Vec<(String, String)> = defaults.collect();
    all.extend(env);
    all
}

/// Adds what a container runtime sets itself, unless the pod does. References are expanded without
/// it, as in Kubernetes: `$(HOSTNAME)` stays as written.
#[must_use]
pub(crate) fn with_hostname(mut env: Vec<(String, String)>, pod: &Pod) -> Vec<(String, String)> {
    if !env.iter().any(|(name, _)| name == "HOSTNAME") {
        env.insert(0, ("HOSTNAME".to_owned(), fields::hostname(pod)));
    }
    env
}

/// The program's name and its arguments: `command` and `args`, expanded. As in Kubernetes a command
/// takes the place of all that the image says, and arguments that of its `Cmd`. Where neither names a
/// program, its name is the last part of the image's.
pub(crate) fn args(
    container: &Container,
    env: &[(String, String)],
    image: &ImageConfig,
) -> Result<Vec<String>, EnvError> {
    let value = |name: &str| service(env, name);
    let expanded = |text: &String| expand(text, value);
    let own = container.args.as_deref().unwrap_or_default();
    let mut args: Vec<String> = container.command.iter().flatten().map(expanded).collect();
    if args.is_empty() {
        let (program, defaults) = match (image.entrypoint.as_slice(), image.cmd.split_first()) {
            // Without an entry point the program is what is called by default.
            ([], Some((program, rest))) => (vec![program.clone()], rest),
            ([], None) => {
                let name = container.image.as_deref().unwrap_or_default();
                let last = name.rsplit('/').next().unwrap_or(name);
                (vec![last.split([':', '@']).next().unwrap_or(last).to_owned()], &[][..])
            }
            (entrypoint, _) => (entrypoint.to_vec(), image.cmd.as_slice()),
        };
        args = program;
        args.extend(defaults.iter().filter(|_| own.is_empty()).cloned());
    }
    args.extend(own.iter().map(expanded));
    match args.iter().position(|arg| arg.contains('\0')) {
        Some(place) => Err(EnvError(format!(
            "cannot pass argument {place} of the command line: it holds a NUL byte, where guests would cut it"
        ))),
        None => Ok(args),
    }
}

#[derive(Default)]
struct Env {
    list: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
}

impl Env {
    fn set(&mut self, name: &str, value: String) {
        match self.places.get(name) {
            Some(place) => self.list[*place].1 = value,
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.places.get(name).map(|place| self.list[*place].1.clone())
    }
}

fn service(services: &[(String, String)], name: &str) -> Option<String> {
    services.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

fn config_map<'a>(found: &'a Found, name: &str, optional: bool) -> Result<Option<&'a ConfigMap>, EnvError> {
    match found.config_map(name) {
        Some(map) => Ok(Some(map)),
        None if optional => Ok(None),
        None => Err(EnvError(format!("configmap {name:?} not found"))),
    }
}

fn secret<'a>(found: &'a Found, name: &str, optional: bool) -> Result<Option<&'a Secret>, EnvError> {
    match found.secret(name) {
        Some(secret) => Ok(Some(secret)),
        None if optional => Ok(None),
        None => Err(EnvError(format!("secret {name:?} not found"))),
    }
}

fn value_from(
    var: &EnvVar,
    container: &Container,
    facts: &Facts<'_>,
    found: &Found,
) -> Result<Option<String>, EnvError> {
    let Some(from) = &var.value_from else { return Ok(Some(String::new())) };
    let namespace = namespace(facts.pod);
    if let Some(reference) = &from.config_map_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let Some(map) = config_map(found, &reference.name, optional)? else { return Ok(None) };
        return match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(missing_key(&reference.key, "ConfigMap", namespace, &reference.name)),
        };
    }
    if let Some(reference) = &from.secret_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let Some(secret) = secret(found, &reference.name, optional)? else { return Ok(None) };
        return match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => {
                secret_text(&value.0, &var.name, &reference.key, facts.pod, &reference.name).map(Some)
            }
            None if optional => Ok(None),
            None => Err(missing_key(&reference.key, "Secret", namespace, &reference.name)),
        };
    }
    if let Some(reference) = &from.field_ref {
        let value = fields::field(facts, &reference.field_path);
        return value
            .map(Some)
            .ok_or_else(|| EnvError(format!("unsupported fieldPath: {}", reference.field_path)));
    }
    if let Some(reference) = &from.resource_field_ref {
        let owner = reference.container_name.as_deref().unwrap_or(&container.name);
        let value = fields::resource(facts, owner, &reference.resource, reference.divisor.as_ref());
        return value.map(Some).map_err(EnvError);
    }
    Ok(Some(String::new()))
}

/// A value of a Secret as a variable. The error shows none of it.
fn secret_text(value: &[u8], variable: &str, key: &str, pod: &Pod, name: &str) -> Result<String, EnvError> {
    let text = std::str::from_utf8(value).map_err(|_| {
        EnvError(format!(
            "cannot set variable {variable:?}: key {key} in Secret {}/{name} is not UTF-8 text; \
             mount it as a file instead",
            namespace(pod)
        ))
    })?;
    Ok(text.to_owned())
}

fn missing_key(key: &str, kind: &str, namespace: &str, name: &str) -> EnvError {
    EnvError(format!("couldn't find key {key} in {kind} {namespace}/{name}"))
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
