//! Channels in WebSocket messages, as remote commands and older port forwarding speak them: the first
//! byte of a message is the channel's number, the rest is its bytes.
//!
//! There are three generations, and two ways to write each. Without a protocol, or with
//! `channel.k8s.io`, channel 3 carries the text of an error; with `v4.channel.k8s.io` a `Status`;
//! `v5.channel.k8s.io` adds the message `[255, N]`, by which a client ends channel N. The `base64`
//! variants are for browsers' text messages: the number is a digit, the rest is base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

use super::Ended;

#[cfg(test)]
mod tests;

pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
/// How it ended.
pub const ERROR: u8 = 3;
/// The size of the client's terminal, which guests cannot hear.
pub const RESIZE: u8 = 4;
/// In [`Generation::V5`]: ends the channel that the next byte names.
const CLOSE: u8 = 255;

/// What the last message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The text of an error, if there was one.
    V1,
    /// A `Status`, always.
    V4,
    /// As `V4`, and the client may end a channel.
    V5,
}

/// How channels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// As clients ask for it; empty for those that ask for none.
    pub name: &'static str,
    pub generation: Generation,
    pub base64: bool,
}

const fn protocol(name: &'static str, generation: Generation, base64: bool) -> Protocol {
    Protocol { name, generation, base64 }
}

/// Those of remote commands.
pub const COMMAND: &[Protocol] = &[
    protocol("v5.channel.k8s.io", Generation::V5, false),
    protocol("v4.channel.k8s.io", Generation::V4, false),
    protocol("v4.base64.channel.k8s.io", Generation::V4, true),
    protocol("channel.k8s.io", Generation::V1, false),
    protocol("base64.channel.k8s.io", Generation::V1, true),
    protocol("", Generation::V1, false),
];

/// Those of port forwarding.
pub const PORTS: &[Protocol] = &[
    protocol("v4.channel.k8s.io", Generation::V4, false),
    protocol("v4.base64.channel.k8s.io", Generation::V4, true),
    protocol("", Generation::V4, false),
];

/// The first protocol of the client's list that there is; the nameless one if the list is empty.
#[must_use]
pub fn choose(asked: &[&str], there_are: &'static [Protocol]) -> Option<Protocol> {
    let of_name = |name: &str| there_are.iter().find(|one| one.name == name).copied();
    if asked.is_empty() { of_name("") } else { asked.iter().find_map(|name| of_name(name)) }
}

/// What a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    Data(u8, Bytes),
    /// The channel has ended.
    Closed(u8),
}

impl Protocol {
    /// Reads a message; `None` if it says nothing.
    #[must_use]
    pub fn read(&self, message: Bytes) -> Option<Incoming> {
        let first = *message.first()?;
        if self.generation == Generation::V5 && first == CLOSE {
            return message.get(1).map(|channel| Incoming::Closed(*channel));
        }
        if !self.base64 {
            return Some(Incoming::Data(first, message.slice(1..)));
        }
        let channel = first.checked_sub(b'0').filter(|channel| *channel < 10)?;
        Some(Incoming::Data(channel, STANDARD.decode(&message[1..]).ok()?.into()))
    }

    /// Writes a message.
    #[must_use]
    pub fn write(&self, channel: u8, bytes: &[u8]) -> Vec<u8> {
        if self.base64 {
            let mut message = vec![b'0' + channel];
            message.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            return message;
        }
        let mut message = Vec::with_capacity(1 + bytes.len());
        message.push(channel);
        message.extend_from_slice(bytes);
        message
    }

    /// What [`ERROR`] carries at the end; `None` if that is nothing.
    #[must_use]
    pub fn ending(&self, ended: &Result<Ended, Status>) -> Option<Vec<u8>> {
        let status = match ended {
            Ok(ended) => status(ended),
            Err(status) => status.clone(),
        };
        if self.generation == Generation::V1 {
            let failed = status.status.as_deref() == Some("Failure");
            return failed.then(|| status.message.unwrap_or_default().into_bytes());
        }
        // As apimachinery writes it, without a kind.
        let mut json = serde_json::to_value(&status).expect("a status has string keys only");
        if let Some(object) = json.as_object_mut() {
            object.retain(|name, _| name != "kind" && name != "apiVersion");
            object.insert("metadata".to_owned(), serde_json::json!({}));
        }
        Some(json.to_string().into_bytes())
    }
}

/// Success, or the exit code.
fn status(ended: &Ended) -> Status {
    if ended.code == 0 {
        return Status { status: Some("Success".to_owned()), ..Status::default() };
    }
    let code = ended.code;
    Status {
        status: Some("Failure".to_owned()),
        reason: Some("NonZeroExitCode".to_owned()),
        message: Some(format!(
            "command terminated with non-zero exit code: command terminated with exit code {code}"
        )),
        details: Some(StatusDetails {
            causes: Some(vec![StatusCause {
                reason: Some("ExitCode".to_owned()),
                message: Some(code.to_string()),
                ..StatusCause::default()
            }]),
            ..StatusDetails::default()
        }),
        ..Status::default()
    }
}
