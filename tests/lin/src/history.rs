//! What clients did, and when.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::xenstore::{Outcome, Request};

/// One operation of a client. Times are event numbers: all that matters is their order, equal ones are concurrent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// When it asked.
    pub called: u64,
    /// When it had the answer; `None` if it never had one: the operation may take effect at any later time, or never.
    pub returned: Option<u64>,
    /// What it asked.
    pub request: Request,
    /// The answer; `None` if it never had one.
    pub outcome: Option<Outcome>,
}

/// Operations in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The operations.
    pub operations: Vec<Operation>,
}

/// Why a history cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A line that is no operation.
    #[error("line {line}: {source}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The file.
    #[error("history: {0}")]
    Io(#[from] std::io::Error),
}

impl History {
    /// Writes one JSON object a line, for this program and others.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn write_jsonl(&self, out: &mut impl Write) -> Result<(), HistoryError> {
        for (i, operation) in self.operations.iter().enumerate() {
            let line = serde_json::to_string(operation);
            let line = line.map_err(|source| HistoryError::Line { line: i + 1, source })?;
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    /// Reads what [`Self::write_jsonl`] wrote.
    ///
    /// # Errors
    /// [`HistoryError::Line`].
    pub fn read_jsonl(text: &str) -> Result<Self, HistoryError> {
        let lines = text.lines().enumerate();
        let operations = lines.map(|(i, line)| {
            serde_json::from_str(line).map_err(|source| HistoryError::Line { line: i + 1, source })
        });
        Ok(Self { operations: operations.collect::<Result<_, _>>()? })
    }
}
