//! Streams and futures of any kind, as the application's traits pass them.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

/// An ordered byte stream that a session can run on. Every type that fits the bounds is one.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A stream of any kind.
pub type BoxedStream = Box<dyn Stream>;

/// A future of any kind, as the traits that an application implements return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Data that an application attaches to a target for its own [`Connector`](crate::Connector).
pub type TargetData = Arc<dyn Any + Send + Sync>;
