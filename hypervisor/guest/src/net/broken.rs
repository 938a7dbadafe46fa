//! What a backend must not do.

use serde::Serialize;

/// Why an interface is out of use. Linux marks it so and sends and receives no more until it is connected anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Broken {
    /// More responses than requests on the sent ring.
    TxTooManyResponses,
    /// A response on the sent ring with a number that no request has.
    TxIdOutOfRange,
    /// A response to a request that is not under way, as one that was answered before.
    TxInactiveId,
    /// A fragment's page is still mapped after its response.
    TxGrantInUse,
    /// More responses than buffers on the received ring.
    RxTooManyResponses,
    /// The received ring has fewer responses than before.
    RxBackwards,
    /// A response on the received ring that does not stand in the slot of its buffer. Linux does not look at the number,
    /// takes the slot's buffer, and so hands on the wrong page.
    RxWrongSlot,
    /// A buffer is still mapped after its response.
    RxGrantInUse,
}

/// Why a received frame was dropped. Linux counts such a frame as an error and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BadFrame {
    /// A negative status.
    Status,
    /// The data do not lie within the page.
    Range,
    /// Extra info is announced and missing.
    MissingExtra,
    /// Extra info of an unknown type.
    UnknownExtra,
    /// More slots are announced and missing.
    MissingSlots,
    /// More slots than Linux takes.
    TooManySlots,
    /// Segments of no size, or of no known protocol.
    Segments,
}
