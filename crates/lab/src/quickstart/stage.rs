//! The lab, the cluster on it and the image: what all rounds share.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_proto::v1;
use holdfast_types::{ByteSize, ContainerName, ImageName, NameError};

use super::Narrator;
use super::options::{ImageKind, QuickstartOptions, Target};
use crate::LabError;
use crate::cluster::Cluster;
use crate::lab::Lab;
use crate::observe::Observer;
use crate::plan::Part;
use crate::record::{NodeRecord, Purpose};
use crate::scoped::ScopedLab;
use crate::up::UpOptions;
use crate::workload::{busybox_rootfs, check_mmdebstrap, debian_rootfs};

/// The rehearsed container's name.
const CONTAINER: &str = "web";
/// A Debian image has 200 MB, and every node gets it.
const SPREAD_LIMIT: Duration = Duration::from_secs(120);
const CLEAR_LIMIT: Duration = Duration::from_secs(60);

/// A lab with a formed cluster, an image, and an observer. It goes down when dropped.
#[derive(Debug)]
pub struct Stage {
    lab: ScopedLab,
    /// A client of the cluster.
    pub cluster: Cluster,
    /// Who watches what runs.
    pub observer: Observer,
    /// What containers are made of.
    pub image: ImageName,
    /// How large their disks are.
    pub disk: ByteSize,
    /// What the rehearsed container is called.
    pub container: ContainerName,
    /// Where the nodes' logs are left when something goes wrong.
    logs: Option<PathBuf>,
}

impl Stage {
    /// Makes all of it.
    pub fn set(options: &QuickstartOptions, narrator: &Narrator) -> Result<Self, LabError> {
        if options.image == ImageKind::Debian12 {
            check_mmdebstrap()?;
        }
        let replace = replaceable(&options.name)?;
        let up = UpOptions {
            dir: options.dir.clone(),
            workers: usize::from(options.kill == Some(Target::Worker)),
            devices: options.devices.clone(),
            pace: options.pace,
            replace,
            purpose: Purpose::Rehearsal,
            ..UpOptions::new(&options.name, options.programs.clone())
        };
        narrator.say(format_args!("bringing up a lab of {} nodes", up.voters + up.workers));
        let lab = ScopedLab::up(&up)?;
        let formed = lab.form_cluster();
        if let Err(error) = formed {
            show_logs(&lab);
            leave_logs(&lab, options.logs.as_deref());
            return Err(error);
        }
        let cluster = Cluster::of(&lab)?;
        let status = cluster.ask(async |s| s.status().await)?;
        narrator.say(format_args!("the cluster is formed; {} leads", status.leader));
        let observer = Observer::start(lab.layout(), lab.pace())?;
        let image = import(&lab, &cluster, options.image, narrator)?;
        let everywhere = up.voters + up.workers;
        cluster.wait_for("the image on every node", lab.pace().of(SPREAD_LIMIT), async |s| {
            let held = s.images().await?.into_iter().any(|i| i.nodes.len() >= everywhere);
            Ok(held.then_some(()))
        })?;
        let least = match options.image {
            ImageKind::Busybox => ByteSize::mib(128),
            ImageKind::Debian12 => ByteSize::gib(1),
        };
        Ok(Self {
            lab,
            cluster,
            observer,
            image: name(&image.name)?,
            disk: least.max(ByteSize(image.size_bytes)),
            container: name(CONTAINER)?,
            logs: options.logs.clone(),
        })
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(super) fn keep(self) {
        self.lab.keep();
    }

    /// Removes the round's container, and waits until it is gone everywhere.
    pub fn clear(&self, narrator: &Narrator) -> Result<(), LabError> {
        let container = &self.container;
        self.cluster.ask(async |s| s.delete(container, true, None).await)?;
        self.cluster.wait_for(
            "the removal of the container",
            self.lab.pace().of(CLEAR_LIMIT),
            async |s| Ok(s.containers().await?.is_empty().then_some(())),
        )?;
        narrator.say("the container is removed");
        Ok(())
    }

    /// Prints the end of every node's logs on standard error, and leaves all of them where they are
    /// wanted.
    pub fn show_logs(&self) {
        show_logs(&self.lab);
        leave_logs(&self.lab, self.logs.as_deref());
    }
}

/// A rehearsal's lab may be replaced by the next one's; a lab that somebody made may not.
fn replaceable(name: &str) -> Result<bool, LabError> {
    match Lab::open(name).and_then(|lab| lab.record()) {
        Ok(record) if record.purpose == Purpose::Rehearsal => Ok(true),
        Ok(_) => Err(LabError::AlreadyUp(name.to_owned())),
        Err(LabError::NoLab(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a name of ours.
pub(super) fn name<T: std::str::FromStr<Err = NameError>>(text: &str) -> Result<T, LabError> {
    text.parse()
        .map_err(|e: NameError| LabError::Cluster { code: e.code(), message: e.to_string() })
}

fn import(
    lab: &Lab,
    cluster: &Cluster,
    kind: ImageKind,
    narrator: &Narrator,
) -> Result<v1::Image, LabError> {
    let (title, bytes) = match kind {
        ImageKind::Busybox => ("busybox", busybox_rootfs()?),
        ImageKind::Debian12 => {
            narrator.say("building a Debian 12 root filesystem (about 20 s)");
            ("debian12", debian_rootfs(lab)?)
        }
    };
    let image = cluster.import(&name(title)?, &bytes)?;
    narrator.say(format_args!("image {title}: {} entries", image.entries));
    Ok(image)
}

/// The logs of every node's services, each with its node's name.
fn logs(lab: &Lab) -> Vec<(String, PathBuf)> {
    let nodes = lab.record().map(|r| r.nodes).unwrap_or_default();
    let of = |node: &NodeRecord, part: Part| {
        let path = lab.layout().node_dir(&node.name).join(format!("{}.log", part.unit()));
        (node.name.clone(), path)
    };
    nodes
        .iter()
        .flat_map(|node| [Part::Guardian, Part::Daemon].map(|part| of(node, part)))
        .collect()
}

/// The end of every node's logs, when something went wrong.
fn show_logs(lab: &Lab) {
    const TAIL: u64 = 6000;
    for (_, path) in logs(lab) {
        let Ok(mut file) = File::open(&path) else { continue };
        let length = file.metadata().map_or(0, |m| m.len());
        let _ =
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(length.saturating_sub(TAIL)));
        let mut text = Vec::new();
        let _ = file.read_to_end(&mut text);
        eprintln!("--- the end of {}\n{}", path.display(), String::from_utf8_lossy(&text));
    }
}

/// All of them, as `NODE-SERVICE.log`. Something went wrong already: what cannot be copied is said
/// and changes nothing.
fn leave_logs(lab: &Lab, dir: Option<&Path>) {
    let Some(dir) = dir else { return };
    let copy = |(node, path): (String, PathBuf)| {
        let Some(name) = path.file_name().map(|name| name.to_string_lossy()) else { return Ok(()) };
        fs::copy(&path, dir.join(format!("{node}-{name}"))).map(drop)
    };
    let copied = fs::create_dir_all(dir).and_then(|()| logs(lab).into_iter().try_for_each(copy));
    if let Err(error) = copied {
        eprintln!("the nodes' logs could not all be left in {}: {error}", dir.display());
    }
}
