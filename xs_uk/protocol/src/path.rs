//! Paths: validation, the base of relative ones, and their components.

use std::{borrow::Cow, fmt};

use crate::{DomId, XsError, limits::ABS_PATH_MAX};

/// The directory below which each domain has its own.
const DOMAINS: &str = "/local/domain/";

/// A valid path: absolute (`/…`) or special (`@…`), of permitted characters, without doubled or final slashes
/// and of at most [`ABS_PATH_MAX`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path<'a>(&'a str);

impl<'a> Path<'a> {
    /// The root `/`.
    pub const ROOT: Path<'static> = Path("/");

    /// Parses an absolute or special path.
    ///
    /// # Errors
    /// `EINVAL` if it is not valid.
    pub fn parse(raw: &'a [u8]) -> Result<Path<'a>, XsError> {
        if !matches!(raw.first(), Some(b'/' | b'@')) || raw.len() > ABS_PATH_MAX || !well_formed(raw) {
            return Err(XsError::EINVAL);
        }
        std::str::from_utf8(raw).map(Path).map_err(|_| XsError::EINVAL)
    }

    /// The path's text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The path's bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.as_bytes()
    }

    /// Whether this is the root.
    pub fn is_root(self) -> bool {
        self.0 == "/"
    }

    /// Whether this is a special path (`@…`).
    pub fn is_special(self) -> bool {
        self.0.starts_with('@')
    }

    /// The components from the top: `/a/b` gives `a`, `b`; `@x/5` gives `@x`, `5`; the root gives none.
    pub fn components(self) -> impl DoubleEndedIterator<Item = &'a str> + Clone {
        let text = self.0.strip_prefix('/').unwrap_or(self.0);
        text.split('/').filter(|component| !component.is_empty())
    }

    /// How many components there are.
    pub fn depth(self) -> usize {
        self.components().count()
    }

    /// The parent; the root for a path of one component, `None` for the root itself.
    pub fn parent(self) -> Option<Path<'a>> {
        match self.0.rfind('/') {
            Some(0) if self.0.len() == 1 => None,
            Some(0) | None => Some(Path::ROOT),
            Some(slash) => Some(Path(&self.0[..slash])),
        }
    }

    /// The last component; empty for the root.
    pub fn leaf(self) -> &'a str {
        self.0.rfind('/').map_or(self.0, |slash| &self.0[slash + 1..])
    }

    /// Whether this path is `ancestor` or below it.
    pub fn is_within(self, ancestor: Path<'_>) -> bool {
        match self.0.strip_prefix(ancestor.0) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || ancestor.is_root(),
            None => false,
        }
    }

    /// The length that the quota `path-max` limits: without a leading `/local/domain/<domid>/`.
    pub fn quota_len(self) -> usize {
        let below = self.0.strip_prefix(DOMAINS).and_then(|rest| {
            let (domid, below) = rest.split_once('/')?;
            let numeric = matches!(domid.len(), 1..=5) && domid.bytes().all(|byte| byte.is_ascii_digit());
            numeric.then_some(below)
        });
        below.unwrap_or(self.0).len()
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0, f)
    }
}

/// Which paths a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Special paths are refused.
    Refused,
    /// Special paths are allowed.
    Allowed,
}

/// A path as a client wrote it, made absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved<'a> {
    text: Cow<'a, str>,
    prefix_len: usize,
}

impl<'a> Resolved<'a> {
    /// Makes a client's path absolute: one without `/` or `@` in front is below the directory of `domid`.
    ///
    /// # Errors
    /// `EINVAL` if the path is not valid, too long, or special where that is refused.
    pub fn new(raw: &'a [u8], domid: DomId, special: Special) -> Result<Resolved<'a>, XsError> {
        match raw.first() {
            None => Err(XsError::EINVAL),
            Some(b'@') if special == Special::Refused => Err(XsError::EINVAL),
            Some(b'/' | b'@') => {
                let path = Path::parse(raw)?;
                Ok(Resolved { text: Cow::Borrowed(path.0), prefix_len: 0 })
            }
            Some(_) => Self::relative(raw, domid),
        }
    }

    fn relative(raw: &[u8], domid: DomId) -> Result<Resolved<'a>, XsError> {
        if !well_formed(raw) {
            return Err(XsError::EINVAL);
        }
        let raw = std::str::from_utf8(raw).map_err(|_| XsError::EINVAL)?;
        let mut text = domain_path(domid);
        text.push('/');
        let prefix_len = text.len();
        text.push_str(raw);
        if text.len() > ABS_PATH_MAX {
            return Err(XsError::EINVAL);
        }
        Ok(Resolved { text: Cow::Owned(text), prefix_len })
    }

    /// The absolute path.
    pub fn path(&self) -> Path<'_> {
        Path(&self.text)
    }

    /// Bytes of the implicit base and its slash in front of what the client wrote; 0 if it was not relative.
    pub fn prefix_len(&self) -> usize {
        self.prefix_len
    }
}

