//! CONTROL, and setting features and quotas of domains.

use std::fmt::Write;

use xs_protocol::{DomId, Header, XsError, message, request};

use crate::{ConnId, Effect, Quota, Quotas, Store, config::QUOTAS, domain::DomainMut, ops::Refusal};

const HELP: [(&str, &str); 9] = [
    ("check", ""),
    ("log", "[on|off|+<switch>|-<switch>]"),
    ("live-update", "not supported: replicas are replaced one by one"),
    ("logfile", "<file>"),
    ("memreport", "[<file>]"),
    ("print", "<string>"),
    ("quota", "[set <name> <val>|<domid>|max [-r]]"),
    ("quota-soft", "[set <name> <val>]"),
    ("help", ""),
];

/// Switches of CONTROL log; bit numbers of [`Store::log_switches`].
const SWITCHES: [&str; 5] = ["obj", "io", "wrl", "acc", "tdb"];

const LIVE_UPDATE: &str =
    "live-update is not supported: this daemon is replicated, replace its processes one by one\n\0";

/// A quota's name as in GET_QUOTA: `soft-` in front means the soft one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuotaName {
    Hard(Quota),
    SoftMemory,
}

impl QuotaName {
    pub fn parse(name: &[u8]) -> Result<QuotaName, XsError> {
        match name.strip_prefix(b"soft-") {
            Some(b"memory") => Ok(QuotaName::SoftMemory),
            Some(_) => Err(XsError::EINVAL),
            None => Quota::from_name(name).map(QuotaName::Hard).ok_or(XsError::EINVAL),
        }
    }

    pub fn get(self, quotas: &Quotas) -> u32 {
        match self {
            QuotaName::Hard(quota) => quotas.get(quota),
            QuotaName::SoftMemory => quotas.soft_memory_bytes,
        }
    }

    fn set(self, quotas: &mut Quotas, value: u32) {
        match self {
            QuotaName::Hard(quota) => quotas.set(quota, value),
            QuotaName::SoftMemory => quotas.soft_memory_bytes = value,
        }
    }
}

/// All names, separated by blanks.
pub(crate) fn quota_names() -> String {
    let mut names = String::new();
    for quota in Quota::ALL {
        if !names.is_empty() {
            names.push(' ');
        }
        names.push_str(quota.name());
        if quota == Quota::Memory {
            names.push_str(" soft-memory");
        }
    }
    names
}

/// Whether a CONTROL command changes nothing, or is an error.
pub(crate) fn only_looks(payload: &[u8]) -> bool {
    let mut words = request::strings(payload);
    match (words.next(), words.next(), words.next()) {
        (Some(b"log"), switch, _) => switch.is_none(),
        (Some(b"logfile" | b"memreport" | b"print"), ..) => false,
        (Some(b"quota" | b"quota-soft"), Some(b"set"), _) => false,
        (Some(b"quota"), Some(b"max"), Some(_)) => false,
        _ => true,
    }
}

impl Store {
    /// Answers a CONTROL command that changes nothing.
    pub(crate) fn control_look(
        &self,
        header: &Header,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let words: Vec<&[u8]> = request::strings(payload).collect();
        let text = match words.as_slice() {
            [] => return Err(XsError::EINVAL.into()),
            [b"check"] => {
                let faults = self.check();
                if faults.is_empty() { "OK".to_owned() } else { faults.join("\n") }
            }
            [b"help"] => HELP.iter().fold(String::new(), |mut text, (name, arguments)| {
                let _ = writeln!(text, "{name:<15} {arguments}");
                text
            }),
            [b"live-update", ..] => {
                message::push_reply(out, header, LIVE_UPDATE.as_bytes());
                return Ok(());
            }
            [b"log"] => self.log_text(),
            [b"quota"] => quota_text(&self.config.quotas),
            [b"quota", b"max"] => max_text(&self.domains.max),
            [b"quota", domid] => self.domain_text(domid)?,
            [b"quota-soft"] => {
                format!(
                    "Quota settings:\n{}",
                    quota_line(Quota::Memory, self.config.quotas.soft_memory_bytes)
                )
            }
            _ => return Err(XsError::EINVAL.into()),
        };
        message::push_reply_with(out, header, |out| {
            let room = text.len().min(xs_protocol::PAYLOAD_MAX - 1);
            out.extend_from_slice(&text.as_bytes()[..room]);
            out.push(0);
        });
        Ok(())
    }

    fn log_text(&self) -> String {
        SWITCHES.iter().enumerate().fold(String::from("Log switch settings:\n"), |mut text, (bit, name)| {
            let state = if self.log_switches >> bit & 1 != 0 { "on" } else { "off" };
            let _ = writeln!(text, "{name:<8}: {state}");
            text
        })
    }

    fn domain_text(&self, domid: &[u8]) -> Result<String, Refusal> {
        let domid = u16::try_from(request::atoi(domid)).map(DomId).map_err(|_| XsError::ENOENT)?;
        let domain = self.known_domain(domid)?;
        let usage = self.usage(domid);
        let mut text = format!("Domain {domid}:\n");
        for quota in Quota::ALL {
            let now = match quota {
                Quota::Nodes => usage.nodes,
                Quota::Watches => usage.watches,
                Quota::Memory => usage.memory_bytes,
                Quota::Transactions => usage.transactions,
                _ => 0,
            };
            let max = domain.max[quota as usize];
            let _ = writeln!(text, "{:<17}: {now:8} (max {max:8})", quota.name());
        }
        Ok(text)
    }

