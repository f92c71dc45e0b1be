//! DNS messages: what is asked in one, and the zone's answer as another. Pure.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record as WireRecord, RecordType};

use super::zone::{Answer, Data, ORIGIN, Record, TTL_SECONDS, Type, Zone};

/// A header; what is shorter is no message.
const HEADER_BYTES: usize = 12;
/// The largest answer over UDP that is not in danger of being cut into pieces on its way (DNS flag day 2020).
pub const UDP_BYTES_MAX: u16 = 1232;
/// The largest over TCP.
const TCP_BYTES_MAX: usize = u16::MAX as usize;
/// The time that secondary servers, of which there are none, would go by, in seconds: refresh, retry, expire.
const SOA_SECONDS: (i32, i32, i32) = (7200, 1800, 86_400);

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What is to be done about a message.
#[derive(Debug)]
pub enum Reply {
    /// Nothing: it is no question, and to answer it might be answered in turn.
    Nothing,
    Answer(Vec<u8>),
    /// The name is not the cluster's: others are to be asked. `Box`ed, being large.
    Others(Box<Question>),
}

/// A question that others answer.
#[derive(Debug)]
pub struct Question {
    asked: Message,
    transport: Transport,
    /// What is known so far: that the name is another name for [`Question::name`].
    known: Vec<WireRecord>,
    /// What others are asked for.
    name: Name,
    kind: RecordType,
}

/// The reply to `bytes`.
#[must_use]
pub fn reply(zone: &Zone, bytes: &[u8], transport: Transport) -> Reply {
    let Some(&[high, low, flags, ..]) = bytes.get(..HEADER_BYTES) else { return Reply::Nothing };
    if flags & 0x80 != 0 {
        return Reply::Nothing;
    }
    let refusal = |code| {
        let mut message = Message::error_msg(u16::from_be_bytes([high, low]), OpCode::Query, code);
        message.metadata.recursion_desired = flags & 1 != 0;
        message.to_vec().map_or(Reply::Nothing, Reply::Answer)
    };
    if (flags >> 3) & 0xf != 0 {
        return refusal(ResponseCode::NotImp);
    }
    let Ok(asked) = Message::from_vec(bytes) else { return refusal(ResponseCode::FormErr) };
    if asked.metadata.message_type != MessageType::Query {
        return Reply::Nothing;
    }
    let [question] = asked.queries.as_slice() else { return refusal(ResponseCode::FormErr) };
    if asked.version() > 0 {
        return Reply::Answer(finished(respond(&asked, ResponseCode::BADVERS), &asked, transport));
    }
    if !matches!(question.query_class(), DNSClass::IN | DNSClass::ANY) {
        return Reply::Answer(finished(respond(&asked, ResponseCode::Refused), &asked, transport));
    }
    // The zone is not handed out as a whole.
    if matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR) {
        return Reply::Answer(finished(respond(&asked, ResponseCode::Refused), &asked, transport));
    }
    let name = question.name().to_ascii();
    let Some(answer) = zone.answer(&name, type_of(question.query_type())) else {
        let (name, kind) = (question.name().clone(), question.query_type());
        return Reply::Others(Box::new(Question { asked, transport, known: Vec::new(), name, kind }));
    };
    let known = records(&answer.records, question);
    if let Some(outside) = answer.outside.as_deref().and_then(absolute) {
        let kind = question.query_type();
        return Reply::Others(Box::new(Question { asked, transport, known, name: outside, kind }));
    }
    Reply::Answer(finished(authoritative(zone, &asked, &answer, known), &asked, transport))
}

impl Question {
    /// The message by which others are asked; `id` should be hard to guess. `None` if whoever asks wants
    /// no others to be asked.
    #[must_use]
    pub fn forward(&self, id: u16) -> Option<Vec<u8>> {
        if !self.asked.metadata.recursion_desired {
            return None;
        }
        query(self.name.clone(), self.kind, id, self.transport)
    }

    /// What others would be asked about.
    #[must_use]
    pub fn name(&self) -> String {
        self.name.to_ascii()
    }

    /// The reply to whoever may not have others asked.
    #[must_use]
    pub fn refuse(self) -> Vec<u8> {
        finished(respond(&self.asked, ResponseCode::Refused), &self.asked, self.transport)
    }

    /// The reply to whoever asked, from what others answered; nothing of them is a failure of the server.
    #[must_use]
    pub fn reply(self, others: Option<Message>) -> Vec<u8> {
        let Self { asked, transport, known, .. } = self;
        let is_cluster = !known.is_empty();
        let code = match &others {
            Some(others) => others.metadata.response_code,
            // What was found is no failure for those who ask for no more.
            None if is_cluster => ResponseCode::NoError,
            None if !asked.metadata.recursion_desired => ResponseCode::Refused,
            None => ResponseCode::ServFail,
        };
        let mut message = respond(&asked, code);
        message.metadata.authoritative = is_cluster;
        message.add_answers(known);
        if let Some(others) = others {
            message.metadata.truncation = others.metadata.truncation;
            message.add_answers(others.answers);
            message.add_authorities(others.authorities);
            message.add_additionals(others.additionals);
        }
        finished(message, &asked, transport)
    }
}

/// A question to others.
#[must_use]
pub fn query(name: Name, kind: RecordType, id: u16, transport: Transport) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    if transport == Transport::Udp {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX);
        message.set_edns(edns);
    }
    message.to_vec().ok()
}

/// The question for a name's IPv4 addresses.
#[must_use]
pub fn address_query(name: &str, id: u16, transport: Transport) -> Option<Vec<u8>> {
    query(absolute(name)?, RecordType::A, id, transport)
}

