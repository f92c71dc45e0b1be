//! Ports of a pod on a WebSocket: as SPDY inside it, with a pair of streams for each connection, or as
//! two channels for each port.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use super::{Gone, Reader, Writer};
use crate::apiserver::stream::Ports;
use crate::apiserver::stream::channel::{Incoming, Protocol};
use crate::apiserver::stream::spdy::{self, Frame};

/// Ports that one request may name.
pub(super) const PORTS_MAX: usize = 64;
/// Connections at a time through one tunnel.
const CONNECTIONS_MAX: usize = 512;
/// Frames that wait to be sent to the client.
const OUTGOING_MAX: usize = 32;
/// Bytes on their way from one client to its pods. The protocol has no windows that anybody keeps, so
/// beyond this nothing more is read, of any of its connections.
const INCOMING_MAX: usize = 8 << 20;

/// Bytes from the client, counted until they are written.
type Piece = (Bytes, OwnedSemaphorePermit);

/// `SPDY/3.1+portforward.k8s.io`: the messages of both sides are one stream of SPDY's frames.
pub(super) async fn tunnel(writer: Writer, mut reader: Reader, ports: Ports, stop: CancellationToken) {
    let (send, outgoing) = mpsc::channel(OUTGOING_MAX);
    let tunnel = Tunnel {
        ports: Arc::new(ports),
        reader: spdy::Reader::default(),
        writer: spdy::Writer::default(),
        outgoing: send,
        room: Arc::new(Semaphore::new(INCOMING_MAX)),
        streams: HashMap::new(),
        halves: HashMap::new(),
        connections: JoinSet::new(),
    };
    finish(writer, &mut reader, outgoing, stop, |reader| tunnel.run(reader)).await;
}

