//! Answers, and the moment from which they count (DESIGN section 5 rule 1).
//!
//! A lease ends at `s + T`, where `s` is a moment before the heartbeat left. Taken any later, the
//! leader's silence could make this node lost while it still believes in its lease. So the only way
//! to the guardian's [`Grant`] is through [`Asked::of`], which notes the moment and then asks.

use holdfast_fence::boottime_ns;
use holdfast_fence::protocol::Grant;

/// An answer, and a moment before it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked<T> {
    sent_ns: u64,
    answer: T,
}

impl<T> Asked<T> {
    /// Asks. Nothing of a future has happened, so nothing was sent, before it is awaited here.
    pub(crate) async fn of(question: impl Future<Output = T>) -> Self {
        let sent_ns = boottime_ns();
        Self { sent_ns, answer: question.await }
    }
}

impl<T, E> Asked<Result<T, E>> {
    /// The answer, still with its moment, or the refusal, which counts from nowhere.
    pub(crate) fn granted(self) -> Result<Asked<T>, E> {
        Ok(Asked { sent_ns: self.sent_ns, answer: self.answer? })
    }
}

impl<T> Asked<T> {
    pub(crate) fn answer(&self) -> &T {
        &self.answer
    }

    /// A lease of this length by the answer.
    pub(crate) fn lease(&self, lease_ms: u64) -> Grant {
        let lease_ns = lease_ms.saturating_mul(1_000_000);
        Grant { sent_ns: self.sent_ns, deadline_ns: self.sent_ns.saturating_add(lease_ns) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// I8, rule 1: however long the heartbeat takes to the leader and the answer back, the lease
    /// ends `T` after a moment at which the heartbeat had not left.
    #[tokio::test]
    async fn a_slow_answer_makes_no_lease_longer() {
        let leader = async {
            let arrived_ns = boottime_ns();
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, ()>(arrived_ns)
        };
        let before_ns = boottime_ns();
        let asked = Asked::of(leader).await.granted().unwrap();
        let Grant { sent_ns, deadline_ns } = asked.lease(3_000);
        assert!((before_ns..=*asked.answer()).contains(&sent_ns), "{asked:?}");
        assert_eq!(deadline_ns, sent_ns + 3_000_000_000);
    }

    /// I27: a length that no leader grants is the guardian's to refuse.
    #[tokio::test]
    async fn an_absurd_length_does_not_wrap() {
        let asked = Asked::of(std::future::ready(())).await;
        assert_eq!(asked.lease(u64::MAX).deadline_ns, u64::MAX);
    }
}
