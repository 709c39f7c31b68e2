//! One of three nodes is left.

use std::time::{Duration, Instant};

use holdfast_chaos_tests::checkers;
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::{BootInstant, Cluster, LabError};
use holdfast_types::{Code, ContainerSpec};

/// What a person waits for an answer, and a little for the machine.
const ANSWER_LIMIT: Duration = Duration::from_millis(5_500);

/// I12: a minority grants nothing, so its containers stop by lease; and it says so when asked.
#[test]
fn a_minority_says_no_quorum_and_its_containers_stop() -> Result<(), LabError> {
    Rig::play("t-minority", On::Follower, 0, scenario)
}

fn scenario(rig: &Rig) -> Result<(), LabError> {
    let others = rig.others()?;
    let cut = BootInstant::now();
    others.iter().try_for_each(|node| rig.lab().kill(node).map(drop))?;
    let both_gone = BootInstant::now();

    let survivor = Cluster::at(rig.lab(), rig.node())?;
    let spec = ContainerSpec { image: Some(rig.stage.image.clone()), ..ContainerSpec::default() };
    let name = "another".parse().map_err(|_| LabError::LabName(None))?;
    let asked = Instant::now();
    let refused = survivor.ask(async |s| s.create(&name, &spec, true, None).await.map(drop));
    let took = asked.elapsed();
    assert_eq!(refused.map_err(|e| e.code()), Err(Code::NoQuorum));
    assert!(took <= ANSWER_LIMIT, "the answer took {took:?}");

    checkers::stopped_in_time(rig, both_gone)?;
    others.iter().try_for_each(|node| rig.lab().power_on(node))?;
    checkers::answers_again(rig, BootInstant::now())?;
    checkers::never_two(rig);
    assert!(rig.scene.probe.last_before(cut).is_some());
    Ok(())
}