    /// Executes a logged CONTROL command.
    pub(crate) fn control(&mut self, id: ConnId, header: &Header, payload: &[u8], effects: &mut Vec<Effect>) {
        let words: Vec<&[u8]> = request::strings(payload).collect();
        let result = match words.as_slice() {
            [b"quota", b"max", b"-r"] => {
                let mut answer = Vec::new();
                self.reset_max();
                let text = max_text(&self.domains.max);
                message::push_reply(&mut answer, header, format!("{text}\0").as_bytes());
                return self.reply(id, effects, |out| out.extend_from_slice(&answer));
            }
            [b"quota", b"set", name, value] => self.set_global(name, value, false),
            [b"quota-soft", b"set", name, value] => self.set_global(name, value, true),
            [b"log", switch] => self.set_switch(switch),
            [b"logfile" | b"print", _] | [b"memreport"] | [b"memreport", _] => Ok(()),
            _ => {
                return self.reply_read(id, header, payload, effects);
            }
        };
        match result {
            Ok(()) => {
                if matches!(words[0], b"log" | b"logfile" | b"print" | b"memreport") {
                    let text = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
                    effects.push(Effect::Control(text));
                }
                self.ack(id, header, effects);
            }
            Err(error) => self.reply(id, effects, |out| message::push_error(out, header, error)),
        }
    }

    fn reset_max(&mut self) {
        self.domains.max = [0; QUOTAS];
        for (_, mut domain) in self.domains.iter_mut() {
            domain.max = [0; QUOTAS];
            let (nodes, memory) = (domain.nodes, domain.memory_bytes());
            domain.note(Quota::Nodes, nodes);
            domain.note(Quota::Memory, memory);
        }
    }

    fn set_global(&mut self, name: &[u8], value: &[u8], soft: bool) -> Result<(), XsError> {
        let value = u32::try_from(request::atoi(value)).map_err(|_| XsError::EINVAL)?;
        if value < 1 {
            return Err(XsError::EINVAL);
        }
        let quota = Quota::from_name(name).ok_or(XsError::EINVAL)?;
        match (soft, quota) {
            (false, _) => self.change_config(|config| config.quotas.set(quota, value)),
            (true, Quota::Memory) => self.change_config(|config| config.quotas.soft_memory_bytes = value),
            (true, _) => return Err(XsError::EINVAL),
        }
        Ok(())
    }

    fn set_switch(&mut self, switch: &[u8]) -> Result<(), XsError> {
        let (on, name) = match switch {
            b"on" | b"off" => return Ok(()),
            [b'+', name @ ..] => (true, name),
            [b'-', name @ ..] => (false, name),
            _ => return Err(XsError::EINVAL),
        };
        let bit = SWITCHES.iter().position(|switch| switch.as_bytes() == name).ok_or(XsError::EINVAL)?;
        if on {
            self.log_switches |= 1 << bit;
        } else {
            self.log_switches &= !(1 << bit);
        }
        Ok(())
    }

    /// The domain of a SET_FEATURE or SET_QUOTA. The toolstack may set them before it introduces the domain.
    fn domain_to_set(&mut self, domid: &[u8], verdict: Option<XsError>) -> Result<DomainMut<'_>, XsError> {
        let domid = request::domid(domid)?;
        if let Some(error) = verdict {
            return Err(error);
        }
        let unknown = self.config.only_known && self.domains.get(domid).is_none();
        if unknown || !domid.is_real() {
            return Err(XsError::ENOENT);
        }
        Ok(self.domains.know(domid, &self.config, self.index))
    }

    pub(crate) fn set_feature(&mut self, payload: &[u8], verdict: Option<XsError>) -> Result<(), Refusal> {
        let (2, [domid, value]) = request::vector::<2>(payload) else { return Err(XsError::EINVAL.into()) };
        let features = request::atoi(value).cast_unsigned();
        let supported = self.config.features;
        let mut domain = self.domain_to_set(domid, verdict)?;
        if domain.introduced {
            return Err(XsError::EBUSY.into());
        }
        if features & !supported != 0 {
            return Err(XsError::EINVAL.into());
        }
        domain.features = features;
        Ok(())
    }

    pub(crate) fn set_quota(&mut self, payload: &[u8], verdict: Option<XsError>) -> Result<(), Refusal> {
        let (count, [first, second, third]) = request::vector::<3>(payload);
        let (domid, name, value) = match count {
            2 => (None, first, second),
            3 => (Some(first), second, third),
            _ => return Err(XsError::EINVAL.into()),
        };
        let value = request::atoi(value).cast_unsigned();
        // The domain becomes known even if the rest is refused.
        if let Some(domid) = domid {
            self.domain_to_set(domid, verdict)?;
        }
        let name = QuotaName::parse(name)?;
        if value == u32::MAX {
            return Err(XsError::EINVAL.into());
        }
        match domid {
            Some(domid) => name.set(&mut self.domain_to_set(domid, verdict)?.quotas, value),
            None => self.change_config(|config| name.set(&mut config.quotas, value)),
        }
        self.version = self.index;
        Ok(())
    }
}

fn quota_line(quota: Quota, value: u32) -> String {
    format!("{:<17}: {value:8} {}\n", quota.name(), quota.description())
}

fn quota_text(quotas: &Quotas) -> String {
    Quota::ALL
        .into_iter()
        .fold(String::from("Quota settings:\n"), |text, quota| text + &quota_line(quota, quotas.get(quota)))
}

fn max_text(max: &[u64; QUOTAS]) -> String {
    Quota::ALL.into_iter().fold(String::from("Max. seen accounting values:\n"), |mut text, quota| {
        let _ = writeln!(text, "{:<17}: {:8}", quota.name(), max[quota as usize]);
        text
    })
}
