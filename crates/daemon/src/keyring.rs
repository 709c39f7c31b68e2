//! This machine's key and certificate, and whom it believes: `<data_dir>/keys.pem`, for root alone,
//! replaced as a whole.
//!
//! ```text
//! none ──found, restore, join──▶ in force, then on disk ──renewal──▶ on disk, then in force
//! ```
//! A renewal that cannot be written changes nothing: the certificate before is good for a third of its
//! time yet. Connections that are there go on; new ones are made with what is in force.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use holdfast_agent::Standing;
use holdfast_core::standing;
use holdfast_proto::{Dialer, Dialers};
use holdfast_trust::{
    Bundle, Certificate, Expected, Principal, Roster, TlsClient, TlsServer, TrustError,
};
use holdfast_types::{ClusterId, NodeId};
use tokio::sync::watch;

use crate::error::DaemonError;
use crate::identity::Identity;

/// What is in force.
pub(crate) struct Ring {
    pub(crate) bundle: Bundle,
    cluster: ClusterId,
    pub(crate) server: TlsServer,
    nodes: TlsClient,
    members: TlsClient,
}

/// The keyring. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keyring {
    file: PathBuf,
    now: Arc<watch::Sender<Option<Arc<Ring>>>>,
    /// What heartbeats say of it.
    standing: Arc<Standing>,
    /// Whether a node is still of the cluster, once somebody here knows.
    known: Arc<RwLock<Option<Roster>>>,
}

fn knows(known: &RwLock<Option<Roster>>, node: NodeId) -> bool {
    let known = known.read().unwrap_or_else(PoisonError::into_inner).clone();
    known.is_none_or(|known| known(node))
}

impl Keyring {
    /// The one in that data directory, empty until [`Keyring::read`].
    pub(crate) fn new(data_dir: &Path) -> Self {
        let now = Arc::new(watch::Sender::new(None));
        Self {
            file: data_dir.join("keys.pem"),
            now,
            standing: Arc::default(),
            known: Arc::default(),
        }
    }

