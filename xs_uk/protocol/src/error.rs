//! The errors that a client can be told.

/// An error by its name on the wire (`xsd_errors` in `xs_wire.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[error("{}", self.name())]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are errno's")]
pub enum XsError {
    EINVAL = 1,
    EACCES,
    EEXIST,
    EISDIR,
    ENOENT,
    ENOMEM,
    ENOSPC,
    EIO,
    ENOTEMPTY,
    ENOSYS,
    EROFS,
    EBUSY,
    EAGAIN,
    EISCONN,
    E2BIG,
    EPERM,
}

impl XsError {
    /// Every error, in the order of `xs_wire.h`.
    pub const ALL: [XsError; 16] = [
        XsError::EINVAL,
        XsError::EACCES,
        XsError::EEXIST,
        XsError::EISDIR,
        XsError::ENOENT,
        XsError::ENOMEM,
        XsError::ENOSPC,
        XsError::EIO,
        XsError::ENOTEMPTY,
        XsError::ENOSYS,
        XsError::EROFS,
        XsError::EBUSY,
        XsError::EAGAIN,
        XsError::EISCONN,
        XsError::E2BIG,
        XsError::EPERM,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            XsError::EINVAL => "EINVAL",
            XsError::EACCES => "EACCES",
            XsError::EEXIST => "EEXIST",
            XsError::EISDIR => "EISDIR",
            XsError::ENOENT => "ENOENT",
            XsError::ENOMEM => "ENOMEM",
            XsError::ENOSPC => "ENOSPC",
            XsError::EIO => "EIO",
            XsError::ENOTEMPTY => "ENOTEMPTY",
            XsError::ENOSYS => "ENOSYS",
            XsError::EROFS => "EROFS",
            XsError::EBUSY => "EBUSY",
            XsError::EAGAIN => "EAGAIN",
            XsError::EISCONN => "EISCONN",
            XsError::E2BIG => "E2BIG",
            XsError::EPERM => "EPERM",
        }
    }

    /// A stable number for saved state: 1..=16.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The error of a number made by [`XsError::code`].
    pub fn from_code(code: u8) -> Option<XsError> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// The error of a name on the wire.
    pub fn from_name(name: &[u8]) -> Option<XsError> {
        Self::ALL.into_iter().find(|error| error.name().as_bytes() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_round_trip() {
        for error in XsError::ALL {
            assert_eq!(XsError::from_code(error.code()), Some(error));
            assert_eq!(XsError::from_name(error.name().as_bytes()), Some(error));
            assert_eq!(error.to_string(), error.name());
        }
        assert_eq!(XsError::from_code(0), None);
        assert_eq!(XsError::from_code(17), None);
        assert_eq!(XsError::from_name(b"EQUOTA"), None);
    }
}
