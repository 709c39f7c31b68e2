//! `holdfast create`.

use clap::Args;
use holdfast_types::{
    ByteSize, ContainerName, ContainerSpec, DataVolume, ImageName, Limits, NodeName, Protection,
};

use super::Context;
use super::container::{Waiting, finish};
use crate::error::CliError;
use crate::output::show;
use crate::values::{Cpus, DurationArg, EnvVar};
use crate::view::ContainerView;

const EXAMPLES: &str = "\
Examples:
  holdfast create web --image busybox
  holdfast create db --image debian12 --disk 10GiB --memory 1GiB --cpus 2 --replicate-every 1s
  holdfast create db --image debian12 --volume data=50GiB:/var/lib/postgresql
  holdfast create job --image busybox --env LEVEL=9 -- /bin/sh -c 'exec /bin/work'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Create {
    /// The new container's name: a-z, 0-9 and '-'
    name: ContainerName,
    /// The image that its disk is cloned from
    #[arg(long)]
    image: ImageName,
    /// Size of its disk
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    disk: ByteSize,
    /// A volume beside its disk, one set with it in every copy; may be repeated
    #[arg(long, value_name = "NAME=SIZE:PATH")]
    volume: Vec<DataVolume>,
    /// Most memory that it may use [default: no limit]
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Most CPU time that it may use, in cores [default: no limit]
    #[arg(long, value_name = "CORES")]
    cpus: Option<Cpus>,
    /// Most processes and threads that it may have [default: no limit]
    #[arg(long, value_name = "N")]
    pids: Option<u32>,
    /// Never move it, and keep it running whatever the cluster does
    #[arg(long)]
    pinned: bool,
    /// Copies of its disk, the one in use included
    #[arg(long, default_value_t = 2, value_name = "N")]
    copies: u8,
    /// How often its disk is replicated
    #[arg(long, default_value = "5s", value_name = "DURATION")]
    replicate_every: DurationArg,
    /// How old the best copy may be for a takeover that nobody approves
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    max_data_loss: DurationArg,
    /// Takeovers go from the highest to the lowest
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_name = "N")]
    priority: i32,
    /// Environment of its init; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<EnvVar>,
    /// The node to place it on [default: the best one]
    #[arg(long)]
    node: Option<NodeName>,
    /// Create it, but do not start it
    #[arg(long)]
    stopped: bool,
    #[command(flatten)]
    waiting: Waiting,
    /// What to run as init instead of the image's own
    #[arg(last = true)]
    command: Vec<String>,
}

impl Create {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let spec = self.spec();
        spec.check()?;
        let (accepted, operation) =
            context.session.create(&self.name, &spec, self.stopped, self.node.as_ref()).await?;
        finish(context, operation, self.waiting).await?;
        if self.waiting.no_wait {
            let view = ContainerView::from(accepted);
            return show(context.format, &view, || view.sentence());
        }
        context.print_container(&self.name).await
    }

    fn spec(&self) -> ContainerSpec {
        let env = self.env.iter().map(|var| (var.name.clone(), var.value.clone()));
        ContainerSpec {
            image: Some(self.image.clone()),
            disk: self.disk,
            limits: Limits {
                memory: self.memory,
                cpu_milli: self.cpus.map(|cpus| cpus.milli),
                pids: self.pids,
            },
            protection: if self.pinned { Protection::Pinned } else { Protection::Protected },
            copies: self.copies,
            replicate_every_ms: self.replicate_every.millis(),
            max_data_loss_ms: self.max_data_loss.millis(),
            priority: self.priority,
            command: self.command.clone(),
            env: env.collect(),
            volumes: self.volume.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn create(line: &str) -> Box<Create> {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Create(create) => create,
            other => panic!("parsed as {other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_spec() {
        let image = Some("i".parse().unwrap());
        let expected = ContainerSpec { image, ..ContainerSpec::default() };
        assert_eq!(create("holdfast create web --image i").spec(), expected);
    }

    #[test]
    fn every_option_reaches_the_spec() {
        let line = "holdfast create web --image i --disk 2GiB --memory 64MiB --cpus 0.5 --pids 99 \
                    --pinned --copies 1 --replicate-every 1s --max-data-loss 2m --priority -3 \
                    --env A=1 --env B=x=y --volume data=50GiB:/srv --volume logs=1GiB:/var/log --node n1 --stopped --no-wait -- /bin/sh -c ls";
        let create = create(line);
        let spec = create.spec();
        assert_eq!(spec.limits.cpu_milli, Some(500));
        assert_eq!(spec.limits.memory, Some(ByteSize::mib(64)));
        assert_eq!((spec.copies, spec.priority), (1, -3));
        assert_eq!((spec.replicate_every_ms, spec.max_data_loss_ms), (1_000, 120_000));
        assert_eq!(spec.env["B"], "x=y");
        let volumes: Vec<_> = spec.volumes.iter().map(ToString::to_string).collect();
        assert_eq!(volumes, ["data=50GiB:/srv", "logs=1GiB:/var/log"]);
        assert_eq!(spec.command, ["/bin/sh", "-c", "ls"]);
        assert_eq!(spec.protection, Protection::Pinned);
        assert!(create.stopped && create.waiting.no_wait);
        assert_eq!(spec.check(), Ok(()));
    }
}
