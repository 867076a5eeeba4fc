//! Sessions on real files: recorded and read back, foreign files, and files that are refused.

mod durability;
mod foreign;
mod recording;
mod support;
