//! pingora-pool: connections by a number that its user makes of the key.

use pingora_pool::{ConnectionMeta, ConnectionPool};

use super::{Connection, Keys, case};
use crate::harness::Case;

/// Get and put. Its proxy also spawns a task per idle connection, to watch it: left out here, and so
/// is the hashing of the key to its number.
pub fn pingora<'a>(keys: &Keys<'a>) -> Case<'a> {
    let pool = ConnectionPool::new(2 * keys.peers.len());
    let metas: Vec<_> =
        (0..keys.peers.len()).map(|at| ConnectionMeta::new(at as u64, at as i32)).collect();
    for (at, meta) in metas.iter().enumerate() {
        pool.put(meta, Connection(at as u64));
    }
    case("pingora-pool", keys.order, move |at| {
        let meta = &metas[at];
        let Some(held) = pool.get(&meta.key) else { return u64::MAX };
        let number = held.0;
        pool.put(meta, held);
        number
    })
}
