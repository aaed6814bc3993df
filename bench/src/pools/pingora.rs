//! pingora-pool: connections by a number that its user makes of the key.

use noise_pool::PeerId;
use pingora_pool::{ConnectionMeta, ConnectionPool};

use super::{Connection, case};
use crate::harness::Case;

/// Get and put. Its proxy also spawns a task per idle connection, to watch it: left out here, and so
/// is the hashing of the key to its number.
pub fn pingora<'a>(peers: &'a [PeerId]) -> Case<'a> {
    let pool = ConnectionPool::new(2 * peers.len());
    let metas: Vec<_> =
        (0..peers.len()).map(|at| ConnectionMeta::new(at as u64, at as i32)).collect();
    for (at, meta) in metas.iter().enumerate() {
        pool.put(meta, Connection(at as u64));
    }
    case("pingora-pool", peers.len(), move |at| {
        let meta = &metas[at];
        let Some(held) = pool.get(&meta.key) else { return u64::MAX };
        let number = held.0;
        pool.put(meta, held);
        number
    })
}
