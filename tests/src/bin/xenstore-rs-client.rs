//! A client that uses `xenstore-rs`, the library that guest agents use; its store is named by `XENSTORED_PATH`.
//! Ends with status 0 if everything was answered as it must be.
#![forbid(unsafe_code)]

use std::io::{Error, Result};

use xenstore_rs::Xs;
use xenstore_rs::unix::XsUnix;

fn main() -> Result<()> {
    let store = XsUnix::new()?;
    store.write("/xenstore-rs/a", "one")?;
    store.write("/xenstore-rs/b", "two")?;
    expect("read", &store.read("/xenstore-rs/a")?, "one")?;
    let names = store.directory("/xenstore-rs")?;
    expect("directory", &names.join(","), "a,b")?;
    store.rm("/xenstore-rs")?;
    match store.read("/xenstore-rs/a") {
        Err(_) => Ok(()),
        Ok(value) => Err(Error::other(format!("a removed node reads as {value:?}"))),
    }
}

fn expect(what: &str, have: &str, want: &str) -> Result<()> {
    if have == want { Ok(()) } else { Err(Error::other(format!("{what}: {have:?} instead of {want:?}"))) }
}
