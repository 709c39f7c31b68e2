//! A cluster with one protected container that serves, ready for harm.

use holdfast_lab::quickstart::{Narrator, QuickstartOptions, Scene, Stage, Target};
use holdfast_lab::{Lab, LabError, Programs};

/// A stage and the scene on it.
#[derive(Debug)]
pub struct Rig {
    /// The lab, its cluster, and the observer.
    pub stage: Stage,
    /// The container and who asks it.
    pub scene: Scene,
}

/// Which node the container is put on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The Raft leader.
    Leader,
    /// A voter that does not lead.
    Follower,
}

impl Rig {
    /// Three voters in a lab of this name, and a container that replicates every second and
    /// rewrites so many bytes each second besides its records.
    fn with_noise(name: &str, on: On, noise_bytes_per_s: u64) -> Result<Self, LabError> {
        let narrator = Narrator::default();
        let kill = match on {
            On::Leader => Target::Leader,
            On::Follower => Target::Follower,
        };
        let options = QuickstartOptions {
            kill: Some(kill),
            ..QuickstartOptions::new(name, Programs::find()?)
        };
        let stage = Stage::set(&options, &narrator)?;
        let scene = || -> Result<Scene, LabError> {
            let status = stage.cluster.ask(async |s| s.status().await)?;
            let fits = |leads: bool| leads == (on == On::Leader);
            let node = status.nodes.iter().find(|n| fits(n.leader));
            let node = node.map(|n| n.name.clone()).unwrap_or_default();
            Scene::set(&stage, &narrator, &node, Some(1_000), noise_bytes_per_s)
        };
        match scene() {
            Ok(scene) => Ok(Self { scene, stage }),
            Err(error) => {
                stage.show_logs();
                Err(error)
            }
        }
    }

    /// Plays a scenario on a new rig. Whatever it fails with, the nodes' logs are shown.
    pub fn play(
        name: &str,
        on: On,
        noise_bytes_per_s: u64,
        scenario: impl FnOnce(&Rig) -> Result<(), LabError>,
    ) -> Result<(), LabError> {
        let rig = Self::with_noise(name, on, noise_bytes_per_s)?;
        scenario(&rig).inspect_err(|_| rig.stage.show_logs())
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        self.stage.lab()
    }

    /// The node that the container was put on.
    pub fn node(&self) -> &str {
        &self.scene.node
    }

    /// The other nodes' names.
    pub fn others(&self) -> Result<Vec<String>, LabError> {
        let nodes = self.lab().record()?.nodes.into_iter().map(|n| n.name);
        Ok(nodes.filter(|n| n != self.node()).collect())
    }
}

/// On the way out of a failed test, what the nodes had to say.
impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stage.show_logs();
        }
    }
}
