//! Sessions to measure with, and their other ends.

pub mod crowd;
pub mod idle;
pub mod mesh;
pub mod raw;
