use std::io::Read;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use std::io::Write;

use super::*;

/// Adler-32, by which zlib names a dictionary.
fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    b << 16 | a
}

#[test]
fn the_dictionary_is_the_one_that_everybody_knows() {
    assert_eq!((DICTIONARY.len(), adler32(&DICTIONARY)), (1_423, 0xe3c6_a7c2));
}

/// Compresses as clients do: one stream for all headers, flushed after each.
struct Deflate(DeflateEncoder<Vec<u8>>, bool);

impl Deflate {
    fn new() -> Self {
        Self(DeflateEncoder::new(Vec::new(), Compression::best()), false)
    }

    fn headers(&mut self, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut text = Vec::new();
        text.put_u32(u32::try_from(pairs.len()).unwrap());
        for part in pairs.iter().flat_map(|(name, value)| [name, value]) {
            text.put_u32(u32::try_from(part.len()).unwrap());
            text.extend_from_slice(part.as_bytes());
        }
        self.0.write_all(&text).unwrap();
        self.0.flush().unwrap();
        let compressed = std::mem::take(self.0.get_mut());
        if std::mem::replace(&mut self.1, true) {
            return compressed;
        }
        [&[0x78, 0x9c][..], &compressed].concat()
    }
}

fn open(stream: u32, headers: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    content.put_u32(stream);
    content.put_u32(0);
    content.put_u16(0);
    content.extend_from_slice(headers);
    control(SYN_STREAM, &content).to_vec()
}

fn all(bytes: &[u8], piece: usize) -> Vec<Frame> {
    let mut reader = Reader::default();
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        while let Some(frame) = reader.frame().unwrap() {
            frames.push(frame);
        }
    }
    frames
}

#[test]
fn frames_are_read_however_they_are_cut() {
    let mut deflate = Deflate::new();
    let first = [("Streamtype", "error"), ("port", "8080"), ("requestid", "0")];
    let second = [("Streamtype", "data"), ("port", "8080"), ("requestid", "0")];
    let mut bytes = open(1, &deflate.headers(&first));
    bytes.extend(open(3, &deflate.headers(&second)));
    bytes.extend(data(1, b"", true));
    bytes.extend(data(3, b"hello", false));
    bytes.extend(ping(1));
    bytes.extend(control(4, &[0, 0, 0, 0]));
    bytes.extend(reset(3, CANCEL));
    bytes.extend(control(GO_AWAY, &[0; 8]));
    let headers = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| (name.to_lowercase(), (*value).to_owned())).collect()
    };
    let expected = [
        Frame::Open { stream: 1, fin: false, headers: headers(&first) },
        Frame::Open { stream: 3, fin: false, headers: headers(&second) },
        Frame::Data { stream: 1, fin: true, bytes: Bytes::new() },
        Frame::Data { stream: 3, fin: false, bytes: Bytes::from_static(b"hello") },
        Frame::Ping { id: 1 },
        Frame::Other,
        Frame::Reset { stream: 3 },
        Frame::GoAway,
    ];
    for piece in [1, 7, bytes.len()] {
        assert_eq!(all(&bytes, piece), expected, "in pieces of {piece}");
    }
}

/// What Go's zlib writes for `Streamtype: error, Port: 80, Requestid: 0` with the dictionary, as clients do.
#[test]
fn the_dictionary_serves_references_into_it() {
    // A stored block would not tell whether the dictionary is there, so one is made that refers to it:
    // with it as what came before, the first block is what follows of both compressed together.
    let mut reader = Inflate::new();
    let mut whole = DeflateEncoder::new(Vec::new(), Compression::best());
    whole.write_all(&DICTIONARY).unwrap();
    whole.flush().unwrap();
    let before = whole.get_ref().len();
    let mut text = Vec::new();
    text.put_u32(1);
    for part in ["accept-language", "content-type"] {
        text.put_u32(u32::try_from(part.len()).unwrap());
        text.extend_from_slice(part.as_bytes());
    }
    whole.write_all(&text).unwrap();
    whole.flush().unwrap();
    let compressed = &whole.get_ref()[before..];
    assert!(compressed.len() < text.len(), "it refers to the dictionary");
    let mut message = vec![0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];
    message.extend_from_slice(compressed);
    let headers = reader.read(&message).unwrap();
    assert_eq!(headers, [("accept-language".to_owned(), "content-type".to_owned())].into());
}

#[test]
fn what_is_garbled_is_told() {
    for (bytes, why) in [
        (&[0x80, 2, 0, 1, 0, 0, 0, 0][..], "version"),
        (&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff], "longer than a mebibyte"),
        (&[0x80, 3, 0, 3, 0, 0, 0, 0], "too short"),
        (&[0x80, 3, 0, 1, 0, 0, 0, 14, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x78, 0x9c, 0xff, 0xff], "decompressed"),
    ] {
        let mut reader = Reader::default();
        reader.push(bytes);
        let error = reader.frame().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// Every reader of zlib takes what is written, and stops where it ends.
#[test]
fn replies_are_zlib() {
    let mut writer = Writer::default();
    let mut zlib = Vec::new();
    for stream in [1, 3] {
        let reply = writer.reply(stream);
        assert_eq!(reply[..4], [0x80, 3, 0, 2]);
        assert_eq!(reply[8..12], stream.to_be_bytes());
        zlib.extend_from_slice(&reply[12..]);
    }
    // The end that the connection never writes.
    zlib.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    zlib.extend_from_slice(&adler32(&[0; 8]).to_be_bytes());
    let mut text = Vec::new();
    flate2::read::ZlibDecoder::new(&zlib[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, [0; 8]);
}
