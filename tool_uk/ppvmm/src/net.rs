//! `ppvmm net`: the network backend over its Unix socket.

use std::path::Path;

use api::v1::{self, net_client::NetClient};
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;

use crate::args::{EventsArgs, NetCommand, Output};
use crate::client::{bounded, channel, failure, health, is_refusal};
use crate::exit::Failure;
use crate::{net_up, print, say, say_health, unix_ms};

/// Does it.
///
/// # Errors
/// [`Failure`], or what else went wrong.
pub async fn run(rundir: &Path, socket: &Path, command: &NetCommand) -> anyhow::Result<()> {
    match command {
        NetCommand::Up(args) => say(&net_up::up(rundir, args).await?),
        NetCommand::Down => say(&net_up::down(socket).await?),
        NetCommand::Status { output } => status(socket, *output).await,
        NetCommand::Events(args) => events(socket, args).await,
        NetCommand::Metrics => {
            let mut client = NetClient::new(connect(socket).await?);
            let answer = client.metrics(bounded(v1::NetMetricsRequest {})).await;
            say(&answer.map_err(|status| failure(&status))?.into_inner().text)
        }
        NetCommand::Inject { fault, target } => {
            let mut client = NetClient::new(connect(socket).await?);
            let request = v1::NetInjectRequest { target: target.clone(), fault: fault.clone() };
            match client.inject(bounded(request)).await {
                Ok(answer) => say(&format!("{target} (pid {})", answer.into_inner().pid)),
                // It is the one that would have answered.
                Err(status) if target == "keeper" && !is_refusal(status.code()) => say(target),
                Err(status) => Err(failure(&status)),
            }
        }
        NetCommand::Health { service } => {
            let mut client = HealthClient::new(connect(socket).await?);
            say_health(service, &health(&mut client, service).await?)
        }
    }
}

/// Connects to it.
///
/// # Errors
/// [`Failure::NoNet`].
pub async fn connect(socket: &Path) -> anyhow::Result<Channel> {
    let channel = channel(socket.to_owned()).await;
    Ok(channel.map_err(|why| Failure::NoNet { socket: socket.to_owned(), why })?)
}

/// What it says of itself.
///
/// # Errors
/// [`Failure::NoNet`], or what it answers.
pub async fn status_of(socket: &Path) -> anyhow::Result<v1::NetStatusResponse> {
    let mut client = NetClient::new(connect(socket).await?);
    let answer = client.status(bounded(v1::NetStatusRequest {})).await;
    Ok(answer.map_err(|status| failure(&status))?.into_inner())
}

async fn status(socket: &Path, output: Output) -> anyhow::Result<()> {
    let status = status_of(socket).await?;
    match output {
        Output::Json => say(&print::net::status_json(&status)?),
        Output::Table => say(&print::net::status_table(&status, unix_ms())),
    }
}

async fn events(socket: &Path, args: &EventsArgs) -> anyhow::Result<()> {
    let mut client = NetClient::new(connect(socket).await?);
    let EventsArgs { follow, last: replay_last, output } = *args;
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
