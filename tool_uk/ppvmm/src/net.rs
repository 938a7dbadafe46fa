//! `ppvmm net`: the network backend over its Unix socket.

use std::path::Path;

use api::v1::{self, net_client::NetClient};
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;

use crate::args::{EventsArgs, NetCommand, Output};
use crate::client::{bounded, channel, failure, health, is_refusal};
use crate::exit::Failure;
use crate::{print, say, say_health, unix_ms};

/// Does it.
///
/// # Errors
/// [`Failure`], or what else went wrong.
pub async fn run(socket: &Path, command: &NetCommand) -> anyhow::Result<()> {
    let channel = channel(socket.to_owned()).await;
    let channel = channel.map_err(|why| Failure::NoNet { socket: socket.to_owned(), why })?;
    let mut client = NetClient::new(channel.clone());
    match command {
        // They are done without it.
        NetCommand::Up(_) | NetCommand::Down => Ok(()),
        NetCommand::Status { output } => status(&mut client, *output).await,
        NetCommand::Events(args) => events(&mut client, args).await,
        NetCommand::Metrics => {
            let answer = client.metrics(bounded(v1::NetMetricsRequest {})).await;
            say(&answer.map_err(|status| failure(&status))?.into_inner().text)
        }
        NetCommand::Inject { fault, target } => {
            let request = v1::NetInjectRequest { target: target.clone(), fault: fault.clone() };
            match client.inject(bounded(request)).await {
                Ok(answer) => say(&format!("{target} (pid {})", answer.into_inner().pid)),
                // It is the one that would have answered.
                Err(status) if target == "keeper" && !is_refusal(status.code()) => say(target),
                Err(status) => Err(failure(&status)),
            }
        }
        NetCommand::Health { service } => {
            say_health(service, &health(&mut HealthClient::new(channel), service).await?)
        }
    }
}

async fn status(client: &mut NetClient<Channel>, output: Output) -> anyhow::Result<()> {
    let answer = client.status(bounded(v1::NetStatusRequest {})).await;
    let status = answer.map_err(|status| failure(&status))?.into_inner();
    match output {
        Output::Json => say(&print::net::status_json(&status)?),
        Output::Table => say(&print::net::status_table(&status, unix_ms())),
    }
}

async fn events(client: &mut NetClient<Channel>, args: &EventsArgs) -> anyhow::Result<()> {
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
