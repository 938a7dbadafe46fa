//! The same seeded requests, through the same client, to a real etcd and to this one: all answers must be equal.
//!
//! `SIM_ETCD_SEQUENCES` sets the number of sequences, `SIM_ETCD_FROM` the first seed.
#![expect(clippy::unwrap_used, reason = "a test")]

mod commands;

use std::time::Duration;

use commands::{Command, Commands};
use etcd_client::{AlarmAction, Client, DeleteOptions, WatchStream};
use etcd_stand::{EtcdStand, StandOptions};
use sim_etcd::{Cluster, ClusterOptions, Member};

const SEQUENCES: u64 = 12;
const COMMANDS: usize = 120;
/// etcd looks for watchers that have history to hear every 100 ms.
const SYNC: Duration = Duration::from_millis(250);
const ANSWER: Duration = Duration::from_secs(10);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

async fn simulated() -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let member = Member::new(&Cluster::new(ClusterOptions::default()), 0);
    tokio::spawn(member.serve(tokio_stream::wrappers::TcpListenerStream::new(listener)));
    Client::connect([format!("http://{address}")], None).await.unwrap()
}

/// Both, with what is open at each.
struct Pair {
    clients: [Client; 2],
    watches: [Vec<WatchStream>; 2],
    historic: bool,
}

impl Pair {
    async fn run(&mut self, command: &Command) {
        match command {
            Command::Watch(key, options) => {
                self.historic = true;
                for (client, watches) in self.clients.iter_mut().zip(&mut self.watches) {
                    watches.push(client.watch(key.clone(), Some(options.clone())).await.unwrap());
                }
            }
            command => {
                if matches!(command, Command::Compact(_)) && std::mem::take(&mut self.historic) {
                    tokio::time::sleep(SYNC).await;
                }
                let [real, ours] = &mut self.clients;
                let (real, ours) = (command.run(real).await, command.run(ours).await);
                assert_eq!(real, ours, "{command:?}");
            }
        }
    }

    /// A key that all watch comes, stays until no watch waits for a later revision, and goes: until then all events
    /// must be equal.
    async fn finish(mut self) {
        for client in &mut self.clients {
            for _ in 0..=COMMANDS {
                client.put(commands::LAST_KEY, "", None).await.unwrap();
            }
            let options = DeleteOptions::new().with_prev_key();
            client.delete(commands::LAST_KEY, Some(options)).await.unwrap();
        }
        let [real, ours] = &mut self.watches;
        for (number, (real, ours)) in real.iter_mut().zip(ours).enumerate() {
            let (real, ours) = (heard(real).await, heard(ours).await);
            assert_eq!(real, ours, "watch {number}");
        }
    }
}

/// All events up to the deletion of the last key, or to the watch's end.
async fn heard(watch: &mut WatchStream) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let next = tokio::time::timeout(ANSWER, watch.message()).await;
        let Some(response) = next.expect("in time").expect("an open watch") else { return heard };
        if response.canceled() {
            heard.push(format!("canceled, compacted {}", response.compact_revision()));
            return heard;
        }
        for event in response.events() {
            heard.push(format!("{event:?}"));
            let kv = event.kv().expect("events have keys");
            if kv.key() == commands::LAST_KEY && event.event_type() == etcd_client::EventType::Delete {
                return heard;
            }
        }
    }
}

#[tokio::test]
async fn answers_are_those_of_a_real_etcd() {
    let (from, count) = (number("SIM_ETCD_FROM", 1), number("SIM_ETCD_SEQUENCES", SEQUENCES));
    for seed in from..from + count {
        let flags = vec!["--unsafe-no-fsync".to_owned()];
        let etcd = EtcdStand::start_in_memory(1, StandOptions { flags, ..StandOptions::default() }).unwrap();
        let real = Client::connect(etcd.endpoints(), None).await.unwrap();
        let mut pair =
            Pair { clients: [real, simulated().await], watches: [vec![], vec![]], historic: false };
        let mut commands = Commands::new(seed);
        for number in 0..COMMANDS {
            let command = commands.next();
            println!("seed {seed} command {number}: {command:?}");
            pair.run(&command).await;
        }
        pair.run(&Command::Alarm(AlarmAction::Deactivate)).await;
        pair.finish().await;
    }
}
