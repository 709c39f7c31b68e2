//! One of three nodes is left.

use std::time::{Duration, Instant};

use holdfast_chaos_tests::checkers;
use holdfast_chaos_tests::rig::{On, Rig};
use holdfast_lab::{BootInstant, Cluster, LabError};
use holdfast_types::{Code, ContainerName, ContainerSpec, ImageName};

/// What a person waits for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// I12: a minority grants nothing, so its containers stop by lease; and it says so when asked.
#[test]
fn a_minority_says_no_quorum_and_its_containers_stop() -> Result<(), LabError> {
    Rig::play("t-minority", On::Follower, 0, |rig| scenario(rig, rig.node()))
}

/// I12: so does a leader that is left alone, and does not know it yet.
#[test]
fn a_leader_left_alone_says_no_quorum_and_its_containers_stop() -> Result<(), LabError> {
    Rig::play("t-alone", On::Leader, 0, |rig| scenario(rig, rig.node()))
}

fn scenario(rig: &Rig, survivor: &str) -> Result<(), LabError> {
    let others = rig.others()?;
    let cut = BootInstant::now();
    others.iter().try_for_each(|node| rig.lab().kill(node).map(drop))?;
    let both_gone = BootInstant::now();
    // At once, and once more when it has been alone for a while.
    every_write_is_refused(rig, survivor)?;
    checkers::stopped_in_time(rig, both_gone)?;
    every_write_is_refused(rig, survivor)?;

    others.iter().try_for_each(|node| rig.lab().power_on(node))?;
    checkers::answers_again(rig, BootInstant::now())?;
    checkers::never_two(rig);
    assert!(rig.scene.probe.last_before(cut).is_some());
    Ok(())
}

type Write<'a> = (&'static str, Box<dyn Fn(&Cluster) -> Result<(), LabError> + Send + 'a>);

/// All of them at a time, each asked by a client of its own.
fn every_write_is_refused(rig: &Rig, survivor: &str) -> Result<(), LabError> {
    let writes = writes(rig)?;
    std::thread::scope(|scope| {
        let mut asked = Vec::new();
        for (what, write) in writes {
            let client = Cluster::at(rig.lab(), survivor);
            asked.push(scope.spawn(move || {
                let begun = Instant::now();
                (what, client.and_then(|client| write(&client)), begun.elapsed())
            }));
        }
        for asked in asked {
            let (what, answer, took) = asked.join().expect("an answer");
            assert_eq!(answer.map_err(|e| e.code()), Err(Code::NoQuorum), "{what}");
            assert!(took <= ANSWER_LIMIT, "{what}: the answer took {took:?}");
        }
    });
    Ok(())
}

/// Everything that changes a cluster of nodes that are there. (One more joins in the daemon's own
/// tests: `a_survivor_alone_says_no_quorum_within_five_seconds`.)
fn writes(rig: &Rig) -> Result<Vec<Write<'_>>, LabError> {
    let bad = |_| LabError::LabName(None);
    let another: ContainerName = "another".parse().map_err(bad)?;
    let other_image: ImageName = "other".parse().map_err(bad)?;
    let web = &rig.stage.container;
    let image = &rig.stage.image;
    let spec = ContainerSpec { image: Some(image.clone()), ..ContainerSpec::default() };
    Ok(vec![
        (
            "create",
            Box::new(move |c| {
                c.ask(async |s| s.create(&another, &spec, true, None).await.map(drop))
            }),
        ),
        ("start", Box::new(move |c| c.ask(async |s| s.start(web, None).await.map(drop)))),
        ("stop", Box::new(move |c| c.ask(async |s| s.stop(web, None).await.map(drop)))),
        ("rm", Box::new(move |c| c.ask(async |s| s.delete(web, true, None).await.map(drop)))),
        (
            "takeover approve",
            Box::new(move |c| c.ask(async |s| s.decide_takeover(web, true, None).await.map(drop))),
        ),
        ("image import", Box::new(move |c| c.import(&other_image, b"no tar").map(drop))),
        ("image rm", Box::new(move |c| c.ask(async |s| s.delete_image(image, None).await))),
    ])
}
