//! Counters, latencies and health of the running daemon.
