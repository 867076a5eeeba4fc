//! Which of a PyTorch network's tensors is which of ours, by name and shape.

use super::{ForeignArchitecture, ImportError, some};
use crate::networks::dcnn::{BLOCKS, DcnnConfig, FEATURE_CHANNELS, HeadKind, POOLING, Padding};
use crate::networks::fcnn::FcnnConfig;
use crate::networks::import::state::StateDict;
use crate::networks::manifest::Architecture;

/// PyTorch counts the batches that a normalisation has seen; no part of the network.
const COUNTER: &str = "num_batches_tracked";
/// Filters of AtomAI's first block, where the file does not say.
const ATOMAI_FILTERS: usize = 16;
/// AtomAI's blocks and ours, with the filters of their layers, input first, in multiples of the first block's (0: the image).
const UNET_BLOCKS: [(&str, &str, &[usize]); 7] = [
    ("c1.block", "down1", &[0, 1]),
    ("c2.block", "down2", &[1, 2, 2]),
    ("c3.block", "down3", &[2, 4, 4]),
    ("bn.atrous_module", "bottleneck", &[4, 8, 8, 8]),
    ("c4.block", "merge3", &[8, 4, 4]),
    ("c5.block", "merge2", &[4, 2, 2]),
    ("c6.block", "merge1", &[2, 1]),
];
const UNET_POINTWISE: [(&str, &str, [usize; 2]); 3] = [
    ("upsample_block1.conv", "up3", [8, 4]),
    ("upsample_block2.conv", "up2", [4, 2]),
    ("upsample_block3.conv", "up1", [2, 1]),
];
/// Background last, and two sublattices.
const CLASSES: usize = 3;
/// A normalisation's tensors, PyTorch's and ours.
const NORM: [(&str, &str); 4] =
    [("weight", "gamma"), ("bias", "beta"), ("running_mean", "running_mean"), ("running_var", "running_var")];

/// One tensor: its name and shape in the file, and its name and shape here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    pub theirs: String,
    pub ours: String,
    pub shape: Vec<usize>,
    /// Differs where PyTorch's head is a matrix and ours is a window-sized kernel.
    pub our_shape: Vec<usize>,
}

/// The layers that `architecture` must have, and what it is called here.
pub(super) fn layers(
    state: &StateDict,
    architecture: &ForeignArchitecture,
) -> Result<(Architecture, Vec<Layer>), ImportError> {
    let mut layers = Layers(Vec::new());
    let ours = match architecture {
        ForeignArchitecture::AtomaiUnet { .. } => Architecture::Fcnn(layers.unet(state)),
        ForeignArchitecture::Dcnn { padding, outputs } => {
            Architecture::Dcnn(layers.dcnn(state, *padding, outputs.len())?)
        }
    };
    check(state, &layers.0)?;
    Ok((ours, layers.0))
}

struct Layers(Vec<Layer>);

impl Layers {
    fn add(&mut self, theirs: String, ours: String, shape: &[usize]) {
        self.0.push(Layer { theirs, ours, shape: shape.to_vec(), our_shape: shape.to_vec() });
    }

    fn convolution(&mut self, theirs: &str, ours: &str, shape: [usize; 4]) {
        self.add(format!("{theirs}.weight"), format!("{ours}.weight"), &shape);
        self.add(format!("{theirs}.bias"), format!("{ours}.bias"), &shape[..1]);
    }

    fn norm(&mut self, theirs: &str, ours: &str, channels: usize) {
        for (their_name, our_name) in NORM {
            self.add(format!("{theirs}.{their_name}"), format!("{ours}.{our_name}"), &[channels]);
        }
    }

    fn unet(&mut self, state: &StateDict) -> FcnnConfig {
        let filters = state.shape("c1.block.0.weight").and_then(|shape| shape.first().copied());
        let filters = filters.filter(|n| (1..=256).contains(n)).unwrap_or(ATOMAI_FILTERS);
        for (theirs, ours, widths) in UNET_BLOCKS {
            for (n, pair) in widths.windows(2).enumerate() {
                // Each layer is convolution, activation, normalisation.
                let shape = [pair[1] * filters, (pair[0] * filters).max(1), 3, 3];
                self.convolution(&format!("{theirs}.{}", 3 * n), &format!("{ours}.{n}.conv"), shape);
                self.norm(&format!("{theirs}.{}", 3 * n + 2), &format!("{ours}.{n}.norm"), shape[0]);
            }
        }
        for (theirs, ours, [from, to]) in UNET_POINTWISE {
            self.convolution(theirs, ours, [to * filters, from * filters, 1, 1]);
        }
        self.convolution("px", "classes", [CLASSES, filters, 1, 1]);
        FcnnConfig { filters, classes: CLASSES }
    }