/// The directory of a domain, which is the base of its relative paths.
pub fn domain_path(domid: DomId) -> String {
    format!("{DOMAINS}{domid}")
}

const PERMITTED: [bool; 256] = permitted();

const fn permitted() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "below 256")]
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric() || matches!(c, b'-' | b'/' | b'_' | b'@');
        byte += 1;
    }
    table
}

/// Permitted characters only, no doubled slash, and a final one only in `/`.
fn well_formed(raw: &[u8]) -> bool {
    let mut previous = 0u8;
    for &byte in raw {
        if !PERMITTED[usize::from(byte)] || (byte == b'/' && previous == b'/') {
            return false;
        }
        previous = byte;
    }
    previous != b'/' || raw.len() == 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::DEPTH_MAX;

    fn path(text: &str) -> Path<'_> {
        Path::parse(text.as_bytes()).unwrap()
    }

    fn resolve(raw: &[u8]) -> Result<String, XsError> {
        Resolved::new(raw, DomId(7), Special::Allowed).map(|resolved| resolved.path().to_string())
    }

    #[test]
    fn valid_and_invalid() {
        for good in ["/", "/a", "/a/b-c_d@e", "@releaseDomain", "@releaseDomain/5", "/local/domain"] {
            assert_eq!(resolve(good.as_bytes()).as_deref(), Ok(good));
        }
        for bad in [
            &b""[..],
            b"//",
            b"/a/",
            b"/a//b",
            b"a/",
            b"/a b",
            b"/a\0",
            b"/\xff",
            b"/a.b",
            b"@a/",
            b"/local/domain/",
        ] {
            assert_eq!(resolve(bad), Err(XsError::EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn relative_paths_have_the_domains_base() {
        let resolved = Resolved::new(b"x/y", DomId(7), Special::Refused).unwrap();
        assert_eq!(resolved.path().as_str(), "/local/domain/7/x/y");
        assert_eq!(&resolved.path().as_str()[resolved.prefix_len()..], "x/y");
        assert_eq!(Resolved::new(b"/x", DomId(7), Special::Refused).unwrap().prefix_len(), 0);
        assert_eq!(Resolved::new(b"@x", DomId(7), Special::Refused), Err(XsError::EINVAL));
    }

    #[test]
    fn length_is_bounded() {
        let longest = format!("/{}", "a".repeat(ABS_PATH_MAX - 1));
        assert!(resolve(longest.as_bytes()).is_ok());
        assert_eq!(resolve(format!("{longest}a").as_bytes()), Err(XsError::EINVAL));
        let base = "/local/domain/7/".len();
        assert!(resolve(&vec![b'a'; ABS_PATH_MAX - base]).is_ok());
        assert_eq!(resolve(&vec![b'a'; ABS_PATH_MAX - base + 1]), Err(XsError::EINVAL));
        assert_eq!(path(&"/a".repeat(DEPTH_MAX)).depth(), DEPTH_MAX);
        assert_eq!(Path::parse("/a".repeat(DEPTH_MAX + 1).as_bytes()), Err(XsError::EINVAL));
    }

    #[test]
    fn parts() {
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(Path::ROOT));
        assert_eq!(path("@x").parent(), Some(Path::ROOT));
        assert_eq!(path("@x/5").parent(), Some(path("@x")));
        assert_eq!(Path::ROOT.parent(), None);
        assert_eq!((path("/a/b").leaf(), path("@x").leaf(), Path::ROOT.leaf()), ("b", "@x", ""));
        assert_eq!(path("@x/5").components().collect::<Vec<_>>(), ["@x", "5"]);
        assert_eq!(Path::ROOT.depth(), 0);
        assert!(path("/a/b").is_within(path("/a")) && path("/a").is_within(path("/a")));
        assert!(path("/a").is_within(Path::ROOT) && !path("/ab").is_within(path("/a")));
    }

    #[test]
    fn the_quota_counts_from_the_domains_directory() {
        assert_eq!(path("/local/domain/12/ab").quota_len(), 2);
        assert_eq!(path("/local/domain/12").quota_len(), 16);
        assert_eq!(path("/local/domain/123456/a").quota_len(), 22);
        assert_eq!(path("/a").quota_len(), 2);
    }

    proptest! {
        #[test]
        fn components_rebuild_the_path(parts in proptest::collection::vec("[a-zA-Z0-9_@-]{1,8}", 0..12)) {
            let text = format!("/{}", parts.join("/"));
            let path = Path::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(path.components().collect::<Vec<_>>(), parts);
            prop_assert!(path.parent().is_none_or(|parent| path.is_within(parent)));
        }

        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(path) = Path::parse(&bytes) {
                prop_assert!(!path.as_str().contains("//"));
            }
            let _ = resolve(&bytes);
        }
    }
}
