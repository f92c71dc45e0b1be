//! `coracle key`: the key that Secrets are encrypted with.

use clap::Subcommand;

use super::{DataDir, Failure, KeyFile};
use crate::store;

/// Show and change the key that Secrets are encrypted with
///
/// Secrets are on the disk only encrypted. The first `coracle up` makes the key and keeps it beside the
/// data directory, readable by its owner alone. Keep copies of the key file apart from those of the data
/// directory: either is worth nothing without the other.
#[derive(clap::Args)]
pub(super) struct Key {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Show where the key file is and which keys are in it, by their names
    Show {
        #[command(flatten)]
        data_dir: DataDir,
        #[command(flatten)]
        key_file: KeyFile,
    },
    /// Make a new key for a stopped cluster, and drop the old one
    ///
    /// A copy of the data directory that was made before needs a copy of the key file that was made
    /// before. Use a key file for one data directory only.
    #[command(after_help = "Example:\n  coracle key rotate    the cluster of the user's data directory")]
    Rotate {
        #[command(flatten)]
        data_dir: DataDir,
        #[command(flatten)]
        key_file: KeyFile,
    },
}

impl Key {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match &self.command {
            KeyCommand::Show { data_dir, key_file } => {
                let data_dir = data_dir.path()?;
                let keys = store::keys(&store_of(&data_dir), &key_file.path(&data_dir)?)?;
                println!("key file {}", keys.key_file.display());
                if keys.held.is_empty() {
                    println!("not made yet: the first `coracle up` does");
                }
                for key in keys.held {
                    let how = match keys.used {
                        Some(used) if used == key => "in use",
                        Some(_) => "not in use: left of a rotation that was interrupted, dropped by the next",
                        None => "not in use yet",
                    };
                    println!("key {key} {how}");
                }
            }
            KeyCommand::Rotate { data_dir, key_file } => {
                let data_dir = data_dir.path()?;
                let rotation = store::rotate(&store_of(&data_dir), &key_file.path(&data_dir)?)
                    .map_err(|error| format!("cannot rotate the key: {error}"))?;
                println!(
                    "key {} replaces {} in {} (data keys wrapped anew: {})",
                    rotation.new,
                    rotation.old,
                    rotation.key_file.display(),
                    rotation.data_keys
                );
            }
        }
        Ok(())
    }
}

fn store_of(data_dir: &std::path::Path) -> std::path::PathBuf {
    data_dir.join(crate::cluster::STORE)
}
