//! Networks that answer a turned frame with the turned answer.
//!
//! A lattice may lie in any direction, and turning the frame turns P and exchanges the cell's edges. A network need not learn that
//! from examples: its channels stand for each other in groups of four (or two), the weights of a filter being those of
//! the one before it, turned by 90° (180°) (Cohen & Welling, "Group equivariant convolutional networks", ICML 2016). What such a network
//! says of a lattice without P, over all positions of the window, is 0 whatever it has learned, since half a turn makes that lattice itself
//! and P its negative.
//!
//! The weights are kept whole, so that a tied network is evaluated as any other: they begin tied, and every gradient is replaced
//! by its mean over the turns, which keeps them so.

use crate::networks::Dcnn;
use burn::module::Param;
use burn::nn::conv::Conv2d;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

/// Largest part of the squared weights that a tied network may have outside of what ties it: rounding.
const LOOSE: f32 = 1e-6;

/// By which turns of the frame a network's answers turn with it, exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turns {
    #[default]
    None,
    /// By 180°.
    Half,
    /// By 90°.
    Quarter,
}

/// What the smallest turn makes of channels: each becomes another one, with a sign.
#[derive(Debug, Clone, PartialEq)]
struct Exchange {
    /// For every channel, the one whose place it takes.
    from: Vec<usize>,
    signs: Vec<f32>,
}

impl Exchange {
    /// Groups of `order` channels that follow each other.
    fn groups(channels: usize, order: usize) -> Self {
        let from = (0..channels).map(|c| c / order * order + (c % order + order - 1) % order).collect();
        Self { from, signs: vec![1.0; channels] }
    }

    fn unmoved(channels: usize) -> Self {
        Self::groups(channels, 1)
    }

    fn on(&self, device: &Device) -> Moves {
        let from: Vec<i64> = self.from.iter().map(|&channel| channel as i64).collect();
        Moves {
            from: Tensor::from_ints(from.as_slice(), device),
            signs: Tensor::from_floats(self.signs.as_slice(), device),
        }
    }
}

/// An [`Exchange`] on a device.
#[derive(Debug)]
struct Moves {
    from: Tensor<1, Int>,
    signs: Tensor<1>,
}

impl Moves {
    fn apply<const D: usize>(&self, x: Tensor<D>, dim: usize) -> Tensor<D> {
        let mut shape = [1; D];
        shape[dim] = self.signs.dims()[0];
        x.select(dim, self.from.clone()) * self.signs.clone().reshape(shape)
    }
}

/// What ties the weights of one network, on its device. Made by [`Turns::of`].
#[derive(Debug)]
pub(super) struct Ties {
    turns: Turns,
    /// What the smallest turn makes of inputs and outputs of every convolution of [`Dcnn::convolutions`]; none where nothing is tied.
    layers: Vec<[Moves; 2]>,
}

impl Turns {
    /// Turns until the frame is itself again.
    const fn order(self) -> usize {
        match self {
            Self::None => 1,
            Self::Half => 2,
            Self::Quarter => 4,
        }
    }

    /// P_x, P_y, a, b, angle, area, ln sigma, as deviations from means that a turn does not change.
    fn outputs(self) -> Exchange {
        let unmoved = Exchange::unmoved(7);
        match self {
            Self::None => unmoved,
            Self::Half => Exchange { signs: vec![-1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0], ..unmoved },
            // Counter-clockwise as displayed: right becomes up, down becomes right.
            Self::Quarter => {
                Exchange { from: vec![1, 0, 3, 2, 4, 5, 6], signs: vec![1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0] }
            }
        }
    }

