//! Where messages come from: each source sends along one random path for a while, then along
//! another.
//!
//! Owns the choice of paths. It never sends along a path with a router in it that is about to go,
//! and never has more under way than its router's window.

use std::sync::Arc;

use rand::rngs::StdRng;

use crate::packet;
use crate::router::{Overlay, Router};

/// Messages along one path before the next is built.
const PER_PATH: usize = 200;

/// What a source sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Hops of a path.
    pub(crate) hops: usize,
    /// Bytes of a message.
    pub(crate) size: usize,
}

/// Sends until all messages of the run have been sent.
pub(crate) async fn run(
    router: Arc<Router>,
    overlay: Arc<Overlay>,
    traffic: Traffic,
    mut rng: StdRng,
) {
    let mut changes = overlay.netdb.changes();
    loop {
        changes.mark_seen();
        let path = overlay.netdb.path(&router.peer, traffic.hops, &mut rng);
        let path = path.filter(|_| overlay.netdb.all_open(&[router.peer]));
        let Some(path) = path else {
            // Too many routers are down, or this one is: only a change can help.
            changes.next().await;
            continue;
        };
        for _ in 0..PER_PATH {
            let Some(room) = overlay.ledger.room(router.number).await else {
                return;
            };
            if !overlay.netdb.all_open(&path) || !overlay.netdb.all_open(&[router.peer]) {
                break;
            }
            let stamp = {
                let _open = overlay.gate.read().await;
                overlay.ledger.take(router.number, room)
            };
            let Some(stamp) = stamp else {
                return;
            };
            let body = packet::build(stamp, &path, traffic.size);
            router.carry(path[0], body).await;
        }
    }
}
