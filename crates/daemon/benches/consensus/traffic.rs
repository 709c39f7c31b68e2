//! Durable writes and linearizable reads, by clients at work at a time; both clusters in turns.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::etcd::Etcd;
use crate::holdfast::Holdfast;
use crate::load::{self, Question};
use crate::{Measured, Plan, say};

/// Clients at work at a time.
pub(crate) const CLIENTS: [usize; 3] = [1, 64, 1_000];

/// What one load leaves to do in the background is not to be the next one's burden.
const PAUSE: Duration = Duration::from_millis(500);

/// Measures both.
pub(crate) async fn measure(
    ours: &Holdfast,
    theirs: &Etcd,
    plan: &Plan,
    measured: &mut Measured,
) -> Result<()> {
    for round in 1..=plan.rounds {
        for question in [Question::Write, Question::Read] {
            for clients in CLIENTS {
                say(&format!("round {round}: {question:?}, {clients} clients"));
                // Who comes first alternates.
                if round % 2 == 1 {
                    one(ours, question, clients, plan, measured).await?;
                    one(theirs, question, clients, plan, measured).await?;
                } else {
                    one(theirs, question, clients, plan, measured).await?;
                    one(ours, question, clients, plan, measured).await?;
                }
            }
        }
    }
    Ok(())
}

async fn one<C: Cluster>(
    cluster: &C,
    question: Question,
    clients: usize,
    plan: &Plan,
    measured: &mut Measured,
) -> Result<()> {
    let load = load::run(cluster, question, clients, plan.span).await?;
    let what = match question {
        Question::Write => "write",
        Question::Read => "read",
    };
    let name = |of: &str| format!("{}_{what}_{clients}_{of}", C::NAME);
    say(&format!(
        "  {:<8} {:>8.0}/s, p50 {:.2} ms, p99 {:.2} ms, {} errors",
        C::NAME,
        load.rate,
        load.p50_ms,
        load.p99_ms,
        load.errors
    ));
    measured.add(name("rate"), load.rate);
    measured.add(name("p50_ms"), load.p50_ms);
    measured.add(name("p99_ms"), load.p99_ms);
    measured.add(name("errors"), load.errors as f64);
    tokio::time::sleep(PAUSE).await;
    Ok(())
}
