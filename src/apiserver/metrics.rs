//! What the server counts, in the text format of Prometheus; names are apiserver's where it has one.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of the request durations, in seconds: apiserver's, thinned out.
const DURATION_BOUNDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// What a request was about. No label takes a value that clients choose freely.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    /// In capitals, as apiserver has it: `GET`, `LIST`, `WATCH`.
    pub verb: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub resource: &'static str,
    pub subresource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    major: &'static str,
    minor: &'static str,
    git_version: &'static str,
}

/// The counters of one server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<CodeLabels, Counter>,
    durations: Family<Labels, Histogram>,
    streams: Family<Labels, Gauge>,
    connections: Gauge,
    revision: Gauge<u64, AtomicU64>,
    build: Family<BuildLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BOUNDS)),
            streams: Family::default(),
            connections: Gauge::default(),
            revision: Gauge::default(),
            build: Family::default(),
        }
    }
}

impl Metrics {
    /// Counts a request that was answered with `code` after `duration` (of a stream: to its start).
    pub fn answered(&self, labels: &Labels, code: u16, duration: Duration) {
        let Labels { verb, group, version, resource, subresource } = labels.clone();
        let with_code = CodeLabels { verb, group, version, resource, subresource, code };
        self.requests.get_or_create(&with_code).inc();
        self.durations.get_or_create(labels).observe(duration.as_secs_f64());
    }

    /// Counts a watch or a followed log until the guard is dropped.
    #[must_use]
    pub fn stream(&self, labels: &Labels) -> Guard {
        Guard::new(self.streams.get_or_create(labels).clone())
    }

    /// Counts a connection until the guard is dropped.
    #[must_use]
    pub fn connection(&self) -> Guard {
        Guard::new(self.connections.clone())
    }

    /// Everything counted, and the newest revision of the store.
    #[must_use]
    pub fn text(&self, revision: u64) -> String {
        let mut registry = Registry::default();
        registry.register("apiserver_request", "Requests by verb, resource and code", self.requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to the answer, of a stream to its start",
            self.durations.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Watches and followed logs under way",
            self.streams.clone(),
        );
        registry.register("coracle_connections", "Open connections", self.connections.clone());
        self.revision.set(revision);
        registry.register("coracle_store_revision", "The newest revision", self.revision.clone());
        let build = BuildLabels {
            major: super::version::MAJOR,
            minor: super::version::MINOR,
            git_version: super::version::GIT_VERSION,
        };
        self.build.get_or_create(&build).set(1);
        registry.register("kubernetes_build_info", "The version, as labels", self.build.clone());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .expect("writing into a String does not fail");
        text
    }
}

/// One of something that is under way.
#[derive(Debug)]
pub struct Guard(Gauge);

impl Guard {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_code_and_streams_while_they_last() {
        let metrics = Metrics::default();
        let labels = Labels { verb: "WATCH", group: "", version: "v1", resource: "pods", subresource: "" };
        metrics.answered(&labels, 200, Duration::from_millis(3));
        let guard = metrics.stream(&labels);
        let counted = r#"apiserver_request_total{verb="WATCH",group="",version="v1",resource="pods",subresource="",code="200"} 1"#;
        let running = r#"apiserver_longrunning_requests{verb="WATCH",group="",version="v1",resource="pods",subresource=""}"#;
        let text = metrics.text(12);
        for line in [counted, &format!("{running} 1"), "coracle_store_revision 12", "# EOF"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        drop(guard);
        assert!(metrics.text(12).contains(&format!("{running} 0")));
    }
}
