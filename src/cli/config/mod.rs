//! `coracle config`: the past of ConfigMaps and Secrets, and the way back.

mod content;
mod diff;
mod history;
mod pick;
mod undo;

#[cfg(test)]
mod tests;

use std::str::FromStr;

use clap::{Subcommand, ValueEnum};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::Failure;
use super::access::Cluster;
use crate::client::remote::{Remote, RemoteError};
use crate::clock::Clock;
use content::Configuration;
use pick::Kept;
use undo::Undo;

/// See how a ConfigMap or Secret changed, and go back
///
/// The store keeps what was written, up to `coracle up --history-bytes`. Each version has the revision
/// at which it was written, its `resourceVersion`, and a hash of its content.
#[derive(clap::Args)]
pub(super) struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// List the versions, oldest first
    ///
    /// CHANGE says what happened, KEYS to which keys: `+added ~changed -removed`. `Metadata` is a write
    /// that left the content as it was. The current version is marked with `*`.
    #[command(after_help = "Examples:\n  coracle config history configmap/app\n  \
        coracle config history secret/db -n prod\n  \
        coracle config history cm/app -o json         whole objects; Secrets too")]
    History {
        #[command(flatten)]
        of: Of,
        /// The server's whole answer instead of a table
        #[arg(short, long, value_name = "FORMAT")]
        output: Option<Output>,
    },
    /// Compare two versions, key by key
    ///
    /// Without revisions: the current content with the one before it. Exits with 0 if the contents are
    /// equal, 1 if they differ, and more if they could not be compared.
    #[command(after_help = "Examples:\n  coracle config diff configmap/app\n  \
        coracle config diff configmap/app --from 41             since revision 41\n  \
        coracle config diff secret/db --from 41 --to 57 --show-secrets")]
    Diff {
        #[command(flatten)]
        of: Of,
        /// The older version [default: the newest before --to whose content differs]
        #[arg(long, value_name = "REVISION")]
        from: Option<u64>,
        /// The newer version [default: the current one]
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
        /// Show the values of a Secret instead of ***
        #[arg(long)]
        show_secrets: bool,
    },
    /// Restore an earlier content
    ///
    /// Without a revision: the newest content that differs from the current one, so that a second undo
    /// takes back the first. The content alone is restored; labels, annotations and the rest stay as they
    /// are. A ConfigMap that was deleted is made again, without owners and finalizers; a deleted Secret
    /// cannot be, since its content is destroyed with it. An undo is a write like any other: it has a
    /// revision of its own, and pods see it as they see an edit.
    #[command(after_help = "Examples:\n  coracle config undo configmap/app\n  \
        coracle config undo secret/db --to-revision 41\n  \
        coracle config undo configmap/app --dry-run             only show what would change")]
    Undo {
        #[command(flatten)]
        of: Of,
        /// The version whose content is restored; `coracle config history` lists them
        #[arg(long, value_name = "REVISION")]
        to_revision: Option<u64>,
        /// Have the server check it, and show what would change
        #[arg(long)]
        dry_run: bool,
    },
}

