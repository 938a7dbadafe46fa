//! Where the stock daemons are, and the library that runs them without Xen.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result, system};

const SOURCE: &str = include_str!("../fakexen/fakexen.c");
const BIN: &str = "usr/lib/xen-4.17/bin";

/// Debian's Xen 4.17, installed or unpacked by `deploy/packages test`.
#[derive(Clone, Debug)]
pub struct Installation {
    root: PathBuf,
    headers: PathBuf,
    cache: PathBuf,
}

impl Installation {
    /// Looks where `XEN_TOOLS` points, in the cache of `deploy/packages`, and in `/`.
    ///
    /// # Errors
    /// [`Error::Missing`] if there are no daemons or no headers.
    pub fn find() -> Result<Self> {
        let cache = cache();
        let mut roots = Vec::new();
        if let Some(tools) = std::env::var_os("XEN_TOOLS").map(PathBuf::from)
            && tools.ends_with(BIN)
        {
            roots.extend(tools.ancestors().nth(4).map(Path::to_path_buf));
        }
        roots.extend([cache.join("xen"), PathBuf::from("/")]);
        let having = |file: &str| roots.iter().find(|root| root.join(file).exists()).cloned();
        let missing = |what| Error::Missing(what, roots.clone());
        let root = having(&format!("{BIN}/oxenstored")).ok_or_else(|| missing("Xen 4.17's oxenstored"))?;
        let headers = having("usr/include/xenctrl.h").ok_or_else(|| missing("Xen's xenctrl.h"))?;
        Ok(Self { root, headers: headers.join("usr/include"), cache: cache.join("peers") })
    }

    /// A program of Xen's own directory.
    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join(BIN).join(name)
    }

    /// Xen's libraries, for `LD_LIBRARY_PATH`.
    pub fn libraries(&self) -> PathBuf {
        self.root.join("usr/lib/x86_64-linux-gnu")
    }

    /// oxenstored's stock configuration; empty if there is none.
    pub(crate) fn oxenstored_conf(&self) -> String {
        std::fs::read_to_string(self.root.join("etc/xen/oxenstored.conf")).unwrap_or_default()
    }

    /// The library to preload, built at first use and when its source changes.
    ///
    /// # Errors
    /// If gcc is missing or refuses, or the cache cannot be written.
    pub fn fakexen(&self) -> Result<PathBuf> {
        let (library, source) = (self.cache.join("fakexen.so"), self.cache.join("fakexen.c"));
        std::fs::create_dir_all(&self.cache).map_err(system(self.cache.display().to_string()))?;
        let lock = std::fs::File::create(self.cache.join("lock")).map_err(system("the cache's lock"))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(system("lock the cache"))?;
        let same = std::fs::read_to_string(&source).is_ok_and(|text| text == SOURCE);
        if !(same && library.exists()) {
            self.build(&source, &library)?;
        }
        Ok(library)
    }

    /// The source is written once the library is there, so its presence means that the library is of it.
    fn build(&self, source: &Path, library: &Path) -> Result<()> {
        let (fresh, built) = (source.with_extension("new.c"), library.with_extension("new"));
        std::fs::write(&fresh, SOURCE).map_err(system(fresh.display().to_string()))?;
        let output = Command::new("gcc")
            .args(["-shared", "-fPIC", "-O1", "-w", "-I"])
            .arg(&self.headers)
            .arg("-o")
            .arg(&built)
            .arg(&fresh)
            .arg("-ldl")
            .output()
            .map_err(Error::NoCompiler)?;
        if !output.status.success() {
            return Err(Error::Compile(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        std::fs::rename(&built, library).map_err(system(library.display().to_string()))?;
        std::fs::rename(&fresh, source).map_err(system(source.display().to_string()))
    }
}

fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(|| "/root".into(), PathBuf::from);
    std::env::var_os("PPVMM_CACHE").map_or_else(|| home().join(".cache/ppvmm"), PathBuf::from)
}
