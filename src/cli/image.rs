//! `coracle image`: the local image store, an OCI layout under the data directory.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Subcommand;

use super::{DataDir, Failure, read_file};
use crate::guests;
use crate::kubelet::image::ImageStore;
use crate::kubelet::image::name;

/// Keep images for pods: import WebAssembly files, list and remove them
///
/// Works before the first `coracle up` and while a cluster runs; a pod that waits for an image starts
/// when it is imported.
#[derive(clap::Args)]
pub(super) struct Image {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Subcommand)]
enum ImageCommand {
    /// Store a WebAssembly file under a name
    #[command(after_help = "Example:\n  coracle image import hello.wasm --name hello:v1\n  \
        kubectl run hello --image=hello:v1 --restart=Never")]
    Import {
        #[arg(value_name = "FILE.wasm")]
        file: PathBuf,
        /// The name that pods use; without a tag it is `latest`
        #[arg(long, value_name = "NAME[:TAG]")]
        name: String,
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// List the images that pods can use
    List {
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// Remove an image; pods that run it go on
    Remove {
        #[arg(value_name = "NAME[:TAG]")]
        name: String,
        #[command(flatten)]
        data_dir: DataDir,
    },
}

impl Image {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match &self.command {
            ImageCommand::Import { file, name, data_dir } => {
                let wasm = Bytes::from(read_file(file)?);
                let image = open(data_dir)?.import(name, &wasm).map_err(|error| {
                    format!("cannot import {} as {name}: {}", file.display(), super::one_line(&error))
                })?;
                println!("{} {} ({} bytes)", name::familiar(&image.name), image.digest, image.size);
            }
            ImageCommand::List { data_dir } => {
                let images = open(data_dir)?.list()?;
                let width =
                    images.iter().map(|image| name::familiar(&image.name).len()).max().unwrap_or(0).max(4);
                println!("{:<width$}  {:<19}  {:>9}  ORIGIN", "NAME", "DIGEST", "BYTES");
                for image in images {
                    let origin = if image.built_in { "built in" } else { "imported" };
                    let digest: String = image.digest.chars().take(19).collect();
                    println!(
                        "{:<width$}  {digest}  {:>9}  {origin}",
                        name::familiar(&image.name),
                        image.size
                    );
                }
            }
            ImageCommand::Remove { name, data_dir } => {
                open(data_dir)?
                    .remove(name)
                    .map_err(|error| format!("cannot remove {name}: {}", super::one_line(&error)))?;
            }
        }
        Ok(())
    }
}

fn open(data_dir: &DataDir) -> Result<ImageStore, Failure> {
    Ok(ImageStore::on_disk(data_dir.path()?.join("images")).with_built_in(guests::builtin()))
}