/// Sends what is outgoing while `run` reads, then says goodbye.
async fn finish<'a, F: Future<Output = ()> + 'a>(
    mut writer: Writer,
    reader: &'a mut Reader,
    mut outgoing: mpsc::Receiver<Message>,
    stop: CancellationToken,
    run: impl FnOnce(&'a mut Reader) -> F,
) {
    let sends = async {
        while let Some(message) = writer.pinging(outgoing.recv()).await? {
            writer.send(message).await?;
        }
        Ok::<(), Gone>(())
    };
    let code = tokio::select! {
        biased;
        () = stop.cancelled() => CloseCode::Away,
        sent = sends => if sent.is_ok() { CloseCode::Normal } else { return },
        () = run(reader) => CloseCode::Normal,
    };
    // What the client still has to say is of no use any more.
    let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame { code, reason: "".into() };
    writer.send(Message::Close(Some(frame))).await.ok();
}

/// What a stream of the client is for.
enum Role {
    Error,
    /// With where its bytes go; none once it has ended.
    Data(Option<mpsc::UnboundedSender<Piece>>),
}

struct Stream {
    role: Role,
    /// The connection that it is part of.
    request: String,
    task: Option<AbortHandle>,
}

/// A connection of which one stream is there.
#[derive(Default)]
struct Half {
    error: Option<u32>,
    data: Option<(u32, mpsc::UnboundedReceiver<Piece>)>,
}

struct Tunnel {
    ports: Arc<Ports>,
    reader: spdy::Reader,
    writer: spdy::Writer,
    outgoing: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    streams: HashMap<u32, Stream>,
    /// By request.
    halves: HashMap<String, Half>,
    /// Each tells the streams that it has ended.
    connections: JoinSet<[u32; 2]>,
}

impl Tunnel {
    async fn run(mut self, reader: &mut Reader) {
        loop {
            let message = tokio::select! {
                biased;
                Some(ended) = self.connections.join_next() => {
                    for stream in ended.into_iter().flatten() {
                        self.streams.remove(&stream);
                    }
                    continue;
                }
                message = reader.next() => message,
            };
            let Ok(bytes) = message else { return };
            self.reader.push(&bytes);
            loop {
                match self.reader.frame() {
                    Ok(Some(frame)) => {
                        if self.take(frame).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "a client's port forwarding ends");
                        return;
                    }
                }
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Gone> {
        match frame {
            Frame::Open { stream, fin, headers } => {
                let header = |name: &str| headers.get(name).map_or("", String::as_str);
                let port = header("port").parse::<u16>().ok().filter(|port| *port > 0);
                // A client without request ids opens the error stream, and the data stream after it.
                let request = match header("requestid") {
                    "" if header("streamtype") == "data" => stream.saturating_sub(2).to_string(),
                    "" => stream.to_string(),
                    request => request.to_owned(),
                };
                match (header("streamtype"), port) {
                    ("error" | "data", Some(_)) if self.streams.len() >= 2 * CONNECTIONS_MAX => {
                        self.send(spdy::reset(stream, spdy::REFUSED_STREAM)).await
                    }
                    (kind @ ("error" | "data"), Some(port)) => {
                        let reply = self.writer.reply(stream);
                        self.send(reply).await?;
                        self.open(stream, kind == "data", fin, request, port);
                        Ok(())
                    }
                    _ => self.send(spdy::reset(stream, spdy::PROTOCOL_ERROR)).await,
                }
            }
            Frame::Data { stream, fin, bytes } => {
                let Some(Stream { role: Role::Data(sender), .. }) = self.streams.get_mut(&stream) else {
                    return Ok(());
                };
                if let Some(sender) = sender
                    && !bytes.is_empty()
                {
                    let count = u32::try_from(bytes.len()).map_err(|_| Gone)?;
                    let room = Arc::clone(&self.room).acquire_many_owned(count).await.map_err(|_| Gone)?;
                    // A connection that has ended takes no more.
                    sender.send((bytes, room)).ok();
                }
                if fin {
                    *sender = None;
                }
                Ok(())
            }
            Frame::Reset { stream } => {
                if let Some(Stream { role: Role::Data(_), task, request }) = self.streams.remove(&stream) {
                    self.halves.remove(&request);
                    if let Some(task) = task {
                        task.abort();
                    }
                    // The client waits for the end of what could be said about it.
                    let error = self.streams.iter().find(|(_, other)| other.request == request);
                    if let Some(error) = error.map(|(error, _)| *error) {
                        self.streams.remove(&error);
                        self.send(spdy::data(error, &[], true)).await?;
                    }
                }
                Ok(())
            }
            Frame::Ping { id } => self.send(spdy::ping(id)).await,
            Frame::GoAway => Err(Gone),
            Frame::Other => Ok(()),
        }
    }

    fn open(&mut self, stream: u32, is_data: bool, fin: bool, request: String, port: u16) {
        let half = self.halves.entry(request.clone()).or_default();
        let role = if is_data {
            let (sender, receiver) = mpsc::unbounded_channel();
            half.data = Some((stream, receiver));
            Role::Data((!fin).then_some(sender))
        } else {
            half.error = Some(stream);
            Role::Error
        };
        self.streams.insert(stream, Stream { role, request: request.clone(), task: None });
        let Some(Half { error: Some(error), data: Some(_) }) = self.halves.get(&request) else { return };
        let error = *error;
        let Some(Half { data: Some((data, incoming)), .. }) = self.halves.remove(&request) else { return };
        let connection = Connection { ports: Arc::clone(&self.ports), outgoing: self.outgoing.clone() };
        let task = self.connections.spawn(async move {
            connection.serve(port, data, error, incoming).await.ok();
            [data, error]
        });
        if let Some(stream) = self.streams.get_mut(&data) {
            stream.task = Some(task);
        }
    }

    async fn send(&self, frame: Bytes) -> Result<(), Gone> {
        self.outgoing.send(Message::Binary(frame)).await.map_err(|_| Gone)
    }
}

/// One connection to a port of the pod.
struct Connection {
    ports: Arc<Ports>,
    outgoing: mpsc::Sender<Message>,
}

impl Connection {
    async fn serve(
        &self,
        port: u16,
        data: u32,
        error: u32,
        incoming: mpsc::UnboundedReceiver<Piece>,
    ) -> Result<(), Gone> {
        let passed = match (self.ports.dial)(port).await {
            Ok(connection) => {
                let (from, to) = connection.into_split();
                // The client tells when it wants no more of it, so a port that has closed ends it.
                let writes = write_all(to, incoming);
                let reads = self.read_all(from, data);
                tokio::pin!(writes, reads);
                tokio::select! {
                    read = &mut reads => read,
                    written = &mut writes => match written {
                        Ok(()) => reads.await,
                        Err(error) => Err(error),
                    },
                }
            }
            Err(error) => Err(error),
        };
        match passed {
            Ok(()) => self.send(spdy::data(error, &[], true)).await,
            Err(failure) => {
                let text = self.ports.failure(port, &failure.to_string());
                self.send(spdy::data(error, text.as_bytes(), true)).await?;
                self.send(spdy::reset(data, spdy::CANCEL)).await
            }
        }
    }

    /// Passes on what the port says, and its end.
    async fn read_all(&self, mut from: OwnedReadHalf, data: u32) -> io::Result<()> {
        let mut buffer = vec![0; spdy::DATA_MAX];
        loop {
            let count = from.read(&mut buffer).await?;
            let sent = self.send(spdy::data(data, &buffer[..count], count == 0)).await;
            if count == 0 || sent.is_err() {
                return Ok(());
            }
        }
    }

    async fn send(&self, frame: Bytes) -> Result<(), Gone> {
        self.outgoing.send(Message::Binary(frame)).await.map_err(|_| Gone)
    }
}

/// Passes on what the client says, and its end.
async fn write_all(mut to: OwnedWriteHalf, mut incoming: mpsc::UnboundedReceiver<Piece>) -> io::Result<()> {
    while let Some((bytes, _room)) = incoming.recv().await {
        to.write_all(&bytes).await?;
    }
    to.shutdown().await
}

/// `v4.channel.k8s.io` and its base64: for port number N of the request, channel 2N carries its bytes and
/// 2N+1 what went wrong. The first message of each holds the port, the lower byte first.
pub(super) async fn channels(
    writer: Writer,
    mut reader: Reader,
    protocol: Protocol,
    ports: Ports,
    stop: CancellationToken,
) {
    let (send, outgoing) = mpsc::channel(OUTGOING_MAX);
    let room = Arc::new(Semaphore::new(INCOMING_MAX));
    let mut connections = JoinSet::new();
    let mut senders = Vec::new();
    let ports = Arc::new(ports);
    for (number, &port) in ports.ports.iter().enumerate() {
        let (sender, incoming) = mpsc::unbounded_channel();
        senders.push(Some(sender));
        let channels = Channels { ports: Arc::clone(&ports), protocol, outgoing: send.clone() };
        let number = u8::try_from(2 * number).expect("there are few ports");
        connections.spawn(async move { channels.serve(port, number, incoming).await.ok() });
    }
    drop(send);
    finish(writer, &mut reader, outgoing, stop, |reader| async move {
        // Dropped with the rest when the client goes.
        let _connections = connections;
        while let Ok(message) = reader.next().await {
            let Some(Incoming::Data(channel, bytes)) = protocol.read(message) else { continue };
            let Some(sender) = senders.get(usize::from(channel / 2)) else { continue };
            if let (Some(sender), true, Ok(count)) = (sender, channel % 2 == 0, u32::try_from(bytes.len())) {
                let Ok(room) = Arc::clone(&room).acquire_many_owned(count).await else { return };
                sender.send((bytes, room)).ok();
            }
        }
    })
    .await;
}

/// The two channels of one port.
struct Channels {
    ports: Arc<Ports>,
    protocol: Protocol,
    outgoing: mpsc::Sender<Message>,
}

impl Channels {
    async fn serve(
        &self,
        port: u16,
        channel: u8,
        incoming: mpsc::UnboundedReceiver<Piece>,
    ) -> Result<(), Gone> {
        self.send(channel, &port.to_le_bytes()).await?;
        self.send(channel + 1, &port.to_le_bytes()).await?;
        let passed = match (self.ports.dial)(port).await {
            Ok(connection) => self.pass(connection, channel, incoming).await,
            Err(error) => Err(error),
        };
        match passed {
            Ok(()) => Ok(()),
            Err(error) => {
                let text = self.ports.failure(port, &error.to_string());
                self.send(channel + 1, text.as_bytes()).await
            }
        }
    }

    async fn pass(
        &self,
        connection: TcpStream,
        channel: u8,
        incoming: mpsc::UnboundedReceiver<Piece>,
    ) -> io::Result<()> {
        let (mut from, to) = connection.into_split();
        let reads = async {
            let mut buffer = vec![0; spdy::DATA_MAX];
            loop {
                let count = from.read(&mut buffer).await?;
                if count == 0 || self.send(channel, &buffer[..count]).await.is_err() {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            read = reads => read,
            // It goes on until the client does: there is no end of a channel.
            Err(error) = write_all(to, incoming) => Err(error),
        }
    }

    async fn send(&self, channel: u8, bytes: &[u8]) -> Result<(), Gone> {
        let message = self.protocol.write(channel, bytes);
        let message = if self.protocol.base64 {
            Message::text(String::from_utf8(message).map_err(|_| Gone)?)
        } else {
            Message::binary(message)
        };
        self.outgoing.send(message).await.map_err(|_| Gone)
    }
}