    /// Takes what is on disk, which must be of that node.
    pub(crate) fn read(&self, me: &Identity) -> Result<(), DaemonError> {
        let lost = "a node whose key is lost is removed from its cluster (holdfast node rm), and joins \
                    anew with a token";
        let corrupt = |what: String| DaemonError::Corrupt { file: self.file.clone(), what };
        let text = match fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(corrupt(format!("it is missing: {lost}")));
            }
            Err(source) => return Err(self.disk(source)),
        };
        let bundle = Bundle::from_pem(&text).map_err(|e| corrupt(format!("{e}: {lost}")))?;
        let who = bundle.certificate.principal().map_err(|e| corrupt(e.to_string()))?;
        if who.cluster() != me.cluster || who.node() != Some(me.node) {
            return Err(corrupt(format!("it is of {who}: {lost}")));
        }
        self.enforce(bundle)
    }

    /// Has it in force, and not on disk yet: its node is none yet.
    pub(crate) fn enforce(&self, bundle: Bundle) -> Result<(), DaemonError> {
        let ring = self.ring_of(bundle).map_err(|error| self.unusable(error))?;
        self.set(ring);
        Ok(())
    }

    /// Writes what is in force, durably.
    pub(crate) fn keep(&self) -> Result<(), DaemonError> {
        match self.ring() {
            Some(ring) => self.write(&ring.bundle),
            None => Ok(()),
        }
    }

    /// Writes it, and has it in force then.
    pub(crate) fn replace(&self, bundle: Bundle) -> Result<(), DaemonError> {
        let ring = self.ring_of(bundle).map_err(|error| self.unusable(error))?;
        self.write(&ring.bundle)?;
        self.set(ring);
        Ok(())
    }

    /// Forgets it: the machine has not become a node.
    pub(crate) fn discard(&self) -> Result<(), DaemonError> {
        self.now.send_replace(None);
        match fs::remove_file(&self.file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.disk(e)),
            _ => Ok(()),
        }
    }

    /// The cluster that it is of.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.now.borrow().as_ref().map(|ring| ring.cluster)
    }

    /// What is in force.
    pub(crate) fn ring(&self) -> Option<Arc<Ring>> {
        self.now.borrow().clone()
    }

    /// From now on that says which nodes are still of the cluster.
    pub(crate) fn know(&self, roster: Roster) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(roster);
    }

    /// This machine answers no more: what says who is of the cluster ends with it.
    pub(crate) fn retire(&self) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether that node is still of the cluster, as far as is known here.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        knows(&self.known, node)
    }

    /// Whom it believes, for heartbeats.
    pub(crate) fn standing(&self) -> Arc<Standing> {
        self.standing.clone()
    }

    /// How this machine calls others.
    pub(crate) fn dialers(&self) -> Dialers {
        let of = |choose: fn(&Ring) -> &TlsClient| {
            let keyring = self.clone();
            Dialer::following(move || keyring.ring().map(|ring| choose(&ring).clone()))
        };
        Dialers { nodes: of(|ring| &ring.nodes), members: of(|ring| &ring.members) }
    }

    fn set(&self, ring: Ring) {
        self.standing.set(standing(ring.bundle.authorities.iter().map(Certificate::der)));
        self.now.send_replace(Some(Arc::new(ring)));
    }

    fn ring_of(&self, bundle: Bundle) -> Result<Ring, TrustError> {
        let cluster = bundle.certificate.principal().map(|who: Principal| who.cluster())?;
        let client = |member| TlsClient::new(&bundle, self.expected(cluster, member));
        let (server, nodes, members) = (TlsServer::new(&bundle)?, client(false)?, client(true)?);
        Ok(Ring { bundle, cluster, server, nodes, members })
    }

    fn expected(&self, cluster: ClusterId, member: bool) -> Expected {
        // Not the keyring, which has what is made here.
        let known = self.known.clone();
        Expected { cluster, member, roster: Some(Arc::new(move |node| knows(&known, node))) }
    }

    fn write(&self, bundle: &Bundle) -> Result<(), DaemonError> {
        let temp = self.file.with_extension("new");
        let write = || {
            match fs::remove_file(&temp) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut options = File::options();
            let mut out = options.create_new(true).write(true).mode(0o600).open(&temp)?;
            out.write_all(bundle.to_pem().as_bytes())?;
            out.sync_all()?;
            fs::rename(&temp, &self.file)?;
            File::open(self.file.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        write().map_err(|source| self.disk(source))
    }

    fn disk(&self, source: io::Error) -> DaemonError {
        DaemonError::Disk { path: self.file.clone(), source }
    }

    fn unusable(&self, error: TrustError) -> DaemonError {
        DaemonError::Corrupt { file: self.file.clone(), what: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::NodeRole;
    use holdfast_trust::{Authority, LIFETIME, SecretKey, SigningRequest, Subject};
    use holdfast_types::Code;
    use std::os::unix::fs::MetadataExt;

    fn bundle(me: &Identity) -> Bundle {
        let now_s = (crate::clock::wall().0 / 1000).cast_signed();
        let authority = Authority::generate(me.cluster, now_s).unwrap();
        let key = SecretKey::generate().unwrap();
        let request = SigningRequest::from_der(&key.signing_request().unwrap()).unwrap();
        let principal = Principal::Member(me.cluster, me.node);
        let subject =
            Subject { principal, address: Some("127.0.0.1:7443".into()), name: "n1".into() };
        let certificate = authority.certify(&request, &subject, now_s, LIFETIME).unwrap();
        Bundle { key, certificate, authorities: vec![authority.certificate().clone()] }
    }

    fn me() -> Identity {
        Identity {
            cluster: ClusterId::generate(),
            node: NodeId(1),
            name: "n1".parse().unwrap(),
            role: NodeRole::Voter,
            address: "127.0.0.1:7443".into(),
            peers: Vec::new(),
        }
    }

    #[test]
    fn a_keyring_survives_a_restart_and_is_for_root_alone() {
        let (dir, me) = (tempfile::tempdir().unwrap(), me());
        let keyring = Keyring::new(dir.path());
        assert_eq!(keyring.read(&me).unwrap_err().code(), Code::Corrupt, "it is missing");
        keyring.replace(bundle(&me)).unwrap();
        let file = dir.path().join("keys.pem");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let again = Keyring::new(dir.path());
        again.read(&me).unwrap();
        let certificate = |keyring: &Keyring| keyring.ring().unwrap().bundle.certificate.clone();
        assert_eq!(certificate(&again), certificate(&keyring));
        let other = Identity { node: NodeId(2), ..me };
        assert_eq!(again.read(&other).unwrap_err().code(), Code::Corrupt);
        fs::write(&file, "nothing").unwrap();
        assert_eq!(again.read(&other).unwrap_err().code(), Code::Corrupt);
    }

    /// A full disk in the midst of a renewal.
    #[test]
    fn a_renewal_that_cannot_be_written_changes_nothing() {
        let (dir, me) = (tempfile::tempdir().unwrap(), me());
        let keyring = Keyring::new(dir.path());
        keyring.replace(bundle(&me)).unwrap();
        let before = keyring.ring().unwrap().bundle.to_pem();
        // No file can be made where a directory with something in it is.
        fs::create_dir(dir.path().join("keys.new")).unwrap();
        fs::write(dir.path().join("keys.new/x"), "x").unwrap();
        assert_eq!(keyring.replace(bundle(&me)).unwrap_err().code(), Code::DiskIo);
        assert_eq!(keyring.ring().unwrap().bundle.to_pem(), before);
        assert_eq!(fs::read_to_string(dir.path().join("keys.pem")).unwrap(), before);
    }
}
