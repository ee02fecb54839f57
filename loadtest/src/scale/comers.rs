//! Connections that come, make one call and go, beside open ones from many addresses: what the table of addresses costs a newcomer.

use std::io;

use super::super::process::{Running, TOKEN};
use super::super::report::{Axis, Chart, Column, Section, Series, Table};
use super::Bench;
use super::client::{self, Client, PlainCall};
use super::connections::{self, Trips};
use super::crowd::{Kind, address};
use super::point;

/// Open connections from different addresses.
const CONNECTED: [usize; 3] = [1, 1_000, 15_000];

/// Connections that are opened, used for one call and closed, a point a round, of the calls of other points.
const CHURN_SHARE: u64 = 5;

/// Connections that are open from different addresses, while others come, make a call, and go, from addresses beyond those.
pub(super) fn sweep(bench: &mut Bench<'_>, upstream: &Running) -> io::Result<Section> {
    let mut seen = Vec::new();
    for (name, kind) in [("from as many addresses", Kind::Addresses), ("from sixteen addresses", Kind::Http)] {
        let gateway = connections::gateway(bench, upstream)?;
        let call = PlainCall::new(gateway.address)?;
        let authorization = client::authorization(TOKEN);
        let (mut comers, mut request) = (1_000_000, Vec::new());
        let churn = (bench.args.calls / CHURN_SHARE).max(1);
        let points = connections::points(bench, &CONNECTED);
        let trips = connections::trips(bench, &gateway, kind, points, false, |gateway| {
            point::around(gateway, churn, || {
                for _ in 0..churn {
                    comers += 1;
                    let mut client = Client::connect(gateway.address, Some(address(comers)))?;
                    call.write(&mut request, comers, authorization.as_bytes());
                    client.send(&request)?;
                    client.receive(|response, body| call.check(comers, response, body))?;
                }
                Ok(())
            })
        })?;
        seen.push((name, trips));
    }
    Ok(shown(&seen))
}

fn shown(kinds: &[(&str, Trips)]) -> Section {
    let columns = vec![
        Column::new("CPU a connection with one call", "µs", 2),
        Column::new("to one open, round by round", "", 3),
        Column::new("connections/s", "", 0),
    ];
    let mut table = Table::new("open connections", columns);
    let axes = (Axis::log("open connections"), Axis::linear("CPU a connection with one call, µs"));
    let mut chart = Chart::new("CPU of a connection that comes and goes", axes.0, axes.1);
    for (name, trips) in kinds {
        let Some(one) = trips.rounds.first() else { continue };
        let mut points = Vec::new();
        for (open, rounds) in trips.points.iter().zip(&trips.rounds) {
            table.row(format!("{name}: {}", super::keys::count(*open as u64)), rounds.cells(one));
            points.push(rounds.point(*open as f64));
        }
        chart = chart.series(Series::new(*name, points));
    }
    Section::new("Addresses of open connections")
        .note(
            "Beside connections that stand, others come, make one call and go, each from an address that has none open. What differs between the two kinds \
             is how many addresses the table of open connections holds.",
        )
        .table(table)
        .chart(chart)
}
