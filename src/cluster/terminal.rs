//! A terminal between a client and a program: its line discipline, and where its effects go.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::apiserver::request::LogStream;
use crate::apiserver::stream::Input;
use crate::kubelet::terminal::{self, OnInterrupt, Terminal};
use crate::runtime::pipe::{Receiver, Sender};

/// Messages whose echo may wait for a client that takes nothing; of more there is no echo.
const ECHOES_MAX: usize = 64;
const BELL: &[u8] = b"\x07";

/// Both directions of a terminal.
pub(super) struct Both {
    pub(super) stdin: Option<Box<dyn Input>>,
    pub(super) stdout: Option<LogStream>,
    /// The client wants the program to end.
    pub(super) interrupted: CancellationToken,
}

/// Puts a terminal before a program's streams.
pub(super) fn before(stdin: Option<Sender>, stdout: Option<Receiver>, on_interrupt: OnInterrupt) -> Both {
    let (echo, echoes) = mpsc::channel(ECHOES_MAX);
    let interrupted = CancellationToken::new();
    let typed = |program| -> Box<dyn Input> {
        let terminal = Mutex::new(Terminal::new(on_interrupt));
        Box::new(Typed { terminal, program, echo, interrupted: interrupted.clone() })
    };
    let shown = |output| Shown { output, echoes, interrupted: interrupted.clone(), after_return: false };
    Both { stdin: stdin.map(typed), stdout: stdout.map(shown).map(Shown::pieces), interrupted }
}

struct Typed {
    terminal: Mutex<Terminal>,
    program: Sender,
    echo: mpsc::Sender<Bytes>,
    interrupted: CancellationToken,
}

#[async_trait]
impl Input for Typed {
    /// Never waits for the program: ^C is heard behind what it does not read.
    async fn write(&self, bytes: Bytes) -> bool {
        let mut heard = self.terminal.lock().expect("no holder panics").typed(&bytes);
        if !heard.input.is_empty() && !self.program.offer(&heard.input) {
            heard.echo.extend_from_slice(BELL);
        }
        if heard.end {
            self.program.end();
        }
        if !heard.echo.is_empty() {
            // A client that takes nothing sees no echo either.
            self.echo.try_send(heard.echo.into()).ok();
        }
        if heard.interrupt {
            self.interrupted.cancel();
        }
        true
    }
}

struct Shown {
    output: Receiver,
    echoes: mpsc::Receiver<Bytes>,
    interrupted: CancellationToken,
    after_return: bool,
}

impl Shown {
    fn pieces(self) -> LogStream {
        Box::pin(stream::unfold(self, async |mut shown| {
            let piece = shown.next().await?;
            Some((piece, shown))
        }))
    }

    async fn next(&mut self) -> Option<Bytes> {
        tokio::select! {
            biased;
            Some(echo) = self.echoes.recv() => Some(echo),
            () = self.interrupted.cancelled() => None,
            piece = self.output.read() => Some(terminal::shown(piece?, &mut self.after_return)),
        }
    }
}