    fn dcnn(
        &mut self,
        state: &StateDict,
        padding: Padding,
        outputs: usize,
    ) -> Result<DcnnConfig, ImportError> {
        let (mut place, mut channels) = (0, 1);
        for (block, filters) in BLOCKS.iter().enumerate() {
            for (n, &filters) in filters.iter().enumerate() {
                let ours = format!("block{}.{n}", block + 1);
                self.convolution(&place.to_string(), &ours, [filters, channels, 3, 3]);
                channels = filters;
                place += 2;
            }
            // The pooling stands between the second block and the third.
            place += usize::from(block == 1);
        }
        self.norm(&place.to_string(), "norm", FEATURE_CHANNELS);
        // Normalisation, dropout, flattening.
        let head = (place + 3).to_string();
        let weight = format!("{head}.weight");
        let inputs = state.shape(&weight).and_then(|shape| shape.get(1).copied());
        let paper = DcnnConfig { padding, head: HeadKind::Linear, window_px: 80, outputs }.window_features();
        let side = inputs.map_or(paper, |inputs| (inputs / FEATURE_CHANNELS).isqrt());
        let window_px = match padding {
            Padding::Valid => POOLING * (side + 4) + 14,
            Padding::Same => POOLING * side,
        };
        let config = DcnnConfig { padding, head: HeadKind::Linear, window_px, outputs };
        if side == 0 || side > 256 {
            let expected = format!("{FEATURE_CHANNELS} x side², side 1 to 256");
            let message = format!("{weight} has {} inputs, expected {expected}", inputs.unwrap_or_default());
            return Err(ImportError::Layers { message });
        }
        let flat = [outputs, FEATURE_CHANNELS * side * side];
        self.0.push(Layer {
            theirs: weight,
            ours: "head.weight".to_owned(),
            shape: flat.to_vec(),
            our_shape: vec![outputs, FEATURE_CHANNELS, side, side],
        });
        self.add(format!("{head}.bias"), "head.bias".to_owned(), &[outputs]);
        Ok(config)
    }
}

/// The tensors that are no layer's and need none.
pub(super) fn ignored(state: &StateDict) -> Vec<String> {
    state.names().filter(|name| name.ends_with(COUNTER)).map(str::to_owned).collect()
}

/// Names what is missing, of another shape, or superfluous.
fn check(state: &StateDict, layers: &[Layer]) -> Result<(), ImportError> {
    let mut complaints = Vec::new();
    let missing: Vec<String> = layers
        .iter()
        .filter(|layer| state.shape(&layer.theirs).is_none())
        .map(|layer| format!("{} {:?}", layer.theirs, layer.shape))
        .collect();
    if !missing.is_empty() {
        complaints.push(format!("missing: {}", some(&missing)));
    }
    let differ: Vec<String> = layers
        .iter()
        .filter_map(|layer| Some((layer, state.shape(&layer.theirs)?)))
        .filter(|(layer, found)| layer.shape != *found)
        .map(|(layer, found)| format!("{} is {found:?}, expected {:?}", layer.theirs, layer.shape))
        .collect();
    if !differ.is_empty() {
        complaints.push(format!("of another shape: {}", some(&differ)));
    }
    let known: std::collections::HashSet<&str> = layers.iter().map(|layer| layer.theirs.as_str()).collect();
    let superfluous: Vec<&str> =
        state.names().filter(|name| !known.contains(name) && !name.ends_with(COUNTER)).collect();
    if !superfluous.is_empty() {
        complaints.push(format!("superfluous: {}", some(&superfluous)));
    }
    if complaints.is_empty() { Ok(()) } else { Err(ImportError::Layers { message: complaints.join("; ") }) }
}
