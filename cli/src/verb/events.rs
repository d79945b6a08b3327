//! What happens in the cluster, as it comes.

use crate::args::EventsArgs;
use crate::failure::Failure;
use crate::output::{Format, put, render_one};
use crate::session::Session;
use crate::view;
use yard_client::WatchItem;
use yard_proto::v1;

/// Prints what happens in the cluster.
pub(crate) async fn events(session: &Session, args: &EventsArgs) -> Result<u8, Failure> {
    let upto = match args.follow {
        true => u64::MAX,
        false => session.client.status(v1::StatusRequest { brief: true }).await?.applied_index,
    };
    let from_index = args.from.unwrap_or(if args.follow { 0 } else { 1 });
    let watch = |from_index| {
        session.client.events(v1::EventsRequest { from_index, ..v1::EventsRequest::default() })
    };
    let mut events = watch(from_index);
    // Lists of events have no end, so the forms for whole documents are written line by line.
    let format = match session.format {
        Format::Json | Format::Yaml | Format::Csv => Format::Jsonl,
        other => other,
    };
    while let Some(item) = events.next().await? {
        match item {
            WatchItem::Event(event) if event.index > upto => return Ok(0),
            WatchItem::Event(event) => {
                let (row, line) = view::event::row(&event);
                put(&render_one("Event", &row, &line, format))?;
            }
            WatchItem::Progress(index) if index >= upto => return Ok(0),
            WatchItem::Progress(_) => {}
            // Nobody named an index: all that is still known was meant.
            WatchItem::Compacted { first_index } if args.from.is_none() => {
                events = watch(first_index);
            }
            WatchItem::Compacted { first_index } => {
                let hint = format!("yard events --from {first_index}");
                let message = format!("events before index {first_index} are not kept any more");
                return Err(Failure::new(crate::failure::exit::REFUSED, message, hint));
            }
        }
    }
    Ok(0)
}
