//! `quipu consume`: a member of a group that prints what it gets.
//!
//! What is printed was flushed BEFORE the next records are asked for, and only what was asked on
//! from is committed: a consumer that is killed has printed everything that it committed.

use std::pin::pin;

use quipu_client::{GroupConfig, GroupConsumer, Listener, PartitionEvent};
use tokio::time::timeout;

use crate::args::{ConsumeArgs, GlobalArgs};
use crate::commands::connect;
use crate::commands::group::places_text;
use crate::commands::printer::{self, Printer};
use crate::failure::Failure;
use crate::interrupts::Interrupts;

pub(super) async fn run(global: &GlobalArgs, args: ConsumeArgs) -> anyhow::Result<()> {
    let format = printer::format(global.output, args.format.as_ref())?;
    let mut printer = Printer::new(format, args.count);
    let mut interrupts = Interrupts::listen()?;
    let client = connect(global).await?;
    let config = GroupConfig {
        instance_id: args.instance.clone(),
        client: format!("quipu consume, process {}", std::process::id()),
        session_timeout: args.session,
        start: args.from,
        listener: (!args.quiet).then(|| Listener::new(tell)),
        ..GroupConfig::new(&args.group, &args.topics)
    };
    let mut consumer = client.group_consumer(config)?;
    let ended = tokio::select! {
        ended = consume(&mut consumer, &args, &mut printer) => ended,
        () = interrupts.next() => Err(Failure::Interrupted.into()),
    };
    let is_printed = ended.as_ref().map_or_else(|error| error.is::<Failure>(), |()| true);
    if !is_printed {
        // The last records may have got nowhere, so they are left to others.
        consumer.leave().await;
        return ended;
    }
    let closed = consumer.close().await;
    ended?;
    Ok(closed?)
}

async fn consume(
    consumer: &mut GroupConsumer,
    args: &ConsumeArgs,
    printer: &mut Printer,
) -> anyhow::Result<()> {
    while !printer.is_done() {
        let next = async {
            // Of a batch that is printed in part, the rest would be committed, too.
            match args.count {
                Some(_) => consumer.next().await.map(|record| vec![record]),
                None => consumer.next_batch().await,
            }
        };
        let mut next = pin!(next);
        let records = match args.idle_exit {
            None => next.await,
            Some(idle) => match timeout(idle, &mut next).await {
                Ok(records) => records,
                Err(_) => return Ok(()),
            },
        };
        match records {
            Ok(records) => {
                printer.print(&records)?;
                printer.flush()?;
            }
            Err(error) if error.retriable() => note(&format!("{error}; consuming goes on")),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn tell(event: PartitionEvent<'_>) {
    let (what, places) = match event {
        PartitionEvent::Assigned(places) => ("got", places),
        PartitionEvent::Revoked(places) => ("gave up", places),
        PartitionEvent::Lost(places) => ("lost, since the session had ended,", places),
    };
    note(&format!("{what} {}", places_text(places)));
}

#[allow(clippy::print_stderr, reason = "what happens to the member is no record")]
fn note(text: &str) {
    eprintln!("# {text}");
}
