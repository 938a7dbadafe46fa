//! Members of the simulated etcd on the simulated network.

use std::pin::Pin;
use std::task::{Context, Poll};

use sim_etcd::{Cluster, Member};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

use crate::engine::ETCD_PORT;

/// A connection as tonic's server wants it.
struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Serves a member for ever.
pub async fn serve_member(cluster: Cluster, id: usize) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", ETCD_PORT)).await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if sender.send(Ok::<_, std::io::Error>(Accepted(stream))).await.is_err() {
                break;
            }
        }
    });
    Member::new(&cluster, id).serve(tokio_stream::wrappers::ReceiverStream::new(receiver)).await?;
    Ok(())
}
