//! Sessions on real files: recorded and read back, foreign files, and files that are refused.

mod comparing;
mod dm_samples;
mod durability;
mod exporting;
mod foreign;
mod formats;
mod hostile;
mod reading;
mod recording;
mod replaying;
mod samples;
mod support;
