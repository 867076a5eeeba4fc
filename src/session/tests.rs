//! Sessions on real files: recorded and read back, foreign files, and files that are refused.

mod comparing;
mod exporting;
mod foreign;
mod recording;
mod replaying;
mod support;
