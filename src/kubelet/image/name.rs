//! Image names, as people and Docker write them.

/// The longest name, as registries have it.
const LENGTH_MAX: usize = 255;

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not an image name: {why}; names look like hello, hello:v1 or registry.example/team/hello:v1"
)]
pub struct InvalidName {
    name: String,
    why: &'static str,
}

/// The full form of a name: `hello` is `docker.io/library/hello:latest` (distribution's
/// `ParseNormalizedNamed` and `TagNameOnly`).
pub fn normalize(name: &str) -> Result<String, InvalidName> {
    let invalid = |why| InvalidName { name: name.to_owned(), why };
    if name.is_empty() {
        return Err(invalid("it is empty"));
    }
    if name.len() > LENGTH_MAX {
        return Err(invalid("it is longer than 255 characters"));
    }
    let (name_and_tag, digest) = match name.split_once('@') {
        Some((before, digest)) => (before, Some(digest)),
        None => (name, None),
    };
    if let Some(digest) = digest {
        let hex = digest.strip_prefix("sha256:").ok_or_else(|| invalid("the digest is not sha256:…"))?;
        if hex.len() != 64 || !hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid("the digest is not sha256: and 64 hexadecimal digits"));
        }
    }
    let (host, path) = match name_and_tag.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        Some(_) | None => ("docker.io", name_and_tag),
    };
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let (path, tag) = match path.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (path, None),
    };
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    if !host.split(['.', ':']).all(is_label) {
        return Err(invalid("the registry's name has other characters than letters, digits, . and -"));
    }
    if path.is_empty() || !path.split('/').all(is_component) {
        return Err(invalid("each part is lower-case letters and digits, separated by single ., - or _"));
    }
    if let Some(tag) = tag {
        let first = tag.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_');
        let rest = tag.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'));
        if !first || !rest || tag.len() > 128 {
            return Err(invalid("the tag has other characters than letters, digits, _, . and -"));
        }
    }
    let library = if host == "docker.io" && !path.contains('/') { "library/" } else { "" };
    Ok(match (tag, digest) {
        (_, Some(digest)) => format!("{host}/{library}{path}@{digest}"),
        (tag, None) => format!("{host}/{library}{path}:{}", tag.unwrap_or("latest")),
    })
}

/// A full name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// With its port, if it has one.
    pub(crate) host: String,
    pub(crate) repository: String,
    /// A tag, or a digest: `sha256:…`.
    pub(crate) reference: String,
}

impl Parts {
    /// Of what [`normalize`] has returned.
    pub(crate) fn of(full: &str) -> Self {
        let (host, rest) = full.split_once('/').unwrap_or(("docker.io", full));
        let cut = rest.split_once('@').or_else(|| rest.rsplit_once(':'));
        let (repository, reference) = cut.unwrap_or((rest, "latest"));
        Self { host: host.to_owned(), repository: repository.to_owned(), reference: reference.to_owned() }
    }
}

/// The shortest form of a full name: what people type.
#[must_use]
pub fn familiar(full: &str) -> &str {
    let short = full.strip_prefix("docker.io/").unwrap_or(full);
    short.strip_prefix("library/").unwrap_or(short)
}

/// Lower-case letters and digits, separated by `.`, `_`, `__` or dashes.
fn is_component(part: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = part.bytes().next().is_some_and(inner) && part.bytes().last().is_some_and(inner);
    let all = part.bytes().all(|c| inner(c) || matches!(c, b'.' | b'_' | b'-'));
    ends && all && !part.contains("..") && !part.contains("___")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_full_form() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, full) in [
            ("hello", "docker.io/library/hello:latest"),
            ("hello:v1", "docker.io/library/hello:v1"),
            ("me/hello", "docker.io/me/hello:latest"),
            ("docker.io/library/hello:latest", "docker.io/library/hello:latest"),
            ("docker.io/hello", "docker.io/library/hello:latest"),
            ("index.docker.io/hello:v1", "docker.io/library/hello:v1"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("localhost/a", "localhost/a:latest"),
            ("ghcr.io/x/y-z_w.v", "ghcr.io/x/y-z_w.v:latest"),
        ] {
            assert_eq!(normalize(name).as_deref(), Ok(full), "{name}");
        }
        assert_eq!(normalize(&format!("hello:v1@{digest}")), Ok(format!("docker.io/library/hello@{digest}")));
        assert_eq!(familiar("docker.io/library/hello:v1"), "hello:v1");
        assert_eq!(familiar("docker.io/me/hello:v1"), "me/hello:v1");
        assert_eq!(familiar("ghcr.io/x:v1"), "ghcr.io/x:v1");
    }

    #[test]
    fn full_names_come_apart() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, host, repository, reference) in [
            ("hello", "docker.io", "library/hello", "latest"),
            ("localhost:5000/a/b:c", "localhost:5000", "a/b", "c"),
            (&format!("ghcr.io/x@{digest}"), "ghcr.io", "x", &digest),
        ] {
            let parts = Parts::of(&normalize(name).unwrap());
            assert_eq!((&*parts.host, &*parts.repository, &*parts.reference), (host, repository, reference));
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in
            ["", "Hello", "a b", "a:", ":v1", "a/", "/a", "a@sha256:12", "a:v 1", "-a", "a..b", "../a"]
        {
            assert!(normalize(name).is_err(), "{name}");
        }
    }
}
