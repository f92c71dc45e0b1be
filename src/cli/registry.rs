//! What commands know of registries: where they are, and who asks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Failure;
use crate::kubelet::image::keyring::Keyring;
use crate::kubelet::image::registry::{Hosts, Options, STALL};

/// The credentials of a cluster and its registries' places, in its data directory.
const CONFIG_FILE: &str = "registry.json";
const HOSTS_FILE: &str = "registries.yaml";

#[derive(clap::Args, Clone, Debug)]
pub(super) struct RegistryArgs {
    /// Credentials for registries, as in Docker's config.json; every pod may pull with them [default:
    /// registry.json in the data directory, if it is there]
    #[arg(long, value_name = "FILE")]
    registry_config: Option<PathBuf>,
    /// Mirrors, plain-text hosts, certificates and credentials of registries, as in k3s' registries.yaml
    /// [default: registries.yaml in the data directory, if it is there]
    #[arg(long, value_name = "FILE")]
    registries: Option<PathBuf>,
    /// Reach no registry but those of registries.yaml and of this machine (localhost, 127.*)
    #[arg(long)]
    offline: bool,
    /// Seconds for which a registry's answer may make no progress
    #[arg(long, value_name = "SECONDS", default_value_t = STALL.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..))]
    image_pull_progress_deadline: u64,
}

impl RegistryArgs {
    /// Reads the files. Where none has credentials and `personal` is set, those that Docker keeps for the
    /// user are taken.
    pub(super) fn options(&self, data_dir: Option<&Path>, personal: bool) -> Result<Options, Failure> {
        let config = found(self.registry_config.as_deref(), data_dir, CONFIG_FILE)
            .or_else(|| docker_config().filter(|path| personal && path.is_file()));
        let keyring = match config {
            None => Keyring::default(),
            Some(path) => Keyring::from_config(&super::read_file(&path)?)
                .map_err(|error| format!("cannot use the credentials in {}: {error}", path.display()))?,
        };
        let hosts = match found(self.registries.as_deref(), data_dir, HOSTS_FILE) {
            None => Hosts::default(),
            Some(path) => {
                let text = String::from_utf8(super::read_file(&path)?).unwrap_or_default();
                Hosts::parse(&text).map_err(|error| format!("cannot use {}: {error}", path.display()))?
            }
        };
        let stall = Duration::from_secs(self.image_pull_progress_deadline);
        Ok(Options { hosts, keyring, offline: self.offline, stall })
    }
}

/// The file that was named, or the one in the data directory if it is there.
fn found(named: Option<&Path>, data_dir: Option<&Path>, usual: &str) -> Option<PathBuf> {
    let usual = || data_dir.map(|data_dir| data_dir.join(usual)).filter(|path| path.is_file());
    named.map(Path::to_owned).or_else(usual)
}

/// Where `docker login` keeps what it is told.
fn docker_config() -> Option<PathBuf> {
    match std::env::var_os("DOCKER_CONFIG") {
        Some(directory) => Some(PathBuf::from(directory).join("config.json")),
        None => etcetera::home_dir().ok().map(|home| home.join(".docker/config.json")),
    }
}