/// `answer` read, if it is one to `asked`.
#[must_use]
pub fn matching(asked: &[u8], answer: &[u8]) -> Option<Message> {
    let asked = Message::from_vec(asked).ok()?;
    let answer = Message::from_vec(answer).ok()?;
    let is_it = answer.metadata.id == asked.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == asked.queries;
    is_it.then_some(answer)
}

/// The addresses in an answer; `None` if the name does not exist.
#[must_use]
pub fn addresses(answer: &Message) -> Option<Vec<IpAddr>> {
    if answer.metadata.response_code == ResponseCode::NXDomain {
        return None;
    }
    let address = |record: &WireRecord| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        _ => None,
    };
    Some(answer.answers.iter().filter_map(address).collect())
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn type_of(kind: RecordType) -> Type {
    match kind {
        RecordType::A => Type::A,
        RecordType::AAAA => Type::Aaaa,
        RecordType::SRV => Type::Srv,
        RecordType::PTR => Type::Ptr,
        RecordType::CNAME => Type::Cname,
        RecordType::TXT => Type::Txt,
        RecordType::NS => Type::Ns,
        RecordType::SOA => Type::Soa,
        RecordType::ANY => Type::Any,
        _ => Type::Other,
    }
}

/// An answer with nothing in it yet.
fn respond(asked: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(asked.metadata.id, asked.metadata.op_code);
    message.metadata.recursion_desired = asked.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.checking_disabled = asked.metadata.checking_disabled;
    message.metadata.response_code = code;
    message.add_queries(asked.queries.iter().cloned());
    if asked.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX);
        message.set_edns(edns);
    }
    message
}

fn authoritative(zone: &Zone, asked: &Message, answer: &Answer, known: Vec<WireRecord>) -> Message {
    let code = if answer.exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
    let mut message = respond(asked, code);
    message.metadata.authoritative = true;
    let question = &asked.queries[0];
    // An answer of a name for a name only has none of what was asked for.
    let is_alias = known.last().is_some_and(|last| matches!(last.data, RData::CNAME(_)));
    let is_negative =
        known.is_empty() || is_alias && !matches!(question.query_type(), RecordType::CNAME | RecordType::ANY);
    message.add_answers(known);
    if is_negative {
        message.add_authorities(records(&[zone.authority()], question));
    }
    message.add_additionals(records(&answer.additional, question));
    message
}

/// On the wire; the name that was asked for stays written as it was.
fn records(records: &[Record], question: &Query) -> Vec<WireRecord> {
    let mut found: Vec<WireRecord> = Vec::with_capacity(records.len());
    for record in records {
        let Some(mut name) = absolute(&record.name) else { continue };
        if name == *question.name() {
            name = question.name().clone();
        }
        let Some(data) = data(&record.data) else { continue };
        found.push(WireRecord::from_rdata(name, TTL_SECONDS, data));
    }
    found
}

fn data(data: &Data) -> Option<RData> {
    Some(match data {
        Data::A(address) => RData::A(A(*address)),
        Data::Srv { weight, port, target } => RData::SRV(SRV::new(0, *weight, *port, absolute(target)?)),
        Data::Ptr(name) => RData::PTR(PTR(absolute(name)?)),
        Data::Cname(name) => RData::CNAME(CNAME(absolute(name)?)),
        Data::Ns(name) => RData::NS(NS(absolute(name)?)),
        Data::Txt(text) => RData::TXT(TXT::new(vec![text.clone()])),
        Data::Soa { serial } => {
            let (refresh, retry, expire) = SOA_SECONDS;
            let (server, mail) = (format!("ns.dns.{ORIGIN}"), format!("hostmaster.{ORIGIN}"));
            let (server, mail) = (absolute(&server)?, absolute(&mail)?);
            RData::SOA(SOA::new(server, mail, *serial, refresh, retry, expire, TTL_SECONDS))
        }
    })
}

/// The bytes of a message, no more than whoever asked takes: first what nobody asked for is left out;
/// if that does not help, over UDP the answer is to come again over TCP, over TCP it is cut.
fn finished(mut message: Message, asked: &Message, transport: Transport) -> Vec<u8> {
    // Whoever takes the first address only takes another each time.
    spread(&mut message.answers, usize::from(asked.metadata.id));
    let bytes_max = match transport {
        Transport::Udp => usize::from(asked.max_payload().min(UDP_BYTES_MAX)),
        Transport::Tcp => TCP_BYTES_MAX,
    };
    let encoded = |message: &Message| message.to_vec().ok().filter(|bytes| bytes.len() <= bytes_max);
    if let Some(bytes) = encoded(&message) {
        return bytes;
    }
    message.additionals.clear();
    while transport == Transport::Tcp && !message.answers.is_empty() {
        if let Some(bytes) = encoded(&message) {
            return bytes;
        }
        message.answers.truncate(message.answers.len() * 7 / 8);
    }
    if let Some(bytes) = encoded(&message) {
        return bytes;
    }
    message.truncate().to_vec().unwrap_or_default()
}

/// Turns the addresses among `answers`, which follow each other.
fn spread(answers: &mut [WireRecord], by: usize) {
    let is_address = |record: &WireRecord| matches!(record.data, RData::A(_));
    let Some(first) = answers.iter().position(is_address) else { return };
    let addresses = &mut answers[first..];
    if addresses.iter().all(is_address) {
        let by = by % addresses.len();
        addresses.rotate_left(by);
    }
}

#[cfg(test)]
mod tests;
