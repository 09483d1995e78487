//! Bytes that are no requests, on every layer of the port: the node refuses them and goes on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;

use crate::running::Running;

/// Panics of tasks of nodes. A failed assertion of a test is on a thread of the test's name.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() -> usize {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some("tokio-rt-worker") {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
    });
    PANICS.load(Ordering::SeqCst)
}

const METHODS: [&str; 38] = [
    "/quipu.v1.Log/Append",
    "/quipu.v1.Log/AppendStream",
    "/quipu.v1.Log/Fetch",
    "/quipu.v1.Log/Follow",
    "/quipu.v1.Log/ListOffsets",
    "/quipu.v1.Log/NewProducer",
    "/quipu.v1.Groups/CommitOffsets",
    "/quipu.v1.Groups/FetchOffsets",
    "/quipu.v1.Groups/ListGroups",
    "/quipu.v1.Groups/DescribeGroup",
    "/quipu.v1.Groups/DeleteGroup",
    "/quipu.v1.Admin/InitCluster",
    "/quipu.v1.Admin/DescribeCluster",
    "/quipu.v1.Admin/Health",
    "/quipu.v1.Admin/CreateTopic",
    "/quipu.v1.Admin/ListTopics",
    "/quipu.v1.Admin/DescribeTopic",
    "/quipu.v1.Admin/AlterTopic",
    "/quipu.v1.Admin/DeleteTopic",
    "/quipu.v1.Admin/DescribeReplica",
    "/quipu.v1.Admin/MoveLeader",
    "/quipu.v1.Admin/NoSuchMethod",
    "/quipu.peer.v1.Peer/Hello",
    "/quipu.peer.v1.Peer/Adopt",
    "/quipu.peer.v1.Peer/Join",
    "/quipu.peer.v1.Peer/Beat",
    "/quipu.peer.v1.Peer/ProposeMetadata",
    "/quipu.peer.v1.Raft/AppendEntries",
    "/quipu.peer.v1.Raft/Heartbeats",
    "/quipu.peer.v1.Raft/Vote",
    "/quipu.peer.v1.Raft/TransferLeader",
    "/quipu.peer.v1.Raft/InstallSnapshot",
    "/quipu.peer.v1.Raft/ReadIndex",
    "/quipu.peer.v1.Raft/ReadEntry",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/no.such.Service/Method",
];

/// Messages as they come.
#[derive(Clone)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Calls a method with messages of any bytes, and takes what comes, for a short while.
async fn call(channel: &Channel, method: &'static str, messages: Vec<Bytes>) {
    let mut grpc = Grpc::new(channel.clone());
    let call = async {
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(method);
        let request = tonic::Request::new(futures::stream::iter(messages));
        let answers = grpc.streaming(request, path, Raw).await;
        if let Ok(answers) = answers {
            let mut answers = answers.into_inner();
            while let Ok(Some(_)) = answers.message().await {}
        }
    };
    // Some answers never end, and that is right (a follow of an existing topic, say).
    drop(tokio::time::timeout(Duration::from_millis(500), call).await);
}

/// The same bytes in every run (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(length).collect()
    }

    /// Protobuf that is well-formed on the outside: fields of low numbers with any values.
    fn fields(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        for _ in 0..self.next() % 6 {
            let number = u8::try_from(self.next() % 12 + 1).unwrap();
            if self.next().is_multiple_of(2) {
                message.push(number << 3);
                let mut value = self.next() >> (self.next() % 64);
                while value >= 0x80 {
                    message.push(value.to_le_bytes()[0] | 0x80);
                    value >>= 7;
                }
                message.push(value.to_le_bytes()[0]);
            } else {
                let length = u8::try_from(self.next() % 24).unwrap();
                message.extend([(number << 3) | 2, length]);
                message.extend(self.bytes(length.into()));
            }
        }
        message
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_mean_nothing_are_refused_by_every_method() {
    let panics = count_panics();
    let node = Running::with_topic().await;
    let mut noise = Noise(42);
    let channel = &node.channel;
    for round in 0..12 {
        let calls = METHODS.map(|method| {
            let messages = match round {
                0 => vec![Bytes::new()],
                1 => Vec::new(),
                2 => vec![Bytes::from_static(&[0xff; 64])],
                _ if round % 2 == 0 => vec![noise.bytes(100).into(), noise.bytes(9).into()],
                _ => vec![noise.fields().into(), noise.fields().into(), noise.fields().into()],
            };
            call(channel, method, messages)
        });
        futures::future::join_all(calls).await;
    }
    node.must_work().await;
    assert_eq!(count_panics(), panics);
    node.stop().await;
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An HTTP/2 frame whose length may be a lie.
fn frame(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

async fn send(address: &str, bytes: &[u8]) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The node may hang up at any byte.
    drop(socket.write_all(bytes).await);
    drop(socket.shutdown().await);
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    drop(tokio::time::timeout(Duration::from_millis(300), read).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_http2_are_refused_and_the_port_stays_open() {
    let panics = count_panics();
    let node = Running::with_topic().await;
    let mut noise = Noise(7);
    let settings = frame(0, 4, 0, 0, &[]);
    let mut cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        PREFACE[..10].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &noise.bytes(200)].concat(),
        // A frame that claims 16 MiB; data for a stream that was never opened; headers that are
        // no headers; a window update of nothing; settings of half an entry.
        [PREFACE, &settings, &frame(0xff_ffff, 0, 0, 1, &[0; 32])].concat(),
        [PREFACE, &settings, &frame(5, 0, 0, 3, &[0; 5])].concat(),
        [PREFACE, &settings, &frame(8, 1, 4, 1, &[0xff; 8])].concat(),
        [PREFACE, &settings, &frame(4, 8, 0, 0, &[0; 4])].concat(),
        [PREFACE, &frame(3, 4, 0, 0, &[0; 3])].concat(),
    ];
    cases.extend((0..40).map(|length| noise.bytes(length * 13)));
    cases.extend((0..40).map(|length| [PREFACE, &settings, &noise.bytes(length * 7)].concat()));
    for case in &cases {
        send(&node.address, case).await;
    }
    node.must_work().await;
    assert_eq!(count_panics(), panics);
    node.stop().await;
}
