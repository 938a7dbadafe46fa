//! One measurement.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use net_stand::Endpoint;
use sim_guest::net::traffic::now_ns;

use crate::error::{Error, Result};
use crate::limits::{DRAIN_MAX, DRAINED, START_WAIT, WARM_UP};
use crate::lines::{Line, Way, names};
use crate::setup::{Near, Order, Setup, Usage};

/// What a measurement gives, by the names of the figures.
pub type Values = BTreeMap<&'static str, f64>;

/// How things stand at some moment.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    at_ns: u64,
    sent: u64,
    received: u64,
    usage: Usage,
}

/// The account of all frames, once none is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ledger {
    sent: u64,
    received: u64,
    doubled: u64,
    reordered: u64,
    corrupt: u64,
    /// Frames that somebody dropped and counted.
    counted: u64,
}

/// Runs a line on a contender for `time`.
pub fn measure(order: Order<'_>, time: Duration) -> Result<Values> {
    let line = order.line;
    let mut setup = Setup::start(order)?;
    setup.set_sending(line, true)?;
    wait_for_frames(&mut setup, line)?;
    std::thread::sleep(WARM_UP);
    setup.far.take_latencies();
    let before = moment(&mut setup, line)?;
    std::thread::sleep(time);
    let after = moment(&mut setup, line)?;
    let trips = setup.far.take_latencies();
    setup.set_sending(line, false)?;
    drain(&mut setup, line)?;
    let ledger = ledger(setup, line)?;
    let mut values = rates(line, before, after);
    if line.way == Way::RoundTrip {
        let [median, p99, _] = trips.summary_us();
        values.insert(names::MEDIAN, median);
        values.insert(names::P99, p99);
    }
    account(&mut values, ledger);
    Ok(values)
}

