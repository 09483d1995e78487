//! What a node says, over its port, to requests that it can't do as asked: each has an error of
//! its own that tells what to do. And what it does with bytes that are no requests: it goes on.

#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

mod appends;
mod cluster;
mod garbage;
mod groups;
mod many_nodes;
mod reads;
mod running;
mod topics;
