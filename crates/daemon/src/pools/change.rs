//! The later life of a pool of driver lvm: changed while it is used, checked, mended.
//!
//! Which pool it is does not change with it: LVM keeps the uuid of a group that another is split off
//! or merged into, and that of a thin pool that grows, moves or is repaired. So what was written down
//! when the pool was made (`pool.json`) stays true, whenever an interruption comes.

use std::sync::atomic::Ordering;

use holdfast_storage::Error;
use holdfast_storage::lvm::LvmRecord;
use holdfast_storage::lvm::admin::{self, Finding, Progress, Request, Severity};
use holdfast_types::Code;

use super::Pools;
use crate::config::PoolDriver;
use crate::machine::{MachineError, PoolChange, PoolNews};
use crate::survey;

impl Pools {
    /// Changes the pool, or finishes a change that was interrupted.
    pub(crate) fn change(
        &self,
        asked: &PoolChange,
        tell: &mut dyn FnMut(PoolNews),
    ) -> Result<(), MachineError> {
        let record = self.made()?;
        let _changing = self.begin_change()?;
        survey::check(&record)?;
        let (group, thin_pool) = survey::names(&record)?;
        let request = Request { group, thin_pool, change: asked.change.clone() };
        let plan = admin::plan(&request, &admin::look(&request).map_err(MachineError::from)?)
            .map_err(Error::from)?;
        tell_plan(&plan, tell);
        let offline = plan.takes_out_of_use();
        if offline {
            self.keep_closed(&record)?;
        }
        let done = match asked.dry_run {
            true => Ok(()),
            false => run(&plan, tell),
        };
        if offline {
            self.mending.store(false, Ordering::SeqCst);
        }
        Ok(done?)
    }

    /// Lets nobody open the pool from here on; refuses if it is open.
    fn keep_closed(&self, record: &LvmRecord) -> Result<(), MachineError> {
        let open = self.opened();
        if open.is_none() {
            self.mending.store(true, Ordering::SeqCst);
            return Ok(());
        }
        Err(MachineError {
            code: Code::InUse,
            message: format!(
                "{}/{} is damaged and open: stop this node's containers, then holdfastd, and start it \
                 again; it does not open a damaged pool, and repairs it then",
                record.vg, record.thin_pool
            ),
        })
    }

    /// What is wrong with the pool. What cannot be asked because of that is no failure.
    pub(crate) fn check(&self) -> Result<Vec<Finding>, MachineError> {
        let record = self.made()?;
        let (group, thin_pool) = survey::names(&record)?;
        let open = self.opened().clone().and_then(|open| open.lvm);
        let mut findings = admin::check(&group, &thin_pool, open.as_deref())?;
        let mut broken = |text| findings.push(Finding { severity: Severity::Broken, text });
        if let Err(error) = survey::check(&record) {
            broken(MachineError::from(error).message);
        }
        if let Some(trouble) = self.trouble() {
            broken(format!("it is not open, and this node stores and runs nothing: {trouble}"));
        }
        Ok(findings)
    }

    /// The pool that was made here.
    fn made(&self) -> Result<LvmRecord, MachineError> {
        self.refuse_other_drivers()?;
        self.record()?.ok_or_else(|| MachineError {
            code: Code::NoPool,
            message: "this node has no pool: holdfast pool create".into(),
        })
    }

    /// A pool of another driver is a directory, and that is whose administrator's.
    pub(super) fn refuse_other_drivers(&self) -> Result<(), MachineError> {
        match self.config.driver {
            PoolDriver::Lvm => Ok(()),
            PoolDriver::None => Err(MachineError {
                code: Code::WrongState,
                message: "its configuration says driver none: a witness has no pool".into(),
            }),
            PoolDriver::Xfs => Err(MachineError {
                code: Code::WrongState,
                message:
                    "its configuration says driver xfs: set driver = \"lvm\" in [pool], and start \
                          holdfastd again"
                        .into(),
            }),
        }
    }
}

/// Plans a change, tells the plan, and does it, unless only the plan was asked for.
pub(super) fn carry_out(
    request: &Request,
    dry_run: bool,
    tell: &mut dyn FnMut(PoolNews),
) -> Result<(), Error> {
    let plan = admin::plan(request, &admin::look(request)?)?;
    tell_plan(&plan, tell);
    match dry_run {
        true => Ok(()),
        false => run(&plan, tell),
    }
}

fn tell_plan(plan: &admin::Plan, tell: &mut dyn FnMut(PoolNews)) {
    tell(PoolNews::Plan(plan.steps.iter().map(ToString::to_string).collect()));
}

fn run(plan: &admin::Plan, tell: &mut dyn FnMut(PoolNews)) -> Result<(), Error> {
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    admin::run(plan, &mut |progress| {
        tell(match progress {
            Progress::Begun(at) => PoolNews::Began(place(at)),
            Progress::Part(_, percent) => PoolNews::Said(format!("{percent} %")),
            Progress::Done(at) => PoolNews::Done(place(at)),
        });
    })
}

#[cfg(test)]
mod tests {
    use holdfast_storage::lvm::admin::Change;

    use super::super::tests::{pools, record};
    use super::*;

    fn refused(pools: &Pools) -> [Code; 2] {
        let asked = PoolChange { change: Change::Repair, dry_run: true };
        let changed = pools.change(&asked, &mut |_| panic!("there is no plan"));
        [changed.unwrap_err().code, pools.check().unwrap_err().code]
    }

    #[test]
    fn what_is_no_pool_of_lvm_is_not_changed() {
        let (none, _dir) = pools("lvm");
        assert_eq!(refused(&none), [Code::NoPool; 2]);
        let (xfs, _dir) = pools("xfs");
        assert_eq!(refused(&xfs), [Code::WrongState; 2]);
    }

    #[test]
    fn one_change_comes_at_a_time() {
        let (pools, _dir) = pools("lvm");
        record().store(&pools.record_file()).unwrap();
        let _first = pools.begin_change().unwrap();
        let asked = PoolChange { change: Change::Repair, dry_run: true };
        let second = pools.change(&asked, &mut |_| ()).unwrap_err();
        assert_eq!(second.code, Code::InUse);
    }
}
