//! Sessions on real files: recorded and read back, foreign files, and files that are refused.

mod dm_samples;
mod durability;
mod foreign;
mod formats;
mod hostile;
mod recording;
mod samples;
mod support;