/// An interface that was just made carries nothing at first.
fn wait_for_frames(setup: &mut Setup, line: &Line) -> Result<()> {
    let began = Instant::now();
    while moment(setup, line)?.received == 0 {
        if began.elapsed() > START_WAIT {
            return Err(Error::Late("the first frame"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn moment(setup: &mut Setup, line: &Line) -> Result<Moment> {
    let usage = setup.usage();
    let far = setup.far.seen();
    let moment = |sent, received| Moment { at_ns: now_ns(), sent, received, usage };
    Ok(match (&mut setup.near, line.way) {
        (_, Way::RoundTrip) => moment(far.sent, far.received),
        (Near::Endpoint { endpoint, .. }, Way::ToWire) => moment(endpoint.seen().sent, far.received),
        (Near::Endpoint { endpoint, .. }, Way::FromWire) => moment(far.sent, endpoint.seen().received),
        (Near::Guest { guest, .. }, Way::ToWire) => {
            let sent = guest.report()?.sent.frames;
            let received = setup.far.seen().received;
            Moment { at_ns: now_ns(), ..moment(sent, received) }
        }
        (Near::Guest { guest, .. }, Way::FromWire) => {
            let report = guest.report()?;
            Moment { at_ns: report.at_ns, ..moment(far.sent, report.received.received) }
        }
    })
}

/// Waits until nothing comes any more.
fn drain(setup: &mut Setup, line: &Line) -> Result<()> {
    let began = Instant::now();
    let (mut last, mut since) = (0, Instant::now());
    while began.elapsed() < DRAIN_MAX && since.elapsed() < DRAINED {
        std::thread::sleep(Duration::from_millis(10));
        let received = moment(setup, line)?.received;
        if received != last {
            (last, since) = (received, Instant::now());
        }
    }
    Ok(())
}

fn ledger(setup: Setup, line: &Line) -> Result<Ledger> {
    let Setup { near, far, .. } = setup;
    let (near_sent, near_received) = match near {
        Near::Guest { guest, mut backend, .. } => {
            let counted = backend.dropped()?;
            let report = guest.end()?;
            let received = &report.received;
            let account = Ledger {
                received: received.received,
                doubled: received.duplicated,
                reordered: received.reordered,
                corrupt: received.corrupt,
                counted,
                ..Ledger::default()
            };
            (report.sent.frames, account)
        }
        Near::Endpoint { endpoint, .. } => of_endpoint(endpoint)?,
    };
    let (far_sent, far_received) = of_endpoint(far)?;
    let counted = near_received.counted + far_received.counted;
    Ok(match line.way {
        Way::ToWire => Ledger { sent: near_sent, counted, ..far_received },
        Way::FromWire => Ledger { sent: far_sent, counted, ..near_received },
        Way::RoundTrip => Ledger { sent: far_sent, counted, ..far_received },
    })
}

fn of_endpoint(endpoint: Endpoint) -> Result<(u64, Ledger)> {
    let report = endpoint.end()?;
    let received = &report.received;
    let account = Ledger {
        received: received.received,
        doubled: received.duplicated,
        reordered: received.reordered,
        corrupt: received.corrupt,
        counted: report.dropped,
        ..Ledger::default()
    };
    Ok((report.sent, account))
}

/// One party's part of what was used.
type Share = fn(&Usage) -> u64;

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn rates(line: &Line, before: Moment, after: Moment) -> Values {
    let seconds = (after.at_ns - before.at_ns) as f64 / 1e9;
    let frames = (after.received - before.received) as f64;
    let per_frame = |of: Share| {
        let spent = of(&after.usage).saturating_sub(of(&before.usage)) as f64;
        (frames > 0.0).then(|| spent / frames)
    };
    let mut values = Values::new();
    values.insert(names::RATE, frames / seconds / 1e3);
    values.insert(names::BITS, frames * line.bytes as f64 * 8.0 / seconds / 1e6);
    values.insert(names::OFFERED, (after.sent - before.sent) as f64 / seconds / 1e3);
    let parties: [(&str, Share); 5] = [
        (names::BACKEND, |usage| usage.shadow + usage.driver + usage.keeper),
        (names::SHADOW, |usage| usage.shadow),
        (names::DRIVER, |usage| usage.driver),
        (names::KEEPER, |usage| usage.keeper),
        (names::ENDS, |usage| usage.ends),
    ];
    for (name, of) in parties {
        if let Some(spent) = per_frame(of).filter(|spent| *spent > 0.0) {
            values.insert(name, spent);
        }
    }
    values
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn account(values: &mut Values, ledger: Ledger) {
    let missing = ledger.sent as f64 - ledger.received as f64;
    values.insert(names::LOST, missing + ledger.corrupt as f64);
    values.insert(names::COUNTED, ledger.counted as f64);
    values.insert(names::MISSING, missing * 100.0 / ledger.sent.max(1) as f64);
    values.insert(names::DOUBLED, ledger.doubled as f64);
    values.insert(names::REORDERED, ledger.reordered as f64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::ALL;

    #[test]
    fn rates_are_of_what_came_and_times_for_each_of_it() {
        let usage = Usage { shadow: 300, driver: 200, keeper: 100, ends: 1000 };
        let after = Moment { at_ns: 2_000_000_000, sent: 3000, received: 2000, usage };
        let values = rates(&ALL[0], Moment { at_ns: 1_000_000_000, ..Moment::default() }, after);
        assert_eq!((values[names::RATE], values[names::OFFERED]), (2.0, 3.0));
        assert_eq!((values[names::BACKEND], values[names::SHADOW]), (0.3, 0.15));
        let bare = rates(&ALL[0], Moment::default(), Moment { usage: Usage::default(), ..after });
        assert!(!bare.contains_key(names::BACKEND), "nobody there is not nothing");
    }

    #[test]
    fn the_account_tells_what_is_missing() {
        let mut values = Values::new();
        account(
            &mut values,
            Ledger { sent: 200, received: 190, doubled: 1, reordered: 2, corrupt: 3, counted: 9 },
        );
        assert_eq!((values[names::LOST], values[names::MISSING]), (13.0, 5.0));
        assert_eq!((values[names::DOUBLED], values[names::REORDERED]), (1.0, 2.0));
        assert_eq!(values[names::COUNTED], 9.0);
    }
}
