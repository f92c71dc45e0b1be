//! Guests whose standard streams are pipes.

use super::super::super::pipe::{self, Receiver, Sender};
use super::super::super::stdio::{Output, Stdio};
use super::*;

struct Piped {
    container: Container,
    stdin: Sender,
    stdout: Receiver,
    stderr: Receiver,
}

async fn start(args: &[&str]) -> Piped {
    let real = real();
    let mut spec = spec(&real.runtime, "toolbox.p1", args).await;
    let ((stdin, input), (output, stdout), (errors, stderr)) =
        (pipe::to_guest(), pipe::from_guest(), pipe::from_guest());
    let (stdout_to, stderr_to) = (Output::Pipe(output), Output::Pipe(errors));
    spec.stdio = Stdio { stdin: Some(input), stdout: stdout_to, stderr: stderr_to, tty: false };
    let container = real.runtime.start(spec).await;
    Piped { container, stdin, stdout, stderr }
}

async fn all(mut output: Receiver) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = output.read().await {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

fn within_the_deadline<T>(test: impl Future<Output = T>) -> T {
    let real = real();
    real.threads.block_on(async { real.clock.timeout(DEADLINE, test).await.expect("it ends") })
}

#[test]
fn bytes_go_through_a_guest_unchanged() {
    within_the_deadline(async {
        let Piped { container, stdin, stdout, .. } = start(&["cat"]).await;
        let bytes: Vec<u8> = (0..1u32 << 20).map(|i| (i % 251) as u8).collect();
        let sent = Bytes::from(bytes.clone());
        let send = async move { assert!(stdin.write(sent).await) };
        let ((), received) = tokio::join!(send, all(stdout));
        assert!(received == bytes, "{} bytes came back", received.len());
        assert_eq!(container.exited().await, Exit::Code(0));
    });
}

#[test]
fn output_and_errors_are_apart_and_the_code_is_kept() {
    within_the_deadline(async {
        let run = start(&["sh", "-c", "echo out; echo err >&2; exit 7"]).await;
        let (output, errors) = tokio::join!(all(run.stdout), all(run.stderr));
        assert_eq!((output, errors), (b"out\n".to_vec(), b"err\n".to_vec()));
        assert_eq!(run.container.exited().await, Exit::Code(7));
    });
}

#[test]
fn a_guest_waits_for_a_slow_reader_and_ends_without_one() {
    within_the_deadline(async {
        let loop_forever = "while true; do echo 0123456789012345678901234567890123456789; done";
        let mut run = start(&["sh", "-c", loop_forever]).await;
        assert!(run.stdout.read().await.is_some());
        assert_eq!(run.container.exit(), None);
        drop(run.stdout);
        assert_eq!(run.container.exited().await, Exit::Code(141), "nobody reads");
    });
}
