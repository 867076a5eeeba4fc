//! The texts that stand for variants and counters on the wire.

use crate::message::{CalibrationSource, CandidateKind, Counters, FrameState};

/// Gives each variant the name that the wire gives it, and back.
macro_rules! wire_names {
    ($type:ident { $($variant:ident = $name:literal),* $(,)? }) => {
        impl $type {
            /// The text that stands for it on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What the wire means by `name`; `None` for a text that stands for nothing.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

wire_names!(FrameState { Complete = "complete", Partial = "partial" });
wire_names!(CandidateKind {
    Ood = "ood",
    DomainWall = "domain_wall",
    Mistilt = "mistilt",
    Column = "column",
    Vortex = "vortex",
    Expression = "expression",
});
wire_names!(CalibrationSource { Frame = "frame", Config = "config", Lattice = "lattice", None = "none" });

impl Counters {
    /// Every counter with its name on the wire, in the order of the wire.
    pub const fn totals(&self) -> [(&'static str, u64); 10] {
        [
            ("received", self.received),
            ("processed", self.processed),
            ("superseded", self.superseded),
            ("gaps", self.gaps),
            ("repeats", self.repeats),
            ("restarts", self.restarts),
            ("rejected", self.rejected),
            ("partial_skipped", self.partial_skipped),
            ("publish_dropped", self.publish_dropped),
            ("record_dropped", self.record_dropped),
        ]
    }
}