    /// What the smallest turn makes of the last two dimensions.
    fn turn(self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::None => x,
            Self::Half => x.flip([2, 3]),
            Self::Quarter => x.swap_dims(2, 3).flip([2]),
        }
    }

    /// What ties the weights of `network` and of all that are built as it is, as long as they or their gradients are on `device`, without
    /// automatic differentiation.
    pub(super) fn of(self, network: &Dcnn, device: &Device) -> Ties {
        let convolutions = if self == Self::None { Vec::new() } else { network.convolutions() };
        let last = convolutions.len().saturating_sub(1);
        let each = convolutions.into_iter().enumerate().map(|(index, layer)| {
            let [outputs, inputs, ..] = layer.weight.dims();
            let inputs =
                if index == 0 { Exchange::unmoved(inputs) } else { Exchange::groups(inputs, self.order()) };
            let outputs =
                if index == last { self.outputs() } else { Exchange::groups(outputs, self.order()) };
            [inputs, outputs].map(|exchange| exchange.on(device))
        });
        Ties { turns: self, layers: each.collect() }
    }

    /// Mean, over the turns, of deviations of the outputs other than ln sigma.
    pub(super) fn output_mean(self, deviations: [f64; 6]) -> [f64; 6] {
        let Exchange { from, signs } = self.outputs();
        let turned = |v: &[f64; 6]| std::array::from_fn(|k| v[from[k]] * f64::from(signs[k]));
        let all = std::iter::successors(Some(deviations), |v| Some(turned(v)));
        let sum = all.take(self.order()).fold([0.0; 6], |sum, v| std::array::from_fn(|k| sum[k] + v[k]));
        sum.map(|sum| sum / self.order() as f64)
    }
}

impl Ties {
    fn weight_mean(&self, weight: Tensor<4>, [inputs, outputs]: &[Moves; 2]) -> Tensor<4> {
        self.mean(weight, |x| inputs.apply(outputs.apply(self.turns.turn(x), 0), 1))
    }

    fn bias_mean(&self, bias: Tensor<1>, [_, outputs]: &[Moves; 2]) -> Tensor<1> {
        self.mean(bias, |x| outputs.apply(x, 0))
    }

