//! Which network card to open, and how.

use std::fmt;
use std::str::FromStr;

use crate::error::{NicError, Result};
use crate::limits::{
    INTERFACE_BYTES_MAX, MTU_BYTES_MAX, MTU_BYTES_MIN, RING_SLOTS_DEFAULT, RING_SLOTS_MAX, RING_SLOTS_MIN,
    XDP_MTU_BYTES_MAX, XDP_QUEUES_MAX,
};

/// How frames get to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicKind {
    /// Rings shared with the kernel over a packet socket; for any device.
    Packet,
    /// A TAP device: the frames of an interface of this host. It may lose or double one frame for each death.
    Tap,
    /// Rings shared with the kernel's driver of the device (`AF_XDP`). The host itself has no part in the device then.
    Xdp,
}

/// Where in the kernel the program that gives frames to `AF_XDP` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XdpMode {
    /// In the device's driver if it can, else behind it.
    #[default]
    Auto,
    /// In the device's driver.
    Native,
    /// Behind the device's driver; for any device.
    Generic,
}

/// Whether the device itself reads and writes the frames of `AF_XDP`, without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ZeroCopy {
    /// If its driver can.
    #[default]
    Auto,
    /// It must.
    On,
    /// The kernel copies.
    Off,
}

/// What is said of a network card that is reached over `AF_XDP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XdpOptions {
    /// How many of the device's queues are served, the first ones; 0: all. Frames of others go to the host.
    pub queues: u32,
    /// Where the program runs.
    pub mode: XdpMode,
    /// Whether frames are copied.
    pub zero_copy: ZeroCopy,
}

/// Which network card to open, and how. As text: `packet:eth0`, `tap:tap0` or `xdp:eth0`, followed by options that differ
/// from the default, in any order: `,rx=SLOTS`, `,tx=SLOTS`, `,mtu=BYTES`, `,offload`, `,bypass`; with `xdp` not the last
/// two, but `,queues=COUNT`, `,mode=native` or `generic`, `,zerocopy=on` or `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSpec {
    /// How frames get to the device.
    pub kind: NicKind,
    /// Its name.
    pub interface: String,
    /// Frames that the kernel keeps while nobody receives.
    pub rx_slots: u32,
    /// Frames that wait for the device.
    pub tx_slots: u32,
    /// Bytes of the largest packet that is neither to be cut nor was joined.
    pub mtu_bytes: u32,
    /// The kernel completes checksums and cuts segments; frames of up to 64 KiB come and go. A slot takes 68 KiB then.
    pub offload: bool,
    /// Frames go past the queueing discipline of the device. Not together with `offload`: the kernel would drop what the
    /// device cannot cut itself.
    pub bypass: bool,
    /// For `AF_XDP` alone.
    pub xdp: XdpOptions,
}

impl NicSpec {
    /// The default for an interface that exists.
    pub fn packet(interface: &str) -> Self {
        Self::new(NicKind::Packet, interface)
    }

    /// The default for a TAP device, which is made if there is none.
    pub fn tap(interface: &str) -> Self {
        Self::new(NicKind::Tap, interface)
    }

    /// The default for an interface that exists, over `AF_XDP`.
    pub fn xdp(interface: &str) -> Self {
        Self::new(NicKind::Xdp, interface)
    }

    fn new(kind: NicKind, interface: &str) -> Self {
        Self {
            kind,
            interface: interface.to_owned(),
            rx_slots: RING_SLOTS_DEFAULT,
            tx_slots: RING_SLOTS_DEFAULT,
            mtu_bytes: 1500,
            offload: false,
            bypass: false,
            xdp: XdpOptions::default(),
        }
    }

    /// Refuses what is out of bounds or contradicts itself.
    ///
    /// # Errors
    /// [`NicError::Spec`].
    pub fn check(&self) -> Result<()> {
        let slots = RING_SLOTS_MIN..=RING_SLOTS_MAX;
        let reason = if self.interface.is_empty() || self.interface.len() > INTERFACE_BYTES_MAX {
            "the name of an interface has 1 to 15 bytes"
        } else if !self.interface.bytes().all(|byte| byte.is_ascii_graphic() && !b"/,:".contains(&byte)) {
            "the name of an interface has other characters"
        } else if !slots.contains(&self.rx_slots) || !slots.contains(&self.tx_slots) {
            "a ring has 16 to 65,536 slots"
        } else if !(MTU_BYTES_MIN..=MTU_BYTES_MAX).contains(&self.mtu_bytes) {
            "the largest packet has 68 to 9,216 bytes"
        } else if self.offload && self.bypass {
            "offload and bypass exclude each other"
        } else if let Some(reason) = self.wrong_with_xdp() {
            reason
        } else {
            return Ok(());
        };
        Err(NicError::Spec { text: self.to_string(), reason })
    }

