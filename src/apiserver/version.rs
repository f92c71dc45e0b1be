//! Which Kubernetes this is, for `/version` (BEHAVIOURS 7.3).

use serde_json::json;

/// Digits only: clients compute with them.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "32";
/// The behaviour that is aimed at; what stands behind `+` is no part of the version.
pub const GIT_VERSION: &str = concat!("v1.32.0+coracle.", env!("CARGO_PKG_VERSION"));

/// The document at `/version`. What a build would tell of itself but does not know is left empty, as
/// upstream does in a build without stamps.
#[must_use]
pub fn document() -> String {
    let platform = format!("{}/{}", std::env::consts::OS, architecture(std::env::consts::ARCH));
    // In the order of the API type.
    format!(
        r#"{{"major":"{MAJOR}","minor":"{MINOR}","gitVersion":"{GIT_VERSION}","gitCommit":"","gitTreeState":"","buildDate":"1970-01-01T00:00:00Z","goVersion":"","compiler":"rustc","platform":{}}}"#,
        json!(platform)
    )
}

/// Rust's name of a processor as Go, and so Kubernetes, calls it.
#[must_use]
pub fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn clients_can_read_the_version() {
        let version: serde_json::Value = serde_json::from_str(&super::document()).unwrap();
        assert_eq!((&version["major"], &version["minor"]), (&"1".into(), &"32".into()));
        assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.32."));
    }
}
