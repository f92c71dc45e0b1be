//! `coracle run`: one pod on a throw-away cluster.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, ContainerStatus, EnvVar, Pod, PodSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::progress::Progress;
use super::registry::RegistryArgs;
use super::{DataDir, Failure, read_file};
use crate::apiserver::request::LogOptions;
use crate::client::{Client, Event, Select};
use crate::cluster::{Cluster, Config};

/// The pod, its container, its ConfigMap and, for a file, its image.
const NAME: &str = "run";
/// Where the files of `--config` are seen.
const CONFIG_PATH: &str = "/config";
/// What a shell shows for a program stopped by SIGINT.
const INTERRUPTED: u8 = 130;

/// Run one program as a pod, with its output on this terminal and its exit code as ours
///
/// The cluster lives in memory and ends with the program: no set-up, no leftovers. The program sees
/// its arguments, its env and, with --config, the files of a directory at /config; nothing else.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  coracle run hello.wasm -- first second\n  \
    coracle run -e NAME=value --config ./settings worker.wasm\n  coracle run coracle.dev/hello:v1")]
pub(super) struct Run {
    /// Set an environment variable
    #[arg(short, long = "env", value_name = "K=V", value_parser = environment)]
    env: Vec<(String, String)>,
    /// Show the files of a directory to the program at /config
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    registries: RegistryArgs,
    /// A .wasm file, or the name of an image: built in, in the data directory, or at a registry
    #[arg(value_name = "FILE.wasm|IMAGE")]
    program: String,
    /// The program's arguments
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

fn environment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=value".to_owned()),
    }
}

impl Run {
    pub(super) fn run(&self) -> Result<u8, Failure> {
        let (image, images) = if is_file(&self.program) {
            let wasm = Bytes::from(read_file(Path::new(&self.program))?);
            (format!("{NAME}:file"), vec![(format!("{NAME}:file"), wasm)])
        } else {
            (self.program.clone(), Vec::new())
        };
        let config_map = self.config.as_deref().map(config_map).transpose()?;
        let data_dir = self.data_dir.path()?;
        let registries = Some(self.registries.options(Some(&data_dir), true)?);
        let config = Config { images, image_dir: Some(data_dir), registries, ..Config::default() };
        super::runtime()?.block_on(async {
            let progress = Progress::start(&format!("starting {}", self.program));
            let cluster = Cluster::start(config).await?;
            let ended = tokio::select! {
                ended = self.follow(&cluster, &image, config_map, &progress) => ended,
                _ = tokio::signal::ctrl_c() => Ok(INTERRUPTED),
            };
            cluster.shutdown().await;
            ended
        })
    }

    async fn follow(
        &self,
        cluster: &Cluster,
        image: &str,
        config_map: Option<ConfigMap>,
        progress: &Progress,
    ) -> Result<u8, Failure> {
        cluster.ready().await?;
        let client = cluster.client();
        let with_config = config_map.is_some();
        if let Some(map) = config_map {
            client.create(map).await?;
        }
        let mut watcher =
            client.watch::<Pod>(Select { namespace: Some("default".into()), ..Select::default() });
        client.create(self.pod(image, with_config)).await?;
        let mut printing = None;
        while let Some(event) = watcher.next().await {
            let pod = match event {
                Event::Applied(pod) => pod,
                Event::Restarted(mut pods) => match pods.pop() {
                    Some(pod) => pod,
                    None => continue,
                },
                Event::Deleted(_) => return Err(format!("the pod of {} was deleted", self.program).into()),
            };
            let Some(status) = container_status(&pod) else { continue };
            let state = status.state.clone().unwrap_or_default();
            if let Some(waiting) = state.waiting {
                let reason = waiting.reason.unwrap_or_default();
                if reason.starts_with("Err") || reason.contains("Error") || reason.contains("Invalid") {
                    let message = waiting.message.unwrap_or_default();
                    return Err(format!("cannot run {}: {reason}: {message}", self.program).into());
                }
            } else if printing.is_none() {
                progress.finish();
                printing = Some(tokio::spawn(print_log(client.clone())));
            }
            if let Some(terminated) = state.terminated {
                if let Some(printing) = printing {
                    printing.await??;
                }
                if let Some(message) = terminated.message.filter(|_| terminated.exit_code != 0) {
                    eprintln!(
                        "coracle: {}: {}: {message}",
                        self.program,
                        terminated.reason.unwrap_or_default()
                    );
                }
                // An exit code is a byte to a shell.
                return Ok(u8::try_from(terminated.exit_code & 0xff).unwrap_or(1));
            }
        }
        Err("the cluster stopped before the program ended".into())
    }

    fn pod(&self, image: &str, with_config: bool) -> Pod {
        let env = self.env.iter().map(|(name, value)| EnvVar {
            name: name.clone(),
            // A dollar sign is one here: nothing is expanded.
            value: Some(value.replace('$', "$$")),
            ..EnvVar::default()
        });
        let mount =
            VolumeMount { name: NAME.into(), mount_path: CONFIG_PATH.into(), ..VolumeMount::default() };
        let source = ConfigMapVolumeSource { name: NAME.into(), ..ConfigMapVolumeSource::default() };
        let volume = Volume { name: NAME.into(), config_map: Some(source), ..Volume::default() };
        Pod {
            metadata: named(),
            spec: Some(PodSpec {
                restart_policy: Some("Never".into()),
                containers: vec![Container {
                    name: NAME.into(),
                    image: Some(image.to_owned()),
                    args: Some(self.args.iter().map(|arg| arg.replace('$', "$$")).collect()),
                    env: Some(env.collect()),
                    volume_mounts: with_config.then(|| vec![mount]),
                    ..Container::default()
                }],
                volumes: with_config.then(|| vec![volume]),
                ..PodSpec::default()
            }),
            status: None,
        }
    }
}

fn named() -> ObjectMeta {
    ObjectMeta { name: Some(NAME.into()), namespace: Some("default".into()), ..ObjectMeta::default() }
}

/// A name that ends in `.wasm` or begins as a path is a file; a typo in one should say so.
fn is_file(program: &str) -> bool {
    Path::new(program).extension().is_some_and(|extension| extension == "wasm")
        || program.starts_with(['.', '/'])
        || Path::new(program).is_file()
}

/// The files of a directory as a ConfigMap, as `kubectl create configmap --from-file=DIR` makes it.
fn config_map(directory: &Path) -> Result<ConfigMap, Failure> {
    let failed = |error: std::io::Error| {
        format!("cannot read the --config directory {}: {error}", directory.display())
    };
    let mut data = BTreeMap::new();
    let mut binary_data = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(key) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        if !path.is_file() {
            continue;
        }
        match String::from_utf8(read_file(&path)?) {
            Ok(text) => drop(data.insert(key, text)),
            Err(error) => drop(binary_data.insert(key, ByteString(error.into_bytes()))),
        }
    }
    Ok(ConfigMap {
        metadata: named(),
        data: Some(data),
        binary_data: Some(binary_data),
        ..ConfigMap::default()
    })
}

fn container_status(pod: &Arc<Pod>) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

async fn print_log(client: Client) -> Result<(), Failure> {
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut log = client.logs("default", NAME, options).await?;
    let mut stdout = std::io::stdout();
    while let Some(piece) = log.next().await {
        stdout.write_all(&piece)?;
        stdout.flush()?;
    }
    Ok(())
}
