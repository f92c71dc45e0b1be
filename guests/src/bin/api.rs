//! Asks the cluster's API from inside a pod, as client libraries do: TLS with the authority of
//! `/var/run/secrets/kubernetes.io/serviceaccount/ca.crt`, and the token that lies beside it.
//!
//! `api METHOD PATH [BODY]` prints the answer: `api GET /api`. The server is `https://kubernetes.default.svc`
//! unless `API_SERVER` (`HOST[:PORT]`) says otherwise.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const SERVER: &str = "kubernetes.default.svc";
/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 16 << 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (method, path, body) = match args.as_slice() {
        [method, path] => (method, path, ""),
        [method, path, body] => (method, path, body.as_str()),
        _ => {
            eprintln!("usage: api METHOD PATH [BODY]");
            return ExitCode::from(2);
        }
    };
    match ask(method, path, body) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot {method} {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(method: &str, path: &str, body: &str) -> io::Result<String> {
    let server = std::env::var("API_SERVER").unwrap_or_else(|_| SERVER.to_owned());
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(io::Error::other)?),
        None => (server.as_str(), 443),
    };
    let mut roots = RootCertStore::empty();
    let file = format!("{ACCOUNT}/ca.crt");
    for certificate in CertificateDer::pem_slice_iter(&std::fs::read(&file)?) {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let token = std::fs::read_to_string(format!("{ACCOUNT}/token"))?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls_rustcrypto::provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect((host, port))?);
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nAccept: application/json\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        token.trim(),
        body.len()
    )?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_MAX).read_to_end(&mut answer) {
        // Not every server says goodbye in TLS.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        read => {
            read?;
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
