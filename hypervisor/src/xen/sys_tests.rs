use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use super::*;

/// Prints `name value` for every number that the tests below compare.
const PROGRAM: &str = r#"
#include <stdint.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ioctl.h>
#define __XEN_TOOLS__ 1
#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/sysctl.h>
#include <xen/sys/evtchn.h>
#include <xen/sys/gntdev.h>
#include <xen/sys/privcmd.h>
#define N(x) printf("%llu\n", (unsigned long long)(x))
int main(void) {
  N(IOCTL_EVTCHN_BIND_VIRQ); N(IOCTL_EVTCHN_BIND_INTERDOMAIN); N(IOCTL_EVTCHN_BIND_UNBOUND_PORT);
  N(IOCTL_EVTCHN_UNBIND); N(IOCTL_EVTCHN_NOTIFY);
  N(IOCTL_GNTDEV_MAP_GRANT_REF); N(IOCTL_GNTDEV_UNMAP_GRANT_REF); N(IOCTL_GNTDEV_GRANT_COPY); N(IOCTL_PRIVCMD_HYPERCALL);
  N(__HYPERVISOR_sysctl); N(__HYPERVISOR_domctl);
  N(XEN_DOMCTL_getdomaininfo); N(XEN_SYSCTL_getdomaininfolist);
  N(XEN_DOMINF_dying); N(XEN_DOMINF_shutdown); N(XEN_DOMINF_shutdownshift); N(VIRQ_DOM_EXC);
  N(sizeof(struct xen_domctl_getdomaininfo)); N(offsetof(struct xen_domctl_getdomaininfo, flags));
  N(offsetof(struct xen_domctl_getdomaininfo, handle)); N(offsetof(struct xen_domctl_getdomaininfo, arch_config));
  N(sizeof(struct xen_domctl)); N(offsetof(struct xen_domctl, domain)); N(offsetof(struct xen_domctl, u));
  N(sizeof(struct xen_sysctl)); N(offsetof(struct xen_sysctl, u));
  N(sizeof(struct xen_sysctl_getdomaininfolist)); N(offsetof(struct xen_sysctl_getdomaininfolist, max_domains));
  N(offsetof(struct xen_sysctl_getdomaininfolist, buffer));
  N(offsetof(struct xen_sysctl_getdomaininfolist, num_domains));
  N(offsetof(struct ioctl_gntdev_map_grant_ref, index)); N(offsetof(struct ioctl_gntdev_map_grant_ref, refs));
  N(sizeof(struct gntdev_grant_copy_segment)); N(offsetof(struct gntdev_grant_copy_segment, status));
  N(offsetof(struct ioctl_gntdev_grant_copy, segments)); N(GNTCOPY_source_gref); N(GNTCOPY_dest_gref);
  N(XEN_DOMCTL_INTERFACE_VERSION); N(XEN_SYSCTL_INTERFACE_VERSION);
  return 0;
}
"#;

fn ours() -> Vec<u64> {
    let sizes = [
        size_of::<DomainInfo>(),
        offset_of!(DomainInfo, flags),
        offset_of!(DomainInfo, handle),
        offset_of!(DomainInfo, arch_config),
        size_of::<Domctl>(),
        offset_of!(Domctl, domain),
        offset_of!(Domctl, info),
        size_of::<Sysctl>(),
        offset_of!(Sysctl, list),
        size_of::<DomainInfoList>(),
        offset_of!(DomainInfoList, max_domains),
        offset_of!(DomainInfoList, buffer),
        offset_of!(DomainInfoList, num_domains),
        offset_of!(MapGrantRef, index),
        offset_of!(MapGrantRef, domid),
        size_of::<CopySegment>(),
        offset_of!(CopySegment, status),
        offset_of!(GrantCopies, segments),
        GNTCOPY_SOURCE_GREF.into(),
        GNTCOPY_DEST_GREF.into(),
    ];
    let numbers = [
        IOCTL_EVTCHN_BIND_VIRQ,
        IOCTL_EVTCHN_BIND_INTERDOMAIN,
        IOCTL_EVTCHN_BIND_UNBOUND_PORT,
        IOCTL_EVTCHN_UNBIND,
        IOCTL_EVTCHN_NOTIFY,
        IOCTL_GNTDEV_MAP_GRANT_REF,
        IOCTL_GNTDEV_UNMAP_GRANT_REF,
        IOCTL_GNTDEV_GRANT_COPY,
        IOCTL_PRIVCMD_HYPERCALL,
        HYPERVISOR_SYSCTL,
        HYPERVISOR_DOMCTL,
        DOMCTL_GETDOMAININFO.into(),
        SYSCTL_GETDOMAININFOLIST.into(),
        DOMINF_DYING.into(),
        DOMINF_SHUTDOWN.into(),
        DOMINF_SHUTDOWN_SHIFT.into(),
        crate::Virq::DomExc.number().into(),
    ];
    numbers.into_iter().chain(sizes.map(|size| size as u64)).collect()
}

/// What the program prints with the headers of Xen 4.17, its two interface versions left out.
const XEN_4_17: [u64; 37] = [
    0x4_4500, 0x8_4501, 0x4_4502, 0x4_4503, 0x4_4504, 0x18_4700, 0x10_4701, 0x10_4708, 0x30_5000, 35, 36, 5,
    6, 1, 4, 16, 3, 112, 4, 76, 104, 144, 8, 16, 136, 8, 24, 4, 8, 16, 8, 16, 24, 20, 8, 1, 2,
];

#[test]
fn numbers_and_layouts_are_those_of_xen_4_17() {
    assert_eq!(ours(), XEN_4_17);
}

#[test]
fn numbers_and_layouts_are_those_of_the_installed_headers() {
    if !cfg!(target_arch = "x86_64") || !Path::new("/usr/include/xen/sys/gntdev.h").exists() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("layout.c"), dir.path().join("layout"));
    std::fs::write(&source, PROGRAM).unwrap();
    // A machine without a compiler has the constant table above.
    let Ok(status) = Command::new("cc").arg("-o").arg(&program).arg(&source).status() else { return };
    assert!(status.success());
    let output = String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap();
    let mut theirs: Vec<u64> = output.lines().map(|line| line.parse().unwrap()).collect();
    let sysctl = u32::try_from(theirs.pop().unwrap()).unwrap();
    let domctl = u32::try_from(theirs.pop().unwrap()).unwrap();
    assert_eq!(theirs, ours());
    assert!(DOMCTL_VERSIONS.contains(&domctl) && SYSCTL_VERSIONS.contains(&sysctl));
}