/// What a command is about, and where it is.
#[derive(clap::Args)]
struct Of {
    /// configmap/NAME (or cm/NAME) or secret/NAME
    #[arg(value_name = "KIND/NAME")]
    target: Target,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ConfigMap,
    Secret,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    kind: Kind,
    name: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "configmap/NAME or secret/NAME";
        let (kind, name) = text.split_once('/').ok_or_else(|| format!("it must be {FORM}"))?;
        let kind = match kind.to_ascii_lowercase().as_str() {
            "configmap" | "configmaps" | "cm" => Kind::ConfigMap,
            "secret" | "secrets" => Kind::Secret,
            _ => return Err(format!("{kind:?} has no history that could be shown; it must be {FORM}")),
        };
        if name.is_empty() || name.contains(['/', '%']) {
            return Err(format!("{name:?} is not a name; it must be {FORM}"));
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

impl Config {
    /// The number is the process's exit code.
    pub(super) fn run(&self) -> Result<u8, Failure> {
        let done = super::runtime()?.block_on(async {
            match &self.command {
                ConfigCommand::History { of, .. }
                | ConfigCommand::Diff { of, .. }
                | ConfigCommand::Undo { of, .. } => match of.target.kind {
                    Kind::ConfigMap => self.act::<ConfigMap>(of).await,
                    Kind::Secret => self.act::<Secret>(of).await,
                },
            }
        });
        match done {
            // As diff and kubectl have it: 1 means different.
            Err(error) if matches!(self.command, ConfigCommand::Diff { .. }) => {
                super::tell(&*error);
                Ok(2)
            }
            done => done,
        }
    }

    async fn act<K: Configuration>(&self, of: &Of) -> Result<u8, Failure> {
        let door = Door::open(of).await?;
        let json = door.history_json::<K>().await?;
        if let ConfigCommand::History { output: Some(output), .. } = &self.command {
            print!("{}", written(&json, *output)?);
            return Ok(0);
        }
        let target = door.target::<K>();
        let kept = Kept { history: door.remote.history::<K>(&json)?, target };
        match &self.command {
            ConfigCommand::History { .. } => {
                print!("{}", history::render(&kept.history, Clock::real().now()));
                if kept.history.truncated {
                    eprintln!("older history was dropped: it begins after revision {}", kept.history.since);
                }
                Ok(0)
            }
            ConfigCommand::Diff { from, to, show_secrets, .. } => {
                let to = to.map_or_else(|| kept.current(), |to| kept.at(to))?;
                let from = from.map_or_else(|| kept.before(to), |from| kept.at(from))?;
                let text = differences(&kept, from, to, *show_secrets)?;
                print!("{text}");
                Ok(u8::from(!text.is_empty()))
            }
            ConfigCommand::Undo { to_revision, dry_run, .. } => {
                door.undo(&kept, *to_revision, *dry_run).await.map(|()| 0)
            }
        }
    }
}

fn differences<K: Configuration>(
    kept: &Kept<K>,
    from: &crate::client::remote::Version<K>,
    to: &crate::client::remote::Version<K>,
    show_secrets: bool,
) -> Result<String, String> {
    let (from, to) = (diff::Side::of(kept, from)?, diff::Side::of(kept, to)?);
    Ok(diff::render(&kept.target, &from, &to, show_secrets))
}

/// The server's JSON, indented, or as YAML.
fn written(json: &str, output: Output) -> Result<String, Failure> {
    let value: serde_json::Value = serde_json::from_str(json)?;
    Ok(match output {
        Output::Json => serde_json::to_string_pretty(&value)? + "\n",
        Output::Yaml => serde_saphyr::to_string(&value)?,
    })
}

/// A cluster, and one name in it.
struct Door<'a> {
    remote: Remote,
    namespace: String,
    name: &'a str,
}

impl<'a> Door<'a> {
    async fn open(of: &'a Of) -> Result<Self, Failure> {
        let remote = Remote::connect(&of.cluster.access()?).await?;
        let namespace = of.cluster.namespace.clone().unwrap_or_else(|| remote.namespace().to_owned());
        Ok(Self { remote, namespace, name: &of.target.name })
    }

    fn target<K: Configuration>(&self) -> String {
        format!("{}/{}", K::WORD, self.name)
    }

    async fn history_json<K: Configuration>(&self) -> Result<String, Failure> {
        let result = self.remote.history_json::<K>(&self.namespace, self.name).await;
        result.map_err(|error| {
            let (target, namespace) = (self.target::<K>(), &self.namespace);
            match error.code() {
                // Kubernetes' own answer about a subresource that it does not have.
                Some(404) if error.to_string().contains("the server could not find") => {
                    format!("{} keeps no history: it is not Coracle, or an older one", self.remote.url())
                        .into()
                }
                Some(404) => format!(
                    "{target} has no history in the namespace {namespace}: it was never there, \
                     or so long ago that nothing of it is kept"
                )
                .into(),
                Some(_) | None => attempted(&format!("read the history of {target}"), error),
            }
        })
    }

    async fn undo<K: Configuration>(
        &self,
        kept: &Kept<K>,
        to_revision: Option<u64>,
        dry_run: bool,
    ) -> Result<(), Failure> {
        let (target, version) = (&kept.target, undo::target(kept, to_revision)?);
        let revision = version.revision;
        let written = match undo::decide(kept, version)? {
            Undo::Nothing => {
                println!("{target} unchanged: its content is that of revision {revision}");
                return Ok(());
            }
            Undo::Replace(object) => self.remote.replace(&*object, dry_run).await,
            Undo::Create(object) => self.remote.create(&*object, dry_run).await,
        };
        let written = written.map_err(|error| match error.code() {
            Some(409) => {
                format!("{target} was changed by somebody else at the same time; look at it and try again")
                    .into()
            }
            Some(_) | None => attempted(&format!("restore {target} to revision {revision}"), error),
        })?;
        if dry_run {
            print!("{}", differences(kept, kept.current()?, version, false)?);
            println!("{target} would be restored to revision {revision} (dry run)");
        } else {
            let new = written.metadata().resource_version.as_deref().unwrap_or_default();
            println!("{target} restored to revision {revision} (new revision {new})");
        }
        Ok(())
    }
}

/// An error with what was attempted before it.
fn attempted(what: &str, error: RemoteError) -> Failure {
    format!("cannot {what}: {}", super::one_line(&error)).into()
}
