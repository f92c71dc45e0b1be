//! `coracle queue`: the work queues of Jobs.

use std::io::Read as _;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;
use k8s_openapi::api::batch::v1::Job;
use serde::Deserialize;
use serde_json::json;

use super::access::Cluster;
use super::{Failure, one_line};
use crate::client::remote::{Remote, RemoteError};
use crate::kind::Subresource;

/// See and fill the work queue of a Job
///
/// The pods of a Job take items from its queue, through the interface `coracle:queue`, until it is empty
/// and all are done. To fill it before they begin, make the Job suspended, or annotate it with
/// `coracle.dev/queue-open: "true"` until all is in it.
#[derive(clap::Args)]
pub(super) struct Queue {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Subcommand)]
enum QueueCommand {
    /// Add items
    #[command(after_help = "Examples:\n  coracle queue add job/convert a.png b.png\n  \
        ls *.png | coracle queue add job/convert --lines -")]
    Add {
        #[command(flatten)]
        of: Of,
        /// Texts, each an item
        #[arg(value_name = "ITEM", required_unless_present = "lines")]
        items: Vec<String>,
        /// Add every line of a file; - is standard input
        #[arg(long, value_name = "FILE")]
        lines: Option<PathBuf>,
    },
    /// List the first items
    Ls {
        #[command(flatten)]
        of: Of,
    },
    /// Count the items
    Stats {
        #[command(flatten)]
        of: Of,
    },
}

#[derive(clap::Args)]
struct Of {
    /// job/NAME
    #[arg(value_name = "job/NAME")]
    target: Target,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target(String);

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').unwrap_or(("job", text));
        if !matches!(kind, "job" | "jobs" | "jobs.batch") {
            return Err(format!("{kind:?} has no queue; it must be job/NAME"));
        }
        if name.is_empty() || name.contains(['/', '%']) {
            return Err(format!("{name:?} is not a name; it must be job/NAME"));
        }
        Ok(Self(name.to_owned()))
    }
}

/// What the server says of a queue.
#[derive(Deserialize)]
struct WorkQueue {
    waiting: u64,
    claimed: u64,
    failed: u64,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    id: String,
    state: String,
    attempts: i64,
    #[serde(default)]
    worker: String,
    #[serde(default)]
    failed: String,
}

impl Queue {
    pub(super) fn run(&self) -> Result<(), Failure> {
        super::runtime()?.block_on(async {
            match &self.command {
                QueueCommand::Add { of, items, lines } => {
                    let mut items = items.clone();
                    if let Some(path) = lines {
                        items.extend(read_lines(path)?);
                    }
                    let door = Door::open(of).await?;
                    let ask = json!({ "add": { "items": items } });
                    let (namespace, name) = (&door.namespace, door.name);
                    let answer =
                        door.remote.post::<Job>(namespace, name, Subresource::Queue, false, &ask).await;
                    let answer = answer.map_err(|error| door.refused("add to", &error))?;
                    println!("{} added to the queue of job/{}", answer["added"], door.name);
                    Ok(())
                }
                QueueCommand::Ls { of } => {
                    let door = Door::open(of).await?;
                    print!("{}", render(&door.read().await?));
                    Ok(())
                }
                QueueCommand::Stats { of } => {
                    let WorkQueue { waiting, claimed, failed, .. } = Door::open(of).await?.read().await?;
                    println!("{waiting} waiting, {claimed} claimed, {failed} failed");
                    Ok(())
                }
            }
        })
    }
}

fn read_lines(path: &std::path::Path) -> Result<Vec<String>, Failure> {
    let bytes = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        let read = std::io::stdin().read_to_end(&mut bytes);
        read.map_err(|error| format!("cannot read standard input: {error}"))?;
        bytes
    } else {
        super::read_file(path)?
    };
    let text = String::from_utf8(bytes).map_err(|_| {
        format!(
            "{} is not UTF-8; items that are not text are added through the API, as base64",
            path.display()
        )
    })?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

fn render(queue: &WorkQueue) -> String {
    let head = ["ITEM", "STATE", "ATTEMPTS", "WORKER", "WHY"].map(str::to_owned);
    let rows = queue.items.iter().map(|item| {
        [
            item.id.clone(),
            item.state.clone(),
            item.attempts.to_string(),
            item.worker.clone(),
            item.failed.clone(),
        ]
    });
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    let all = queue.waiting + queue.claimed + queue.failed;
    let shown = queue.items.len();
    if u64::try_from(shown).is_ok_and(|shown| shown < all) {
        text.push_str(&format!("the first {shown} of {all}\n"));
    }
    text
}

/// A cluster, and one Job in it.
struct Door<'a> {
    remote: Remote,
    namespace: String,
    name: &'a str,
}

impl<'a> Door<'a> {
    async fn open(of: &'a Of) -> Result<Self, Failure> {
        let remote = Remote::connect(&of.cluster.access()?).await?;
        let namespace = of.cluster.namespace.clone().unwrap_or_else(|| remote.namespace().to_owned());
        Ok(Self { remote, namespace, name: &of.target.0 })
    }

    async fn read(&self) -> Result<WorkQueue, Failure> {
        let json = self.remote.get::<Job>(&self.namespace, self.name, Subresource::Queue).await;
        let json = json.map_err(|error| self.refused("read", &error))?;
        serde_json::from_str(&json)
            .map_err(|error| format!("the answer of {} makes no sense: {error}", self.remote.url()).into())
    }

    fn refused(&self, what: &str, error: &RemoteError) -> Failure {
        let why = one_line(error);
        // Kubernetes' own answer about a subresource that it does not have.
        if error.code() == Some(404) && why.contains("the server could not find") {
            return format!("{} has no queues: it is not Coracle, or an older one", self.remote.url()).into();
        }
        format!("cannot {what} the queue of job/{} in the namespace {}: {why}", self.name, self.namespace)
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_shown_in_columns() {
        let queue: WorkQueue = serde_json::from_value(json!({
            "waiting": 1, "claimed": 1, "failed": 1, "items": [
                {"id": "j.1", "state": "Claimed", "attempts": 2, "worker": "j-abc"},
                {"id": "j.2", "state": "Failed", "attempts": 6, "failed": "no such file"}]}))
        .unwrap();
        assert_eq!(
            render(&queue),
            "ITEM   STATE     ATTEMPTS   WORKER   WHY\n\
             j.1    Claimed   2          j-abc\n\
             j.2    Failed    6                   no such file\n\
             the first 2 of 3\n"
        );
    }

    #[test]
    fn only_jobs_have_queues() {
        assert_eq!("job/a".parse(), Ok(Target("a".to_owned())));
        assert!("pod/a".parse::<Target>().unwrap_err().contains("must be job/NAME"));
        assert!("job/".parse::<Target>().unwrap_err().contains("is not a name"));
    }
}
