//! Commands on the keeper's standard input, one in a line: `counts`, and if faults are allowed `inject driver.0 livelock`.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use net_watch::ladder::Part;

use super::asks::parse_part;
use crate::limits::COMMAND_BYTES_MAX;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Tell what was counted.
    Counts,
    /// Have a process misbehave.
    Inject(Part, String),
}

impl FromStr for Command {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("counts"), None, None) => Ok(Self::Counts),
            (Some("inject"), Some(part), Some(fault)) => {
                let part = parse_part(part).ok_or_else(|| format!("no such part: {part}"))?;
                Ok(Self::Inject(part, fault.to_owned()))
            }
            _ => Err(format!("no such command: {line}")),
        }
    }
}

/// Where commands come from.
#[derive(Debug)]
pub struct Commands {
    source: File,
    /// What was read and makes no line yet.
    input: Vec<u8>,
}

impl Commands {
    /// From this descriptor. What an earlier keeper had read of it is gone: whoever asked asks again.
    pub fn new(source: OwnedFd) -> Self {
        Self { source: File::from(source), input: vec![] }
    }

    /// Reads what is there; `None` at its end.
    pub fn read(&mut self) -> Option<Vec<Result<Command, String>>> {
        let mut bytes = [0; COMMAND_BYTES_MAX];
        match (&self.source).read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(length) => self.input.extend(&bytes[..length]),
        }
        let mut commands = vec![];
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            commands.push(String::from_utf8_lossy(&line).trim().parse());
        }
        if self.input.len() > COMMAND_BYTES_MAX {
            self.input.clear();
            commands.push(Err("the line is too long".to_owned()));
        }
        Some(commands)
    }
}

impl AsFd for Commands {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use net_watch::ladder::NicId;

    use super::*;

    #[test]
    fn lines_are_commands_or_errors() {
        assert_eq!("counts".parse(), Ok(Command::Counts));
        assert_eq!(
            "inject driver.3 slow".parse(),
            Ok(Command::Inject(Part::Driver(NicId(3)), "slow".into()))
        );
        assert_eq!("inject shadow exit".parse(), Ok(Command::Inject(Part::Shadow, "exit".into())));
        for bad in ["", "inject", "inject driver.x slow", "inject nobody slow", "counts now"] {
            assert!(bad.parse::<Command>().is_err(), "{bad}");
        }
    }
}
