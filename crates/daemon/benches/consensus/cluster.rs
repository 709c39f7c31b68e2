//! What both clusters look like to the load.

use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_proto::Dialer;
use holdfast_trust::{Bundle, Expected, TlsClient};
use tonic::Status;
use tonic::transport::Channel;

use crate::process::Process;

/// How many nodes each cluster has.
pub(crate) const NODES: usize = 3;

/// How many objects are written and read, each of [`VALUE_BYTES`].
pub(crate) const OBJECTS: u64 = 64;

/// What an object holds.
pub(crate) const VALUE_BYTES: usize = 1024;

/// How long a cluster may take to be whole.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Three processes, and how one writes to them and reads from them.
pub(crate) trait Cluster: Send + Sync + 'static {
    /// In the names of figures.
    const NAME: &str;

    /// Where each node answers, `host:port`.
    fn addresses(&self) -> &[String];

    /// How they are reached.
    fn dialer(&self) -> &Dialer;

    /// The nodes' processes, in the order of the addresses.
    fn processes(&mut self) -> &mut [Process];

    /// Their ids, in the same order; fails if one has ended.
    fn pids(&mut self) -> Result<Vec<u32>> {
        self.processes().iter_mut().map(Process::pid).collect()
    }

    /// Writes the object, and returns once that is durable on a majority.
    fn write(
        channel: Channel,
        object: u64,
        value: String,
    ) -> impl Future<Output = Result<(), Status>> + Send;

    /// Reads the object, linearizably; fails if it does not hold [`VALUE_BYTES`].
    fn read(channel: Channel, object: u64) -> impl Future<Output = Result<(), Status>> + Send;

    /// Which node leads, as seen by any that runs.
    fn leader(&self) -> impl Future<Output = Result<usize>> + Send;

    /// Returns once every node takes part.
    fn ready(&self) -> impl Future<Output = Result<()>> + Send;
}

/// A connection that is made when first used, by mutual TLS. The same for both clusters.
pub(crate) fn connect(dialer: &Dialer, address: &str) -> Result<Channel> {
    Ok(dialer.lazy(&address.parse().context("an address")?, Duration::from_secs(1)))
}

/// How to reach nodes that believe that key.
pub(crate) fn dialer(own: &Bundle) -> Result<Dialer> {
    let cluster = own.certificate.principal()?.cluster();
    let expected = Expected { cluster, member: true, roster: None };
    Ok(Dialer::tls(TlsClient::new(own, expected)?))
}

/// The `n`-th value that is written: no two in a row are the same.
pub(crate) fn value(n: u64) -> String {
    let mut text = format!("{n:020} ");
    text.extend(std::iter::repeat_n('v', VALUE_BYTES - text.len()));
    text
}

/// Asks again until the answer is yes.
pub(crate) async fn wait_until<F: Future<Output = Result<bool>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Result<()> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if tokio::time::Instant::now() > end {
            return answer.and(Err(anyhow::anyhow!("in vain"))).with_context(|| what.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