    /// Mean of `x` and of what every turn makes of it.
    fn mean<const D: usize>(&self, x: Tensor<D>, turned: impl Fn(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
        let order = self.turns.order();
        let (sum, _) = (1..order).fold((x.clone(), x), |(sum, last), _| {
            let next = turned(last);
            (sum + next.clone(), next)
        });
        sum / order as f32
    }

    /// The network with every weight replaced by its mean over the turns.
    pub(super) fn tied(&self, mut network: Dcnn) -> Dcnn {
        for (layer, moves) in network.convolutions_mut().into_iter().zip(&self.layers) {
            let Conv2d { weight, bias, .. } = layer;
            *weight = weight.clone().map(|weight| self.weight_mean(weight, moves));
            *bias = bias.take().map(|bias: Param<Tensor<1>>| bias.map(|bias| self.bias_mean(bias, moves)));
        }
        network
    }

    /// Whether the network is tied, but for rounding.
    pub(super) fn ties(&self, network: &Dcnn) -> bool {
        let size = |x: Tensor<4>| (x.clone() * x).sum().try_into_scalar::<f32>().unwrap_or(f32::NAN);
        network.convolutions().into_iter().zip(&self.layers).all(|(layer, moves)| {
            let weight = layer.weight.val();
            let loose = weight.clone() - self.weight_mean(weight.clone(), moves);
            size(loose) <= LOOSE * size(weight)
        })
    }

    /// The part of the gradients that leaves a tied network tied.
    pub(super) fn tie_gradients(&self, network: &Dcnn, gradients: &mut GradientsParams) {
        for (layer, moves) in network.convolutions().into_iter().zip(&self.layers) {
            if let Some(weight) = gradients.remove::<4>(layer.weight.id) {
                gradients.register(layer.weight.id, self.weight_mean(weight, moves));
            }
            let Some(bias) = &layer.bias else { continue };
            if let Some(gradient) = gradients.remove::<1>(bias.id) {
                gradients.register(bias.id, self.bias_mean(gradient, moves));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{Architecture, DcnnConfig, HeadKind, LoadedModel, Padding, write_untrained};
    use burn::module::Module;
    use burn::tensor::Distribution;

    /// Outputs of one window. 78 px: the second pooling leaves no feature out, so that the window is the same from all sides.
    fn answer(network: &Dcnn, frame: Tensor<4>) -> Vec<f32> {
        let map = network.context(frame);
        network.fully_connected(map, 4).to_data().try_into_vec().unwrap()
    }

    fn network() -> Dcnn {
        let config = DcnnConfig { padding: Padding::Valid, head: HeadKind::Deep, window_px: 78, outputs: 7 };
        let folder = tempfile::tempdir().unwrap();
        write_untrained(folder.path(), Architecture::Dcnn(config), 3).unwrap();
        LoadedModel::dcnn(folder.path(), &Device::flex()).unwrap().network
    }

    #[test]
    fn a_tied_network_answers_a_turned_frame_with_the_turned_answer() {
        let device = Device::flex();
        device.seed(5);
        let frame = Tensor::<4>::random([1, 1, 78, 78], Distribution::Normal(0.0, 1.0), &device);
        type Answer = fn(&[f32]) -> Vec<f32>;
        let half: Answer = |v| vec![-v[0], -v[1], v[2], v[3], v[4], v[5], v[6]];
        // What pointed right points up, which is -y; what pointed down points right.
        let quarter: Answer = |v| vec![v[1], -v[0], v[3], v[2], -v[4], v[5], v[6]];
        for (turns, expected) in [(Turns::Half, half), (Turns::Quarter, quarter)] {
            let ties = turns.of(&network(), &device);
            let network = ties.tied(network());
            let size = |values: &[f32]| values.iter().map(|v| v * v).sum::<f32>().sqrt();
            let straight = answer(&network, frame.clone());
            let turned = answer(&network, turns.turn(frame.clone()));
            let difference: Vec<f32> = turned.iter().zip(expected(&straight)).map(|(a, b)| a - b).collect();
            assert!(size(&straight) > 0.0);
            assert!(size(&difference) < 1e-4 * size(&straight), "{turns:?}: {straight:?} {turned:?}");
            assert!(ties.ties(&network));
        }
    }

    #[test]
    fn a_bias_that_the_turns_exclude_has_mean_zero() {
        let bias = [1.0, 2.0, 3.0, 5.0, 6.0, 7.0];
        assert_eq!(Turns::None.output_mean(bias), bias);
        assert_eq!(Turns::Half.output_mean(bias), [0.0, 0.0, 3.0, 5.0, 6.0, 7.0]);
        assert_eq!(Turns::Quarter.output_mean(bias), [0.0, 0.0, 4.0, 4.0, 0.0, 7.0]);
        let loose = network();
        assert!(!Turns::Half.of(&loose, &Device::flex()).ties(&loose));
        assert!(Turns::None.of(&loose, &Device::flex()).ties(&loose));
    }

    #[test]
    fn tied_gradients_leave_a_tied_network_tied() {
        let device = Device::flex().autodiff();
        let ties = Turns::Quarter.of(&network(), &Device::flex());
        let network = ties.tied(network()).train();
        device.seed(6);
        let frames = Tensor::<4>::random([2, 1, 78, 78], Distribution::Normal(0.0, 1.0), &device);
        let outputs = network.fully_connected(network.context(frames), 4);
        let mut gradients =
            GradientsParams::from_grads((outputs.clone() * outputs).sum().backward(), &network);
        let pick = |gradients: &GradientsParams| {
            let layers = network.convolutions();
            layers.iter().map(|layer| gradients.get::<4>(layer.weight.id).unwrap()).collect::<Vec<_>>()
        };
        let loose = pick(&gradients);
        ties.tie_gradients(&network, &mut gradients);
        let size = |x: Tensor<4>| (x.clone() * x).sum().into_scalar::<f32>().sqrt();
        let mut taken = 0.0f32;
        for ((tied, loose), moves) in pick(&gradients).into_iter().zip(loose).zip(&ties.layers) {
            let again = ties.weight_mean(tied.clone(), moves);
            let all = size(tied.clone());
            assert!(all > 0.0 && size(again - tied.clone()) < 1e-5 * all);
            taken = taken.max(size(loose - tied) / all);
        }
        assert!(taken > 1e-3, "{taken}");
    }
}
