//! Facts that nodes have established: one entry each, in order.

use holdfast_core::{Command, RecordReport};
use holdfast_proto::internal::{ReportRequest, ReportResponse};
use holdfast_types::{Code, Incarnation, NodeId, Report, RequestId};
use uuid::Uuid;

use super::request_id;
use crate::fault::Fault;
use crate::member::Lead;

/// At most so many reports at once.
const MAX_REPORTS: usize = 1_024;

/// Records every report. One that is refused does not keep the others back; the first refusal is
/// the answer.
pub(super) async fn record(lead: Lead, request: ReportRequest) -> Result<ReportResponse, Fault> {
    if request.reports.len() > MAX_REPORTS {
        let message = format!("more than {MAX_REPORTS} reports at once");
        return Err(Fault::new(Code::TooLarge, message));
    }
    let (node, incarnation) = (NodeId(request.node_id), Incarnation(request.incarnation));
    let first = request_id(&request.request_id)?;
    let reports = request.reports.iter().map(|bytes| {
        rmp_serde::from_slice::<Report>(bytes)
            .map_err(|e| Fault::new(Code::InvalidArgument, format!("a report cannot be read: {e}")))
    });
    let mut refusal = None;
    for (number, report) in reports.collect::<Result<Vec<_>, _>>()?.into_iter().enumerate() {
        let command = Command::RecordReport(RecordReport { node, incarnation, report });
        match lead.propose(nth(first, number), command).await {
            Ok(_) => {}
            Err(fault) if is_refusal(fault.code) => {
                refusal.get_or_insert(fault);
            }
            Err(fault) => return Err(fault),
        }
    }
    refusal.map_or(Ok(ReportResponse {}), Err)
}

/// Each report is a request of its own; their ids follow from the first, so that all are known
/// again when the call is repeated.
fn nth(first: RequestId, number: usize) -> RequestId {
    RequestId(Uuid::from_u128(first.0.as_u128().wrapping_add(number as u128)))
}

/// Whether the state refused, in contrast to not having been asked.
fn is_refusal(code: Code) -> bool {
    !matches!(
        code,
        Code::NotLeader | Code::NoQuorum | Code::Timeout | Code::Unavailable | Code::DiskIo
    )
}
