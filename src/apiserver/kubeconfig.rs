//! The file by which kubectl and client libraries find and trust the cluster.

use std::io::{self, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A kubeconfig with one cluster, one user and one context, all named `coracle`; certificates are
/// embedded.
#[must_use]
pub fn render(server_url: &str, ca_pem: &str, client_cert_pem: &str, client_key_pem: &str) -> String {
    let [ca, certificate, key] = [ca_pem, client_cert_pem, client_key_pem].map(|pem| STANDARD.encode(pem));
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: coracle
  cluster:
    certificate-authority-data: {ca}
    server: {server_url}
contexts:
- name: coracle
  context:
    cluster: coracle
    user: coracle
current-context: coracle
preferences: {{}}
users:
- name: coracle
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}

/// Writes a private file (0600) whole or not at all; missing folders are made.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, content: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder)?;
    }
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no file", path.display()))
    })?;
    let mut draft_name = name.to_owned();
    draft_name.push(format!(".{}.tmp", std::process::id()));
    let draft = path.with_file_name(draft_name);
    let written = write_private(&draft, content).and_then(|()| std::fs::rename(&draft, path));
    if written.is_err() {
        // The draft may not even exist; the first error is the one to tell.
        drop(std::fs::remove_file(&draft));
    }
    written
}

fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_private_and_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/config");
        write(&path, "old").unwrap();
        write(&path, &render("https://127.0.0.1:6443", "ca", "cert", "key")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(value["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        assert_eq!(value["users"][0]["user"]["client-key-data"], STANDARD.encode("key"));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_folder_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write(folder.path(), "x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
