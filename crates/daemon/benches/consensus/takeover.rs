//! How long nobody can write after the leader's process was killed.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cluster::{Cluster, NODES, OBJECTS, connect, value};
use crate::{Measured, say};

/// A write is tried so often, at each survivor.
const EVERY: Duration = Duration::from_millis(10);

/// One try.
const LIMIT: Duration = Duration::from_secs(4);

/// All of them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills the leader, and takes the time until a write that was begun afterwards is answered.
pub(crate) async fn measure<C: Cluster>(
    cluster: &mut C,
    round: u32,
    measured: &mut Measured,
) -> Result<()> {
    cluster.ready().await?;
    // At another moment of the heartbeats' period each time.
    tokio::time::sleep(Duration::from_millis(1_500 + u64::from(round) * 137 % 500)).await;
    let leader = cluster.leader().await?;
    let survivors: Vec<_> = (0..NODES).filter(|node| *node != leader).collect();
    let addresses =
        survivors.iter().map(|node| connect(cluster.dialer(), &cluster.addresses()[*node]));
    let channels = addresses.collect::<Result<Vec<_>>>()?;
    for channel in &channels {
        C::write(channel.clone(), 0, value(u64::from(round))).await?;
    }
    let killed = Instant::now();
    cluster.processes()[leader].kill()?;
    let mut tries = JoinSet::new();
    let mut due = interval(EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = u64::from(round) << 32;
    let served = async {
        loop {
            tokio::select! {
                _ = due.tick() => for channel in &channels {
                    number += 1;
                    let write = C::write(channel.clone(), number % OBJECTS, value(number));
                    tries.spawn(tokio::time::timeout(LIMIT, write));
                },
                Some(Ok(Ok(Ok(())))) = tries.join_next() => return killed.elapsed(),
            }
        }
    };
    let served = tokio::time::timeout(PATIENCE, served).await;
    let served_s = served.context("no new leader serves writes")?.as_secs_f64();
    say(&format!("{}: a new leader serves writes after {served_s:.2} s", C::NAME));
    measured.add(format!("{}_new_leader_s", C::NAME), served_s);
    tries.shutdown().await;
    cluster.processes()[leader].again()?;
    cluster.ready().await
}
