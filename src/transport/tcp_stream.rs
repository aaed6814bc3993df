//! A TCP stream of which the kernel holds little beyond what it has sent.
//!
//! Owns the options of every TCP stream of the pool, dialled or accepted, and how it is written. What the
//! kernel holds can neither expire nor be passed by what is more urgent, and on a slow link it is seconds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that the kernel may hold unsent when it takes more.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 4 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct PacedStream(TcpStream);

impl PacedStream {
    /// Sets the options of a connected stream.
    ///
    /// # Errors
    /// What the system says of an option. The stream can be used all the same.
    pub(super) fn new(stream: TcpStream) -> (Self, io::Result<()>) {
        let set = configure(&stream);
        (Self(stream), set)
    }
}

fn configure(stream: &TcpStream) -> io::Result<()> {
    // The session already sends together what belongs together.
    stream.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}

/// Whether the kernel holds less than the bound. If it does not, it tells when it does. A write does not
/// say so: Linux looks at the bound when it begins a buffer, and then fills that one, 64 KiB and more.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn has_room(stream: &TcpStream) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut asked = [PollFd::new(stream, PollFlags::OUT)];
    Ok(poll(&mut asked, Some(&AT_ONCE))? > 0)
}

impl AsyncRead for PacedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for PacedStream {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        use std::task::ready;
        use tokio::io::Interest;

        loop {
            ready!(self.0.poll_write_ready(cx))?;
            let send = || {
                if has_room(&self.0)? {
                    socket2::SockRef::from(&self.0).send(bytes)
                } else {
                    Err(io::ErrorKind::WouldBlock.into())
                }
            };
            match self.0.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (PacedStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, set) = PacedStream::new(stream);
        set.unwrap();
        (stream, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn the_options_are_set() {
        let (stream, _theirs) = pair().await;
        assert!(stream.0.nodelay().unwrap());
        let socket = socket2::SockRef::from(&stream.0);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT);
    }

    #[tokio::test]
    async fn all_that_is_written_arrives_also_when_the_socket_is_full() {
        let (mut ours, mut theirs) = pair().await;
        let sent: Vec<u8> = (0..10_000_000_u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            ours.write_all(&sent).await.unwrap();
            ours.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        assert!(received == expected);
    }

    #[tokio::test]
    async fn a_stream_whose_reader_has_gone_gives_an_error() {
        let (mut ours, theirs) = pair().await;
        socket2::SockRef::from(&theirs).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(theirs);
        let error = loop {
            if let Err(error) = ours.write_all(&[7; 1 << 20]).await {
                break error;
            }
        };
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error:?}");
    }
}
