//! `ppvmm.v1`: the gRPC interfaces of the warden and of the network backend, generated from `proto/ppvmm/v1`.
#![forbid(unsafe_code)]

/// Version 1.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("ppvmm.v1");
}

/// The encoded file descriptor set of `ppvmm.v1`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("ppvmm_descriptor");

/// Name of the Unix socket of the warden in its run directory.
pub const SOCKET_NAME: &str = "ppvmm.sock";

/// Name of the Unix socket of the network backend in its run directory.
pub const NET_SOCKET_NAME: &str = "net_uk.sock";

/// CLOCK_MONOTONIC in microseconds (clock_gettime(2)): the clock of [`v1::Event::clock_us`].
pub fn clock_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn the_descriptor_set_describes_the_service() {
        let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let services = set.file.iter().flat_map(|file| &file.service);
        let methods = |service: &prost_types::ServiceDescriptorProto| {
            let names: Vec<_> = service.method.iter().map(|method| method.name().to_owned()).collect();
            (service.name().to_owned(), names.join(" "))
        };
        let methods: std::collections::BTreeMap<_, _> = services.map(methods).collect();
        assert_eq!(methods["Ppvmm"], "Status Events Metrics Inject Down");
        assert_eq!(methods["Net"], "Status Events Metrics Inject");
    }

    #[test]
    fn an_event_of_a_newer_warden_is_understood() {
        let newer =
            [v1::Event { id: 7, ..Default::default() }.encode_to_vec(), vec![0x9a, 0x06, 1, b'x']].concat();
        assert_eq!(v1::Event::decode(&newer[..]).unwrap().id, 7);
    }
}
