//! Nodes and containers as network namespaces. A namespace here has no name: it lives exactly as
//! long as the thread inside it, so nothing is left behind, however a test ends.

use std::future::Future;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A network namespace with a thread in it that runs a tokio runtime of its own: netlink and
/// packet sockets belong to the namespace of the thread that opens them.
pub(crate) struct Netns {
    jobs: tokio::sync::mpsc::UnboundedSender<Job>,
    path: PathBuf,
}

impl Netns {
    pub(crate) fn new() -> Self {
        let (jobs, mut inbox) = tokio::sync::mpsc::unbounded_channel::<Job>();
        let (ready, path) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
            let tid = nix::unistd::gettid();
            let path = format!("/proc/{}/task/{tid}/ns/net", std::process::id());
            ready.send(PathBuf::from(path)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            tokio::task::LocalSet::new().block_on(&runtime.unwrap(), async move {
                while let Some(job) = inbox.recv().await {
                    tokio::task::spawn_local(job());
                }
            });
        });
        let ns = Self { jobs, path: path.recv().expect("the thread came up") };
        ns.exec("ip link set lo up");
        ns
    }

    /// Runs a future inside, and waits for what it returns. What it spawns goes on after it.
    pub(crate) fn run<T, F>(&self, job: impl FnOnce() -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (answer, wait) = mpsc::channel();
        let job: Job = Box::new(move || {
            Box::pin(async move {
                let _ = answer.send(job().await);
            })
        });
        assert!(self.jobs.send(job).is_ok(), "the namespace's thread is gone");
        wait.recv_timeout(Duration::from_secs(20)).expect("the job ends")
    }

    /// Runs a command inside and returns what it answered.
    pub(crate) fn try_exec(&self, command: &str) -> Output {
        let path = self.path.clone();
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let inside = move || {
            let ns = std::fs::File::open(path).unwrap();
            setns(ns, CloneFlags::CLONE_NEWNET).unwrap();
            Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output().unwrap()
        };
        std::thread::spawn(inside).join().unwrap()
    }

    /// Runs a command inside that must succeed; returns its standard output.
    pub(crate) fn exec(&self, command: &str) -> String {
        let out = self.try_exec(command);
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{command}: {errors}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Whether the address answers, with time for ports that have just come up.
    pub(crate) fn reaches(&self, address: Ipv4Addr) -> bool {
        self.try_exec(&format!("ping -n -c 1 -w 10 {address}")).status.success()
    }

    /// Whether one echo request gets its answer within a second.
    pub(crate) fn pings(&self, address: Ipv4Addr) -> bool {
        self.try_exec(&format!("ping -n -c 1 -W 1 {address}")).status.success()
    }

    /// Moves one of this namespace's devices into another, under a new name, and configures it
    /// the way that LXC does for a container. Without IPv6, whose neighbour discovery would teach
    /// the bridges what the tests are about.
    pub(crate) fn give(&self, device: &str, to: &Netns, name: &str, cidr: &str) {
        self.exec(&format!("ip link set {device} netns {}", to.path.display()));
        to.exec(&format!("ip link set {device} name {name}"));
        to.exec(&format!("ip addr add {cidr} dev {name}"));
        to.exec(&format!("ip link set {name} addrgenmode none"));
        to.exec(&format!("ip link set {name} up"));
    }
}

/// Nodes with the underlay addresses 10.0.0.1, 10.0.0.2, … on one switch.
pub(crate) struct Underlay {
    pub(crate) nodes: Vec<Netns>,
    _switch: Netns,
}

impl Underlay {
    pub(crate) fn new(count: u8) -> Self {
        let switch = Netns::new();
        switch.exec("ip link add sw type bridge");
        switch.exec("ip link set sw up");
        let node = |n: u8| {
            let node = Netns::new();
            switch.exec(&format!("ip link add p{n} type veth peer name u{n}"));
            switch.exec(&format!("ip link set p{n} master sw up"));
            switch.give(&format!("u{n}"), &node, "eth0", &format!("10.0.0.{n}/24"));
            node
        };
        Self { nodes: (1..=count).map(node).collect(), _switch: switch }
    }
}

/// Polls until the condition holds or the deadline passes; returns how long it took.
pub(crate) fn wait_for(
    deadline: Duration,
    mut condition: impl FnMut() -> bool,
) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < deadline {
        if condition() {
            return Some(start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}
