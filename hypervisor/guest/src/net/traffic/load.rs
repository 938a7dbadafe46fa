//! How much is sent.

use std::fmt;
use std::str::FromStr;

/// How many frames are sent, and how large they are. As text: `RATE:LEAST-MOST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Frames a second; 0 is as many as the rings take.
    pub rate: u64,
    /// Bytes of the smallest frame.
    pub least_bytes: usize,
    /// Bytes of the largest frame. Above 1514 they are large frames, which the backend must offer to take.
    pub most_bytes: usize,
}

/// What is no load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no load: RATE:LEAST-MOST, in frames a second and bytes")]
pub struct NoLoad(String);

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.rate, self.least_bytes, self.most_bytes)
    }
}

impl FromStr for Load {
    type Err = NoLoad;

    fn from_str(text: &str) -> Result<Self, NoLoad> {
        let parse = || {
            let (rate, sizes) = text.split_once(':')?;
            let (least, most) = sizes.split_once('-')?;
            let load = Self {
                rate: rate.parse().ok()?,
                least_bytes: least.parse().ok()?,
                most_bytes: most.parse().ok()?,
            };
            (load.least_bytes <= load.most_bytes).then_some(load)
        };
        parse().ok_or_else(|| NoLoad(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_read_as_they_are_written() {
        let load = Load { rate: 3000, least_bytes: 60, most_bytes: 1514 };
        assert_eq!(load.to_string().parse(), Ok(load));
        for bad in ["", "3000", "3000:60", "3000:61-60", "x:60-61", "1:-60", "-1:60-61"] {
            assert_eq!(bad.parse::<Load>(), Err(NoLoad(bad.to_owned())));
        }
    }
}
