//! A network that can be cut, both ways or one: what goes between a client and a server waits meanwhile, and goes on after.

use anyhow::Result;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What does not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing does.
    Both,
    /// What the client sends.
    Requests,
    /// What the server sends.
    Answers,
}

/// Ports on loopback that stand for others. Dropping it closes them and every connection through them.
#[derive(Debug)]
pub struct Network {
    cut: Arc<watch::Sender<Option<Cut>>>,
    _links: JoinSet<()>,
}

impl Network {
    /// Each pair is a port to listen on and the one that it stands for.
    pub async fn between(pairs: impl IntoIterator<Item = (u16, u16)>) -> Result<Self> {
        let cut = Arc::new(watch::Sender::new(None));
        let mut links = JoinSet::new();
        for (near, far) in pairs {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, near)).await?;
            links.spawn(link(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, far)), cut.clone()));
        }
        Ok(Self { cut, _links: links })
    }

    /// From now on this does not get through, or everything does again.
    pub fn cut(&self, cut: Option<Cut>) {
        self.cut.send_replace(cut);
    }
}

async fn link(listener: TcpListener, far: SocketAddr, cut: Arc<watch::Sender<Option<Cut>>>) {
    let mut pipes = JoinSet::new();
    loop {
        while pipes.try_join_next().is_some() {}
        let Ok((near, _)) = listener.accept().await else { continue };
        // One that is down refuses: so does its link, by closing.
        let Ok(far) = TcpStream::connect(far).await else { continue };
        let (_, _) = (near.set_nodelay(true), far.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (near.into_split(), far.into_split());
        pipes.spawn(pipe(from_client, to_server, cut.subscribe(), Cut::Requests));
        pipes.spawn(pipe(from_server, to_client, cut.subscribe(), Cut::Answers));
    }
}

async fn pipe(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut cut: watch::Receiver<Option<Cut>>,
    way: Cut,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let open = |cut: &Option<Cut>| !matches!(cut, Some(cut) if *cut == way || *cut == Cut::Both);
        if cut.wait_for(open).await.is_err() {
            return;
        }
        // An end gets through like everything else.
        let sent = if read == 0 { to.shutdown().await } else { to.write_all(&buffer[..read]).await };
        if read == 0 || sent.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn what_is_cut_waits_and_comes_when_it_is_mended() {
        let (near, far) = (ports::free(1), ports::free(1));
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, far)).await.unwrap();
        let network = Network::between([(near, far)]).await.unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, near)).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let (mut asked, mut answered) = ([0; 3], [0; 2]);
        for cut in [Cut::Requests, Cut::Answers, Cut::Both] {
            network.cut(Some(cut));
            client.write_all(b"ask").await.unwrap();
            served.write_all(b"ok").await.unwrap();
            let briefly = Duration::from_millis(50);
            let (ask, answer) = tokio::join!(
                timeout(briefly, served.read_exact(&mut asked)),
                timeout(briefly, client.read_exact(&mut answered))
            );
            assert_eq!(
                (ask.is_err(), answer.is_err()),
                (cut != Cut::Answers, cut != Cut::Requests),
                "{cut:?}"
            );
            network.cut(None);
            if ask.is_err() {
                served.read_exact(&mut asked).await.unwrap();
            }
            if answer.is_err() {
                client.read_exact(&mut answered).await.unwrap();
            }
            assert_eq!((&asked, &answered), (b"ask", b"ok"));
        }
        drop(network);
        assert_eq!(client.read(&mut asked).await.unwrap_or(0), 0, "it is closed");
    }
}
