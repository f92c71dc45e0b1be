//! A program's streams on a WebSocket.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use super::{Gone, Reader, Writer};
use crate::apiserver::request::LogStream;
use crate::apiserver::stream::channel::{self, Incoming, Protocol};
use crate::apiserver::stream::{Ended, Input, Opening, Session};

/// The most bytes of output in one message.
const PIECE_MAX: usize = 32 << 10;

/// Opens the streams and passes them on, until the program ends or the client goes.
pub(super) async fn serve(
    writer: Writer,
    mut reader: Reader,
    protocol: Protocol,
    opening: Opening,
    stop: CancellationToken,
) {
    let mut out = Out { writer, protocol };
    let session = match out.writer.pinging(opening).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => {
            if out.end(&Err(*error.0)).await.is_ok() {
                out.writer.close(&mut reader, CloseCode::Normal).await;
            }
            return;
        }
        Err(Gone) => return,
    };
    let Session { stdin, stdout, stderr, ended } = session;
    let said = match (&stdout, &stderr) {
        (_, Some(_)) => Some(channel::STDERR),
        (Some(_), None) => Some(channel::STDOUT),
        (None, None) => None,
    };
    let output = async {
        // Upstream tells the client so that the streams are there.
        let first = if stdout.is_some() { channel::STDOUT } else { said.unwrap_or(channel::ERROR) };
        out.send(first, &[]).await?;
        let pieces = stream::select(tagged(channel::STDOUT, stdout), tagged(channel::STDERR, stderr));
        let mut pieces = std::pin::pin!(pieces);
        while let Some((channel, bytes)) = out.writer.pinging(pieces.next()).await? {
            for piece in bytes.chunks(PIECE_MAX) {
                out.send(channel, piece).await?;
            }
        }
        let ended: Ended = out.writer.pinging(ended).await?;
        if let (Some(text), Some(channel)) = (&ended.text, said) {
            out.send(channel, format!("{text}\n").as_bytes()).await?;
        }
        out.end(&Ok(ended)).await
    };
    let done = tokio::select! {
        biased;
        () = stop.cancelled() => CloseCode::Away,
        sent = output => match sent {
            Ok(()) => CloseCode::Normal,
            Err(Gone) => return,
        },
        () = input(&mut reader, protocol, stdin) => return,
    };
    out.writer.close(&mut reader, done).await;
}

fn tagged(channel: u8, output: Option<LogStream>) -> impl Stream<Item = (u8, Bytes)> + Send + Unpin {
    let output = output.unwrap_or_else(|| Box::pin(stream::empty()));
    output.map(move |bytes| (channel, bytes))
}

/// Passes on what the client sends; returns when it has gone.
async fn input(reader: &mut Reader, protocol: Protocol, mut stdin: Option<Box<dyn Input>>) {
    while let Ok(message) = reader.next().await {
        match protocol.read(message) {
            Some(Incoming::Data(channel::STDIN, bytes)) if !bytes.is_empty() => {
                let reads = match &stdin {
                    Some(stdin) => stdin.write(bytes).await,
                    None => false,
                };
                if !reads {
                    stdin = None;
                }
            }
            Some(Incoming::Closed(channel::STDIN)) => stdin = None,
            // Guests cannot hear how large a terminal is; the other channels are ours.
            Some(Incoming::Data(..) | Incoming::Closed(_)) | None => {}
        }
    }
}

struct Out {
    writer: Writer,
    protocol: Protocol,
}

impl Out {
    async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Gone> {
        let message = self.protocol.write(channel, bytes);
        let message = if self.protocol.base64 {
            Message::text(String::from_utf8(message).map_err(|_| Gone)?)
        } else {
            Message::binary(message)
        };
        self.writer.send(message).await
    }

    async fn end(&mut self, ended: &Result<Ended, Status>) -> Result<(), Gone> {
        match self.protocol.ending(ended) {
            Some(text) => self.send(channel::ERROR, &text).await,
            None => Ok(()),
        }
    }
}
