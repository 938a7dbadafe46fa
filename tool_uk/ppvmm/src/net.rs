//! `ppvmm net`: the network backend over its Unix socket.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use api::v1::{self, net_client::NetClient};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::args::{NetCommand, Output};
use crate::client::{bounded, channel, failure};
use crate::exit::Failure;
use crate::{print, say};

/// Does it.
///
/// # Errors
/// [`Failure`], or what else went wrong.
pub async fn run(socket: &Path, command: &NetCommand) -> anyhow::Result<()> {
    let channel = channel(socket.to_owned()).await;
    let channel = channel.map_err(|why| Failure::NoNet { socket: socket.to_owned(), why })?;
    let mut client = NetClient::new(channel.clone());
    match command {
        NetCommand::Status { output } => status(&mut client, *output).await,
        NetCommand::Events { follow, last, output } => events(&mut client, *last, *follow, *output).await,
        NetCommand::Metrics => {
            let answer = client.metrics(bounded(v1::NetMetricsRequest {})).await;
            say(&answer.map_err(|status| failure(&status))?.into_inner().text)
        }
        NetCommand::Inject { fault, target } => {
            let request = v1::NetInjectRequest { target: target.clone(), fault: fault.clone() };
            let answer = client.inject(bounded(request)).await.map_err(|status| failure(&status))?;
            say(&format!("{target} (pid {})", answer.into_inner().pid))
        }
        NetCommand::Health { service } => health(channel, service).await,
    }
}

async fn status(client: &mut NetClient<Channel>, output: Output) -> anyhow::Result<()> {
    let answer = client.status(bounded(v1::NetStatusRequest {})).await;
    let status = answer.map_err(|status| failure(&status))?.into_inner();
    match output {
        Output::Json => say(&print::net::status_json(&status)?),
        Output::Table => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            say(&print::net::status_table(&status, i64::try_from(now.as_millis()).unwrap_or(i64::MAX)))
        }
    }
}

async fn events(
    client: &mut NetClient<Channel>,
    replay_last: u32,
    follow: bool,
    output: Output,
) -> anyhow::Result<()> {
    let answer = client.events(v1::NetEventsRequest { replay_last, follow }).await;
    let mut stream = answer.map_err(|status| failure(&status))?.into_inner();
    while let Some(response) = stream.message().await? {
        // An item of a newer backend's kind is passed over.
        let Some(item) = response.item else { continue };
        match output {
            Output::Json => say(&print::net::event_json(&item)?)?,
            Output::Table => say(&print::net::event_line(&item))?,
        }
    }
    Ok(())
}

async fn health(channel: Channel, service: &str) -> anyhow::Result<()> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel).check(bounded(request)).await;
    let health = answer.map_err(|status| failure(&status))?.into_inner();
    let health = health.status().as_str_name();
    say(health)?;
    if health == "SERVING" {
        return Ok(());
    }
    let name = if service.is_empty() { "the whole" } else { service };
    Err(Failure::NotServing(format!("{name} does not serve")).into())
}
