//! `coracle image`: the local image store, an OCI layout under the data directory, and registries.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clap::Subcommand;
use serde_json::json;

use super::progress::Progress;
use super::registry::RegistryArgs;
use super::{DataDir, Failure, one_line, read_file};
use crate::clock::Clock;
use crate::guests;
use crate::kubelet::image::keyring::Keyring;
use crate::kubelet::image::name;
use crate::kubelet::image::pull::{Puller, Told};
use crate::kubelet::image::registry::Registries;
use crate::kubelet::image::registry::push::Upload;
use crate::kubelet::image::{ImageInfo, ImageStore};
use crate::random::Random;
use crate::runtime::wasm::{Options, WasmRuntime};
use crate::runtime::{self, Runtime};

/// Keep images for pods: import, pull, push, look at, compile, list and remove them
///
/// Works before the first `coracle up` and while a cluster runs; a pod that waits for an image starts
/// when it is imported or pulled.
#[derive(clap::Args)]
pub(super) struct Image {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Subcommand)]
enum ImageCommand {
    /// Store a WebAssembly file, or the images of an OCI layout (a directory or a tar file)
    #[command(after_help = "Examples:\n  coracle image import hello.wasm --name hello:v1\n  \
        kubectl run hello --image=hello:v1 --restart=Never\n  coracle image import images.tar")]
    Import {
        #[arg(value_name = "FILE.wasm|LAYOUT")]
        path: PathBuf,
        /// The name that pods use; without a tag it is `latest`. A layout may bring its own names
        #[arg(long, value_name = "NAME[:TAG]")]
        name: Option<String>,
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// Fetch an image from its registry
    ///
    /// The credentials are those of the cluster (--registry-config), or Docker's of this user.
    Pull {
        #[arg(value_name = "NAME[:TAG]")]
        name: String,
        #[command(flatten)]
        registries: RegistryArgs,
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// Send an image to the registry that its name says, or that of another name
    #[command(after_help = "Examples:\n  coracle image push ghcr.io/me/hello:v1\n  \
        coracle image push hello:v1 localhost:5000/hello:v1")]
    Push {
        #[arg(value_name = "NAME[:TAG]")]
        name: String,
        /// The name at the registry, if it is another
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        #[command(flatten)]
        registries: RegistryArgs,
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// Show what an image is made of, and what its program wants of the host
    Inspect {
        #[arg(value_name = "NAME[:TAG]")]
        name: String,
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data_dir: DataDir,
    },
    Compile(Compile),
    /// List the images that pods can use
    List {
        /// For programs
        #[arg(long)]
        json: bool,
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

/// Compile images ahead of time, so that the first pod starts as fast as every other
///
/// The code goes into the cache of the data directory, authenticated by a key of this machine, where every pod of
/// the same program finds it. It is no file to carry elsewhere: code that another machine has compiled would
/// have to be trusted with everything that this process may do.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  coracle compile hello.wasm\n  coracle compile ghcr.io/me/hello:v1")]
pub(super) struct Compile {
    #[arg(value_name = "NAME[:TAG]|FILE.wasm", required = true)]
    names: Vec<String>,
    /// Not offered; asked for, it is explained
    #[arg(short, long, value_name = "FILE", hide = true)]
    output: Option<PathBuf>,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Compile {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match &self.output {
            None => compile(&self.names, &self.data_dir),
            Some(path) => Err(format!(
                "cannot write compiled code to {}: it is kept in the cache of the data directory, where pods find \
                 it; leave out --output, and name another directory with --data-dir",
                path.display()
            )
            .into()),
        }
    }
}

impl Image {
    pub(super) fn run(&self) -> Result<(), Failure> {
        match &self.command {
            ImageCommand::Import { path, name, data_dir } => import(path, name.as_deref(), data_dir),
            ImageCommand::Pull { name, registries, data_dir } => pull(name, registries, data_dir),
            ImageCommand::Push { name, target, registries, data_dir } => {
                push(name, target.as_deref().unwrap_or(name), registries, data_dir)
            }
            ImageCommand::Inspect { name, json, data_dir } => inspect(name, *json, data_dir),
            ImageCommand::Compile(compile) => compile.run(),
            ImageCommand::List { json, data_dir } => list(*json, data_dir),
            ImageCommand::Remove { name, data_dir } => open(data_dir)?
                .remove(name)
                .map_err(|error| format!("cannot remove {name}: {}", one_line(&error)).into()),
        }
    }
}

fn open(data_dir: &DataDir) -> Result<ImageStore, Failure> {
    Ok(ImageStore::on_disk(data_dir.path()?.join("images")).with_built_in(guests::builtin()))
}

fn tell(image: &ImageInfo) {
    println!("{} {} ({} bytes)", name::familiar(&image.name), image.digest, image.size);
}

fn import(path: &Path, name: Option<&str>, data_dir: &DataDir) -> Result<(), Failure> {
    let store = open(data_dir)?;
    let is_wasm = path.is_file() && read_beginning(path)? == *b"\0asm";
    let is_layout = path.is_dir()
        || !is_wasm && path.extension().is_some_and(|end| end == "tar" || end == "gz" || end == "tgz");
    if is_layout {
        let images = store.import_layout(path, name);
        let images =
            images.map_err(|error| format!("cannot import {}: {}", path.display(), one_line(&error)))?;
        images.iter().for_each(tell);
        return Ok(());
    }
    let Some(name) = name else {
        let text = format!("cannot import {}: say under which name with --name NAME[:TAG]", path.display());
        return Err(text.into());
    };
    let wasm = Bytes::from(read_file(path)?);
    let image = store
        .import(name, &wasm)
        .map_err(|error| format!("cannot import {} as {name}: {}", path.display(), one_line(&error)))?;
    tell(&image);
    Ok(())
}

fn read_beginning(path: &Path) -> Result<[u8; 4], Failure> {
    use std::io::Read;
    let mut beginning = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut beginning));
    read.map(|_| beginning).map_err(|error| format!("cannot read {}: {error}", path.display()).into())
}

fn registries(arguments: &RegistryArgs, data_dir: &DataDir) -> Result<Arc<Registries>, Failure> {
    let options = arguments.options(Some(&data_dir.path()?), true)?;
    Ok(Arc::new(Registries::new(options, Clock::real())))
}

fn pull(name: &str, arguments: &RegistryArgs, data_dir: &DataDir) -> Result<(), Failure> {
    let full = name::normalize(name)?;
    let store = Arc::new(open(data_dir)?);
    let puller = Puller::new(registries(arguments, data_dir)?, store.clone());
    let progress = Arc::new(Progress::transfer(&format!("pulling {name}")));
    let told: Told = {
        let progress = progress.clone();
        Arc::new(move |bytes, of| progress.at(bytes, of))
    };
    super::runtime()?
        .block_on(puller.pull(&full, Keyring::default(), Some(told)))
        .map_err(|error| format!("cannot pull {name}: {error}"))?;
    progress.finish();
    let images = store.list()?;
    let image = images.iter().find(|image| image.name == full);
    image.map(tell).ok_or_else(|| format!("{name} was removed while it was pulled").into())
}

fn push(name: &str, target: &str, arguments: &RegistryArgs, data_dir: &DataDir) -> Result<(), Failure> {
    let failed = |why: &dyn std::fmt::Display| format!("cannot push {name} to {target}: {why}");
    let store = open(data_dir)?;
    let documents = store.documents(name).map_err(|error| failed(&one_line(&error)))?;
    let full = name::normalize(target)?;
    let mut blobs = Vec::new();
    for (_, digest, _) in &documents.blobs {
        let blob = store.read(digest).map_err(|error| failed(&one_line(&error)))?;
        blobs.push((digest.clone(), blob));
    }
    let upload = Upload { blobs, manifest: documents.manifest, media_type: documents.media_type };
    let progress = Progress::start(&format!("pushing {target}"));
    let registries = registries(arguments, data_dir)?;
    let digest =
        super::runtime()?.block_on(registries.push(&full, upload)).map_err(|error| failed(&error))?;
    progress.finish();
    println!("{} {digest}", name::familiar(&full));
    Ok(())
}

fn list(as_json: bool, data_dir: &DataDir) -> Result<(), Failure> {
    let images = open(data_dir)?.list()?;
    if as_json {
        let images: Vec<_> = images.iter().map(shown).collect();
        println!("{}", serde_json::to_string_pretty(&images)?);
        return Ok(());
    }
    let width = images.iter().map(|image| name::familiar(&image.name).len()).max().unwrap_or(0).max(4);
    println!("{:<width$}  {:<19}  {:>9}  ORIGIN", "NAME", "DIGEST", "BYTES");
    for image in images {
        let digest: String = image.digest.chars().take(19).collect();
        println!("{:<width$}  {digest}  {:>9}  {}", name::familiar(&image.name), image.size, origin(&image));
    }
    Ok(())
}

fn origin(image: &ImageInfo) -> &'static str {
    match (&image.pulled, image.built_in) {
        (Some(_), _) => "pulled",
        (None, true) => "built in",
        (None, false) => "imported",
    }
}

fn shown(image: &ImageInfo) -> serde_json::Value {
    json!({
        "name": image.name,
        "digest": image.digest,
        "bytes": image.size,
        "origin": origin(image),
        "registryDigest": image.pulled,
    })
}

fn inspect(name: &str, as_json: bool, data_dir: &DataDir) -> Result<(), Failure> {
    let store = open(data_dir)?;
    let full = name::normalize(name)?;
    let failed = |why: &dyn std::fmt::Display| format!("cannot inspect {name}: {why}");
    let images = store.list()?;
    let image = images.iter().find(|image| image.name == full);
    let image =
        image.ok_or_else(|| failed(&"it is not in the image store; `coracle image list` shows what is"))?;
    let wasm = store.read(&image.digest).map_err(|error| failed(&one_line(&error)))?;
    let surface = runtime::describe(&wasm).map_err(|error| failed(&error))?;
    // Built-in images have no documents.
    let documents = store.documents(name).ok();
    let config = documents.as_ref().map(|documents| documents.config.clone()).unwrap_or_default();
    let kind = if surface.is_component { "component" } else { "module" };
    if as_json {
        let blobs = documents.iter().flat_map(|documents| &documents.blobs);
        let blobs: Vec<_> = blobs
            .map(
                |(media_type, digest, size)| json!({"mediaType": media_type, "digest": digest, "size": size}),
            )
            .collect();
        let imports: Vec<_> =
            surface.imports.iter().map(|(name, offered)| json!({"name": name, "offered": offered})).collect();
        let mut all = shown(image);
        let more = json!({
            "kind": kind,
            "config": &*config,
            "blobs": blobs,
            "imports": imports,
            "exports": surface.exports,
        });
        if let (Some(all), serde_json::Value::Object(more)) = (all.as_object_mut(), more) {
            all.extend(more);
        }
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    println!("name        {}", image.name);
    println!("origin      {}", origin(image));
    println!("program     {} ({} bytes, a {kind})", image.digest, image.size);
    if let Some(digest) = &image.pulled {
        println!("registry    {digest}");
    }
    for (media_type, digest, size) in documents.iter().flat_map(|documents| &documents.blobs) {
        println!("blob        {digest} ({size} bytes, {media_type})");
    }
    let command: Vec<&str> = config.entrypoint.iter().chain(&config.cmd).map(String::as_str).collect();
    if !command.is_empty() {
        println!("command     {}", command.join(" "));
    }
    for (name, value) in &config.env {
        println!("env         {name}={value}");
    }
    for (name, offered) in &surface.imports {
        println!("imports     {name}{}", if *offered { "" } else { "   (this host lacks it)" });
    }
    for name in &surface.exports {
        println!("exports     {name}");
    }
    Ok(())
}

fn compile(names: &[String], data_dir: &DataDir) -> Result<(), Failure> {
    let store = open(data_dir)?;
    let data_dir = data_dir.path()?;
    super::runtime()?.block_on(async {
        let options = Options {
            clock: Clock::real(),
            random: Random::from_os(),
            guests: tokio::runtime::Handle::current(),
            computing: None,
            cache_dir: Some(data_dir.join("compiled")),
            roots: Vec::new(),
        };
        let runtime = WasmRuntime::new(options)?;
        for name in names {
            let wasm = if Path::new(name).is_file() {
                Bytes::from(read_file(Path::new(name))?)
            } else {
                let digest = store.resolve(&name::normalize(name)?)?;
                let digest = digest.ok_or_else(|| {
                    format!("cannot compile {name}: it is neither a file nor in the image store; `coracle image pull` fetches it")
                })?;
                store.read(&digest)?
            };
            let progress = Progress::start(&format!("compiling {name}"));
            let compiled = runtime.prepare(wasm).await;
            progress.finish();
            let image = compiled.map_err(|error| format!("cannot compile {name}: {error}"))?;
            println!("{name} {}", image.digest());
        }
        Ok(())
    })
}
