//! `start`: how soon a pod runs, by what there is of its image's code.
//!
//! From the creation of a pod to the moment at which a watch shows it Running, one pod after the other:
//! - *cold*: nobody has compiled the image yet;
//! - *from disk*: the code is in the cache of a cluster that was started anew;
//! - *warm*: a pod of the same image has run in this process.
//!
//! The images differ in a section that nobody reads, so that each is compiled for itself.

use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pods::wait_for;
use super::{Failure, Options, Report, stage};
use crate::client::{DeleteOptions, Select};
use crate::cluster::{Cluster, Config};
use crate::guests;

/// The program whose start is measured; that it is for WASI 0.1 adds its conversion to what is compiled.
const IMAGE: &str = "coracle.dev/worker:v1";
/// Images that are compiled, and so samples of a cold start.
const IMAGES_MAX: u32 = 50;

pub(super) fn run(options: &Options) -> Result<Report, Failure> {
    if options.simulated {
        return Err("start measures code that is compiled and run; leave out --simulated".into());
    }
    stage::block_on(measure(options))
}

async fn measure(options: &Options) -> Result<Report, Failure> {
    let images = options.count.clamp(1, IMAGES_MAX);
    let mut report = stage::report("start", options);
    report.condition("images", images.to_string());
    let scratch = stage::Scratch::new();
    let data_dir = scratch.0.join("data");
    let config = || {
        let images = (0..images).map(|number| (image(number), variant(number))).collect();
        let config = Config { images, ..stage::config(options) };
        // Compiled code is kept on disk either way.
        if options.durable {
            Config { data_dir: Some(data_dir.clone()), ..config }
        } else {
            Config { image_dir: Some(data_dir.clone()), ..config }
        }
    };
    let (mut cold, mut warm) = stage::on(config(), async |cluster| {
        let mut cold = Vec::new();
        for number in 0..images {
            cold.push(start(cluster, &format!("cold-{number}"), &image(number)).await?);
        }
        let mut warm = Vec::new();
        for number in 0..options.count {
            warm.push(start(cluster, &format!("warm-{number}"), &image(number % images)).await?);
        }
        Ok((cold, warm))
    })
    .await?;
    let mut from_disk = stage::on(config(), async |cluster| {
        let mut from_disk = Vec::new();
        for number in 0..images {
            from_disk.push(start(cluster, &format!("disk-{number}"), &image(number)).await?);
        }
        Ok(from_disk)
    })
    .await?;
    report.percentiles("cold, create to Running", &mut cold);
    report.percentiles("from disk, create to Running", &mut from_disk);
    report.percentiles("warm, create to Running", &mut warm);
    Ok(report)
}

fn image(number: u32) -> String {
    format!("bench.coracle.dev/start-{number}:v1")
}

/// The program with a custom section that says `number`.
fn variant(number: u32) -> Bytes {
    let (_, program) = guests::builtin().iter().find(|(name, _)| *name == IMAGE).expect("it is built in");
    let mut wasm = program.to_vec();
    // Id 0, the size of what follows, the length of the name, the name; all sizes fit in one byte.
    let content = number.to_le_bytes();
    let name = b"bench";
    let size = 1 + name.len() + content.len();
    wasm.extend([
        0,
        u8::try_from(size).expect("it is small"),
        u8::try_from(name.len()).expect("it is small"),
    ]);
    wasm.extend(name);
    wasm.extend(content);
    wasm.into()
}

async fn start(cluster: &Cluster, name: &str, image: &str) -> Result<Duration, Failure> {
    let (client, clock) = (cluster.client(), cluster.clock());
    let mut watcher = client.watch::<Pod>(Select { namespace: Some("default".into()), ..Select::default() });
    // The watch has begun once it has told what there is.
    watcher.next_batch().await.ok_or("the watch ended")?;
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "main".into(),
                image: Some(image.to_owned()),
                args: Some(vec!["3600".to_owned()]),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: None,
    };
    let before = clock.monotonic();
    client.create(pod).await?;
    wait_for(&mut watcher, name, "Running", 1).await?;
    let took = clock.monotonic().saturating_sub(before);
    let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete::<Pod>("default", name, at_once).await?;
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_starting_is_measured() {
        let options = Options { count: 2, nodes: 1, durable: false, simulated: false };
        let report = run(&options).unwrap();
        assert_eq!(report.figures.len(), 6, "{report}");
        assert!(report.figures.iter().all(|figure| figure.value > 0.0), "{report}");
        assert_ne!(variant(1), variant(2));
    }
}
