//! The endpoint of an instance: a port of its own that forwards bytes to the server behind it while the instance
//! accepts connections, and that cuts or refuses connections to order.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// A port that stays the same for the instance's life, listening or not.
pub(super) struct Endpoint {
    port: u16,
    shared: Arc<Shared>,
    backend: Option<u16>,
    refusing: bool,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    /// Bytes that may still go to clients before all connections are cut; then the order is spent.
    allowance: Mutex<Option<u64>>,
    /// Counts cuts; every connection ends when it grows.
    cuts: watch::Sender<u64>,
}

impl Endpoint {
    /// Picks a free port.
    pub(super) async fn new() -> io::Result<Self> {
        let port = free_port().await?;
        let shared = Arc::new(Shared { allowance: Mutex::new(None), cuts: watch::Sender::new(0) });
        Ok(Self { port, shared, backend: None, refusing: false, accepting: None })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Starts to forward to a local port.
    pub(super) async fn open(&mut self, backend: u16) -> io::Result<()> {
        self.backend = Some(backend);
        self.listen().await
    }

    /// Stops listening and cuts all connections.
    pub(super) fn close(&mut self) {
        self.backend = None;
        self.stop_listening();
        self.cut_now();
    }

    /// Refuses new connections (connection refused), or no longer.
    pub(super) async fn refuse(&mut self, refuse: bool) -> io::Result<()> {
        self.refusing = refuse;
        if refuse {
            self.stop_listening();
            return Ok(());
        }
        self.listen().await
    }

    /// Cuts all connections that are open now.
    pub(super) fn cut_now(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Cuts all connections when so many more bytes have gone to clients; once. `None` takes the order back.
    pub(super) fn cut_after(&self, bytes: Option<u64>) {
        *self.shared.allowance.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
    }

    fn stop_listening(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
        }
    }

    async fn listen(&mut self) -> io::Result<()> {
        let Some(backend) = self.backend.filter(|_| !self.refusing) else { return Ok(()) };
        self.stop_listening();
        // The aborted task gives its listener up when it is next polled, which may be after this.
        let listener = bind_patiently(self.port).await?;
        let shared = Arc::clone(&self.shared);
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, backend, Arc::clone(&shared)));
            }
        }));
        Ok(())
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close();
    }
}

/// A port that nobody uses right now, below those that the system hands to outgoing connections: an endpoint that is
/// closed for a while wants its port back.
pub(super) async fn free_port() -> io::Result<u16> {
    const LOWEST: u16 = 12_000;
    const NUMBER: u16 = 20_000;
    loop {
        let random = Uuid::new_v4().into_bytes();
        let port = LOWEST + u16::from_le_bytes([random[0], random[1]]) % NUMBER;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(_) => return Ok(port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
}

async fn bind_patiently(port: u16) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < 200 => tries += 1,
            done => return done,
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn forward(client: TcpStream, backend: u16, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    cuts.mark_unchanged();
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, backend)).await else { return };
    // Client and server both send small messages at once; the way between them must not hold these back (40 ms each,
    // by Nagle's algorithm and delayed acknowledgements).
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = cuts.changed() => {}
        () = upstream(from_client, to_server) => {}
        () = downstream(from_server, to_client, &shared) => {}
    }
}

async fn upstream(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    // Ends with either side; what the other side makes of it is not this proxy's affair.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

async fn downstream(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let (granted, cut) = {
            let mut allowance = shared.allowance.lock().unwrap_or_else(PoisonError::into_inner);
            match *allowance {
                Some(left) if left <= read as u64 => {
                    *allowance = None;
                    (usize::try_from(left).unwrap_or(read), true)
                }
                Some(left) => {
                    *allowance = Some(left - read as u64);
                    (read, false)
                }
                None => (read, false),
            }
        };
        if to.write_all(&buffer[..granted]).await.is_err() {
            return;
        }
        if cut {
            let _ = to.flush().await;
            shared.cuts.send_modify(|cuts| *cuts += 1);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Sends a stream of bytes to whoever connects.
    async fn chatty_server() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move { while stream.write_all(&[7; 1000]).await.is_ok() {} });
            }
        });
        port
    }

    async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, endpoint.port())).await
    }

    #[tokio::test]
    async fn cuts_after_exactly_the_bytes_ordered_and_only_once() {
        let mut endpoint = Endpoint::new().await.unwrap();
        endpoint.open(chatty_server().await).await.unwrap();
        endpoint.cut_after(Some(12_345));
        let mut all = Vec::new();
        let _ = connect(&endpoint).await.unwrap().read_to_end(&mut all).await;
        assert_eq!(all.len(), 12_345);
        let mut again = vec![0; 100_000];
        connect(&endpoint).await.unwrap().read_exact(&mut again).await.unwrap();
    }

    #[tokio::test]
    async fn refuses_and_closes_and_listens_again_on_the_same_port() {
        let mut endpoint = Endpoint::new().await.unwrap();
        assert!(connect(&endpoint).await.is_err());
        let backend = chatty_server().await;
        endpoint.open(backend).await.unwrap();
        let mut first = connect(&endpoint).await.unwrap();
        // Really accepted, not just waiting in the listener's queue.
        first.read_exact(&mut [0; 10]).await.unwrap();
        let port = endpoint.port();
        endpoint.refuse(true).await.unwrap();
        while connect(&endpoint).await.is_ok() {
            tokio::task::yield_now().await;
        }
        first.read_exact(&mut [0; 10]).await.unwrap();
        endpoint.refuse(false).await.unwrap();
        assert_eq!(endpoint.port(), port);
        connect(&endpoint).await.unwrap().read_exact(&mut [0; 10]).await.unwrap();
        endpoint.close();
        let mut rest = Vec::new();
        let _ = first.read_to_end(&mut rest).await;
        while connect(&endpoint).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
