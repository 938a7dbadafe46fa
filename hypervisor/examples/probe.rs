//! Shows what this host lets us do: lists domains, maps guests' store pages beside a running store, and prints their
//! ring indexes; then sends itself an event over a loop-back channel and hands the handle over to itself.
//! With the argument `hold` it only keeps the pages mapped for ten seconds, so that a destroyed domain stays dying.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::{Duration, Instant};

use hypervisor::{DomId, Host, HostSpec, Port};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec = HostSpec::detect(None, Path::new("/run/xenstored"));
    println!("PROBE profile {:?}", spec.profile);
    let mut host = Host::open(&spec)?;
    if std::env::args().nth(1).as_deref() == Some("hold") {
        return hold(&host);
    }
    for state in host.domains.list()? {
        println!("PROBE {state:?}");
        assert_eq!(host.domains.get(state.domid)?.map(|again| again.handle), Some(state.handle));
        if state.domid != DomId::DOM0 {
            show_ring(&host, state.domid);
        }
    }
    println!("PROBE domain 999: {:?}", host.domains.get(DomId(999))?);
    println!("PROBE page of domain 999: {}", refused(host.pages.map_guest(DomId(999), 0)));
    let (page, port) = host.pages.map_own()?;
    println!("PROBE own port {port}, request producer {}", page.load_u32(2052));
    println!("PROBE virq: {:?}", host.events.bind_virq(hypervisor::Virq::DomExc).map_err(|e| e.to_string()));
    loop_back(&spec, &mut host)?;
    println!("PROBE-DONE");
    Ok(())
}

fn hold(host: &Host) -> Result<(), Box<dyn std::error::Error>> {
    let guests = host.domains.list()?.into_iter().filter(|state| state.domid != DomId::DOM0);
    let pages = guests.map(|state| host.pages.map_guest(state.domid, 0)).collect::<Result<Vec<_>, _>>()?;
    println!("PROBE holding {} pages", pages.len());
    std::thread::sleep(Duration::from_secs(10));
    Ok(())
}

fn show_ring(host: &Host, domid: DomId) {
    match host.pages.map_guest(domid, 0) {
        Ok(page) => {
            let [req_cons, req_prod, rsp_cons, rsp_prod] =
                [2048, 2052, 2056, 2060].map(|offset| page.load_u32(offset));
            println!("PROBE domain {domid} ring: req {req_cons} {req_prod} rsp {rsp_cons} {rsp_prod}");
        }
        Err(error) => println!("PROBE domain {domid}: {error}"),
    }
}

fn refused<T>(outcome: hypervisor::Result<T>) -> String {
    outcome.err().map_or_else(|| "no error".to_owned(), |error| error.to_string())
}

/// Two ends in one handle, which changes hands in between.
fn loop_back(spec: &HostSpec, host: &mut Host) -> Result<(), Box<dyn std::error::Error>> {
    let left = host.events.bind_unbound(DomId::DOM0)?;
    let right = host.events.bind_interdomain(DomId::DOM0, left)?;
    println!("PROBE loop-back {left} {right}: after the bind {:?}", drain(host)?);
    host.events.notify(left)?;
    let first = take(host)?;
    host.events.notify(left)?;
    println!("PROBE taken {first:?}, masked {:?}", take(host)?);
    let kept = host.events.handles().iter().map(|fd| fd.try_clone_to_owned()).collect::<Result<_, _>>()?;
    *host = Host::adopt(spec, kept)?;
    println!("PROBE adopted, masked {:?}", take(host)?);
    host.events.unmask(right)?;
    println!("PROBE adopted, unmasked {:?}", drain(host)?);
    host.events.notify(right)?;
    println!("PROBE the other way: {:?}", drain(host)?);
    host.events.unbind(right)?;
    let silent = host.events.notify(left);
    println!("PROBE notify of nobody: {}", refused(silent));
    let again = host.events.bind_interdomain(DomId::DOM0, left)?;
    println!("PROBE bound again {again}: {:?}", drain(host)?);
    println!("PROBE notify of a foreign port: {}", refused(host.events.notify(Port(3))));
    println!("PROBE unmask of a foreign port: {}", refused(host.events.unmask(Port(3))));
    Ok(())
}

/// Takes all that comes until it is quiet.
fn drain(host: &mut Host) -> hypervisor::Result<Vec<Port>> {
    let mut ports = vec![];
    while let Some(port) = take(host)? {
        host.events.unmask(port)?;
        ports.push(port);
    }
    Ok(ports)
}

/// The next port within half a second.
fn take(host: &mut Host) -> hypervisor::Result<Option<Port>> {
    let deadline = Instant::now() + Duration::from_millis(500);
    while Instant::now() < deadline {
        if let Some(port) = host.events.pending()? {
            return Ok(Some(port));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(None)
}