    fn wrong_with_xdp(&self) -> Option<&'static str> {
        if self.kind != NicKind::Xdp {
            return (self.xdp != XdpOptions::default()).then_some("queues, mode and zerocopy are for xdp");
        }
        if self.offload || self.bypass {
            Some("xdp knows no offload, and always goes past the queueing discipline")
        } else if self.xdp.queues as usize > XDP_QUEUES_MAX {
            Some("xdp serves 16 queues at most")
        } else if self.mtu_bytes > XDP_MTU_BYTES_MAX {
            Some("the largest packet of xdp has 3,822 bytes")
        } else if self.xdp.mode == XdpMode::Generic && self.xdp.zero_copy == ZeroCopy::On {
            Some("the generic mode copies")
        } else {
            None
        }
    }
}

impl fmt::Display for NicSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Self::packet("");
        let kind = match self.kind {
            NicKind::Packet => "packet",
            NicKind::Tap => "tap",
            NicKind::Xdp => "xdp",
        };
        write!(f, "{kind}:{}", self.interface)?;
        for (name, value, default) in [
            ("rx", self.rx_slots, default.rx_slots),
            ("tx", self.tx_slots, default.tx_slots),
            ("mtu", self.mtu_bytes, default.mtu_bytes),
            ("queues", self.xdp.queues, 0),
        ] {
            if value != default {
                write!(f, ",{name}={value}")?;
            }
        }
        for (name, on) in [("offload", self.offload), ("bypass", self.bypass)] {
            if on {
                write!(f, ",{name}")?;
            }
        }
        f.write_str(match self.xdp.mode {
            XdpMode::Auto => "",
            XdpMode::Native => ",mode=native",
            XdpMode::Generic => ",mode=generic",
        })?;
        f.write_str(match self.xdp.zero_copy {
            ZeroCopy::Auto => "",
            ZeroCopy::On => ",zerocopy=on",
            ZeroCopy::Off => ",zerocopy=off",
        })
    }
}

impl FromStr for NicSpec {
    type Err = NicError;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason| NicError::Spec { text: text.to_owned(), reason };
        let mut words = text.split(',');
        let mut spec = match words.next().and_then(|word| word.split_once(':')) {
            Some(("packet", interface)) => Self::packet(interface),
            Some(("tap", interface)) => Self::tap(interface),
            Some(("xdp", interface)) => Self::xdp(interface),
            _ => return Err(wrong("it begins with packet:NAME, tap:NAME or xdp:NAME")),
        };
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let number = || value.parse().map_err(|_| wrong("an option has no number"));
            match name {
                "rx" => spec.rx_slots = number()?,
                "tx" => spec.tx_slots = number()?,
                "mtu" => spec.mtu_bytes = number()?,
                "offload" if word == name => spec.offload = true,
                "bypass" if word == name => spec.bypass = true,
                "queues" => spec.xdp.queues = number()?,
                "mode" => spec.xdp.mode = mode_of(value).ok_or_else(|| wrong("no such mode"))?,
                "zerocopy" => {
                    spec.xdp.zero_copy =
                        zero_copy_of(value).ok_or_else(|| wrong("zerocopy is on, off or auto"))?;
                }
                _ => return Err(wrong("unknown option")),
            }
        }
        spec.check()?;
        Ok(spec)
    }
}

fn mode_of(name: &str) -> Option<XdpMode> {
    Some(match name {
        "auto" => XdpMode::Auto,
        "native" => XdpMode::Native,
        "generic" => XdpMode::Generic,
        _ => return None,
    })
}

fn zero_copy_of(name: &str) -> Option<ZeroCopy> {
    Some(match name {
        "auto" => ZeroCopy::Auto,
        "on" => ZeroCopy::On,
        "off" => ZeroCopy::Off,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in [
            "packet:eth0",
            "packet:a.1,rx=64,tx=65536,mtu=9216,offload",
            "packet:fifteen-letters,bypass",
            "tap:tap0,rx=64",
            "xdp:eth0",
            "xdp:eth0,rx=64,mtu=3822,queues=16,mode=native,zerocopy=on",
            "xdp:eth0,mode=generic,zerocopy=off",
        ] {
            assert_eq!(text.parse::<NicSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_bound_is_kept() {
        for text in [
            "eth0",
            "tcp:eth0",
            "packet:",
            "packet:sixteen-letters-",
            "packet:a/b",
            "packet:a,rx=15",
            "packet:a,rx=65537",
            "packet:a,tx=15",
            "packet:a,tx=x",
            "packet:a,mtu=67",
            "packet:a,mtu=9217",
            "packet:a,offload,bypass",
            "packet:a,offload=1",
            "packet:a,fast",
            "packet:a,queues=1",
            "packet:a,mode=native",
            "packet:a,zerocopy=off",
            "xdp:a,offload",
            "xdp:a,bypass",
            "xdp:a,queues=17",
            "xdp:a,mtu=3823",
            "xdp:a,mode=fast",
            "xdp:a,zerocopy",
            "xdp:a,mode=generic,zerocopy=on",
        ] {
            assert!(matches!(text.parse::<NicSpec>(), Err(NicError::Spec { .. })), "{text}");
        }
        for text in
            ["packet:a,rx=16,tx=16,mtu=68", "packet:a,rx=65536,mtu=9216", "xdp:a,mode=auto,zerocopy=auto"]
        {
            assert!(text.parse::<NicSpec>().is_ok(), "{text}");
        }
    }
}
