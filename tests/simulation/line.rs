//! The connections of a run: turmoil's TCP, and what happens to a single one of them.
//!
//! What befalls a link befalls all of its connections, and at once. The rarest rows of the tables need
//! one of two crossing connections to break, or to be late, while the other goes on: that is a
//! [`Mishap`], and the initiator's end is where it happens.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use noise_pool::io::{BoxFuture, BoxedStream, TargetData};
use noise_pool::{Address, Connector, PeerId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use turmoil::net::TcpStream;

use crate::router::{Seat, name};

/// A router listens on both: two addresses make dials race.
pub(crate) const PORTS: [u16; 2] = [9000, 9001];
/// What an initiator reads before the verdict: the length of message 2, and message 2.
const MESSAGE_2: usize = 2 + 65;

/// What happens to one connection at its initiator.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mishap {
    /// It breaks when the verdict comes.
    Breaks,
    /// The verdict, and all behind it, comes so much later.
    Lags(Duration),
    /// From the verdict on, it takes nothing that is written.
    Stalls,
}

/// Opens streams through the simulated network.
pub(crate) struct SimulatedTcp(pub(crate) Arc<Seat>);

impl Connector for SimulatedTcp {
    fn resolve<'a>(
        &'a self,
        peer: &'a PeerId,
        _data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<Vec<Address>>> {
        Box::pin(async move {
            let number = self.0.peers.iter().position(|other| other == peer).unwrap();
            let ports = &PORTS[..if self.0.two_ports { 2 } else { 1 }];
            Ok(ports.iter().map(|p| format!("{}:{p}", name(number)).parse().unwrap()).collect())
        })
    }

    fn connect<'a>(
        &'a self,
        address: &'a Address,
        _data: Option<&'a TargetData>,
    ) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            let address = address.to_string();
            let stream = TcpStream::connect(&address).await?;
            let peer = (0..self.0.peers.len())
                .find(|n| address.split(':').next() == Some(&name(*n)))
                .unwrap();
            let mishap = self.0.mishaps.lock().unwrap().remove(&peer);
            Ok(Box::new(Line::opened(stream, self.0.clone(), mishap)) as BoxedStream)
        })
    }
}

/// One connection.
pub(crate) struct Line {
    stream: TcpStream,
    seat: Arc<Seat>,
    mishap: Option<Mishap>,
    /// Bytes that are still to come before the verdict, if this end is the initiator.
    to_verdict: usize,
    /// How long the verdict still takes.
    lag: Option<Pin<Box<Sleep>>>,
    takes_nothing: bool,
}

impl Line {
    /// The responder's end: mishaps happen at the other.
    pub(crate) fn accepted(stream: TcpStream, seat: Arc<Seat>) -> Self {
        Self { stream, seat, mishap: None, to_verdict: 0, lag: None, takes_nothing: false }
    }

    fn opened(stream: TcpStream, seat: Arc<Seat>, mishap: Option<Mishap>) -> Self {
        Self { mishap, to_verdict: MESSAGE_2, ..Self::accepted(stream, seat) }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before_verdict = self.to_verdict > 0;
        if !before_verdict && let Some(Mishap::Lags(time)) = self.mishap {
            self.mishap = None;
            self.lag = Some(Box::pin(sleep(time)));
        }
        if let Some(lag) = &mut self.lag {
            ready!(lag.as_mut().poll(cx));
            self.lag = None;
        }
        let max = if before_verdict { self.to_verdict } else { usize::MAX };
        let max = max.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(max));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        if read > 0 && self.seat.flip.swap(false, Ordering::Relaxed) {
            part.filled_mut()[read - 1] ^= 1;
        }
        buf.advance(read);
        if before_verdict {
            self.to_verdict -= read;
        } else {
            match self.mishap.take() {
                Some(Mishap::Breaks) => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Some(Mishap::Stalls) => self.takes_nothing = true,
                Some(Mishap::Lags(_)) | None => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.takes_nothing {
            // For good: nobody need be woken.
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
