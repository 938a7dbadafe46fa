//! The nodes of a network interface, as libxl makes them.

use hypervisor::DomId;
use xs_protocol::{MessageType, XsError};

use crate::net::Mac;
use crate::{Error, Result, Toolstack, Tx, XenbusState};

/// A network interface of a guest, as its toolstack sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vif {
    /// The guest.
    pub domid: DomId,
    /// The domain of its backend.
    pub backend: DomId,
    /// Its number in the guest.
    pub handle: u32,
    /// Its address.
    pub mac: Mac,
    /// The bridge that the backend is to connect it to.
    pub bridge: String,
    /// The hotplug script.
    pub script: String,
    /// Whether to say that the hotplug script ran, where nobody runs it.
    pub is_hotplugged: bool,
}

impl Vif {
    /// The first interface of a guest, with a backend in domain 0 and an address of its own.
    pub fn new(domid: DomId, handle: u32) -> Self {
        let [high, low] = domid.0.to_be_bytes();
        let last = handle.to_be_bytes()[3];
        Self {
            domid,
            backend: DomId::DOM0,
            handle,
            // Xen's own range (00:16:3e).
            mac: Mac([0x00, 0x16, 0x3e, high, low, last]),
            bridge: "xenbr0".to_owned(),
            script: "/etc/xen/scripts/vif-bridge".to_owned(),
            is_hotplugged: true,
        }
    }

    /// The frontend's directory.
    pub fn frontend_path(&self) -> String {
        format!("/local/domain/{}/device/vif/{}", self.domid, self.handle)
    }

    /// The backend's directory.
    pub fn backend_path(&self) -> String {
        format!("/local/domain/{}/backend/vif/{}/{}", self.backend, self.domid, self.handle)
    }

    fn frontend_nodes(&self) -> Vec<(&'static str, String)> {
        vec![
            ("backend", self.backend_path()),
            ("backend-id", self.backend.to_string()),
            ("state", XenbusState::Initialising.number().to_string()),
            ("handle", self.handle.to_string()),
            ("mac", self.mac.to_string()),
            ("mtu", "1500".to_owned()),
        ]
    }

    fn backend_nodes(&self) -> Vec<(&'static str, String)> {
        let mut nodes = vec![
            ("frontend", self.frontend_path()),
            ("frontend-id", self.domid.to_string()),
            ("online", "1".to_owned()),
            ("state", XenbusState::Initialising.number().to_string()),
            ("script", self.script.clone()),
            ("mac", self.mac.to_string()),
            ("bridge", self.bridge.clone()),
            ("handle", self.handle.to_string()),
            ("type", "vif".to_owned()),
            ("mtu", "1500".to_owned()),
        ];
        if self.is_hotplugged {
            nodes.push(("hotplug-status", "connected".to_owned()));
        }
        nodes
    }
}

impl Toolstack {
    /// Makes both directories of an interface at once, each owned by its own domain and readable by the other.
    ///
    /// # Errors
    /// What the store refuses.
    pub fn add_vif(&mut self, vif: &Vif) -> Result<()> {
        let (front, back) = (vif.frontend_path(), vif.backend_path());
        self.transaction(|toolstack, tx| {
            toolstack.directory(tx, &front, vif.domid, vif.backend, &vif.frontend_nodes())?;
            toolstack.directory(tx, &back, vif.backend, vif.domid, &vif.backend_nodes())
        })
    }

    /// Asks the backend to close an interface, as at an orderly removal: [`Self::remove_vif`] is to follow once the backend's
    /// state is `Closed`.
    ///
    /// # Errors
    /// What the store refuses.
    pub fn close_vif(&mut self, vif: &Vif) -> Result<()> {
        let path = vif.backend_path();
        self.transaction(|toolstack, tx| {
            toolstack.set(tx, &path, "online", "0")?;
            toolstack.set(tx, &path, "state", &XenbusState::Closing.number().to_string())
        })
    }

    /// Removes both directories of an interface at once; no error if they are gone.
    ///
    /// # Errors
    /// What the store refuses.
    pub fn remove_vif(&mut self, vif: &Vif) -> Result<()> {
        let paths = [vif.frontend_path(), vif.backend_path()];
        self.transaction(|toolstack, tx| paths.iter().try_for_each(|path| toolstack.remove(tx, path)))
    }

    fn directory(
        &mut self,
        tx: Tx,
        path: &str,
        owner: DomId,
        reader: DomId,
        nodes: &[(&str, String)],
    ) -> Result<()> {
        self.remove(tx, path)?;
        self.request_in(tx, MessageType::MKDIR, format!("{path}\0").as_bytes())?;
        // What is made below takes them over.
        let perms = format!("{path}\0n{owner}\0r{reader}\0");
        self.request_in(tx, MessageType::SET_PERMS, perms.as_bytes())?;
        nodes.iter().try_for_each(|(key, value)| self.set(tx, path, key, value))
    }

    fn set(&mut self, tx: Tx, path: &str, key: &str, value: &str) -> Result<()> {
        self.request_in(tx, MessageType::WRITE, format!("{path}/{key}\0{value}").as_bytes()).map(drop)
    }

    fn remove(&mut self, tx: Tx, path: &str) -> Result<()> {
        match self.request_in(tx, MessageType::RM, format!("{path}\0").as_bytes()) {
            Ok(_) | Err(Error::Store(XsError::ENOENT)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
