//! What can go wrong with a lab, each with its stable code.

use std::path::{Path, PathBuf};

use holdfast_types::{Code, NameError};

/// A refusal or failure of the lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces and cgroups need root.
    #[error("a lab needs root: run it with sudo")]
    NotRoot,
    /// A program that the lab drives is not installed.
    #[error("{program} is not installed: apt-get install {package}")]
    MissingTool {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// One of Holdfast's own programs is nowhere near this one.
    #[error("{program} was not found in {}", dir.display())]
    MissingProgram {
        /// The program.
        program: &'static str,
        /// Where it should have been.
        dir: PathBuf,
    },
    /// A program refused.
    #[error("{command} failed: {message}")]
    Tool {
        /// The command line.
        command: String,
        /// The last lines of its standard error.
        message: String,
    },
    /// A file could not be read, written, made or removed.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried, such as "cannot write".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A system call failed.
    #[error("{what}")]
    Sys {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: nix::errno::Errno,
    },
    /// A name that is no RFC 1123 label of at most 24 characters.
    #[error("a lab's name is an RFC 1123 label of at most 24 characters")]
    LabName(#[source] Option<NameError>),
    /// No such lab is up.
    #[error("no lab named {0:?} is up: holdfast lab up")]
    NoLab(String),
    /// A lab of that name is up already.
    #[error("a lab named {0:?} is up already: holdfast lab down")]
    AlreadyUp(String),
    /// The lab has no such node.
    #[error("the lab has no node {node:?}; it has {have}")]
    NoNode {
        /// The name given.
        node: String,
        /// The names there are.
        have: String,
    },
    /// The node is on and should be off, or the other way round.
    #[error("node {node} is {is}")]
    Power {
        /// The node.
        node: String,
        /// What it is.
        is: &'static str,
    },
    /// The service has no process at the moment.
    #[error("{service} does not run on node {node}")]
    NotRunning {
        /// The node.
        node: String,
        /// The service.
        service: &'static str,
    },
    /// The directory holds something that is not this lab's.
    #[error("{} is not empty and not a lab's directory", .0.display())]
    ForeignDir(PathBuf),
    /// A number of nodes that makes no cluster, or more than the fabric has addresses for.
    #[error("a lab has 1 to 7 voters (an odd number) and at most 200 nodes; {0} were asked for")]
    NodeCount(usize),
    /// Not one disk a node.
    #[error("name one disk for each node: there are {nodes} nodes and {devices} disks")]
    DeviceCount {
        /// How many nodes there are to be.
        nodes: usize,
        /// How many disks were named.
        devices: usize,
    },
    /// A file of the lab is damaged.
    #[error("{} is damaged: {why}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s")]
    Deadline {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
    },
    /// The cluster refused; its own code and words.
    #[error("{message}")]
    Cluster {
        /// The cluster's code.
        code: Code,
        /// The cluster's words.
        message: String,
    },
}

impl LabError {
    /// The stable code of this failure.
    pub fn code(&self) -> Code {
        match self {
            Self::NotRoot => Code::NotRoot,
            Self::MissingTool { .. } | Self::MissingProgram { .. } => Code::MissingTool,
            Self::Tool { .. } | Self::Sys { .. } => Code::Internal,
            Self::Io { .. } => Code::DiskIo,
            Self::LabName(_) => Code::InvalidName,
            Self::NoLab(_) | Self::NoNode { .. } => Code::NotFound,
            Self::AlreadyUp(_) => Code::AlreadyExists,
            Self::Power { .. } | Self::NotRunning { .. } => Code::WrongState,
            Self::ForeignDir(_) => Code::InUse,
            Self::NodeCount(_) | Self::DeviceCount { .. } => Code::InvalidArgument,
            Self::Corrupt { .. } => Code::Corrupt,
            Self::Deadline { .. } => Code::Timeout,
            Self::Cluster { code, .. } => *code,
        }
    }

    /// For `map_err` on file operations.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// For `map_err` on system calls.
    pub(crate) fn sys(what: &'static str) -> impl FnOnce(nix::errno::Errno) -> Self {
        move |source| Self::Sys { what, source }
    }
}
