//! AtomAI's own network, with its own weights, run here: the probabilities that AtomAI 0.8.1 on PyTorch returned for a
//! real image of BaTiO3 come out again. Skipped unless `FERROSTEM_DATA` names the folder with `atomai_dilunet_m.npz`
//! and `atomai_golden_bto1.npz`.

use anyhow::{Context as _, Result, bail, ensure};
use ferrostem::networks::{
    Architecture, DeviceChoice, Engine, EngineSettings, FcnnConfig, Manifest, WeightsRef, write_untrained,
};
use ferrostem::preprocess::Normalisation;
use ndarray::{ArrayD, Ix2, Ix3};
use ndarray_npy::ReadNpyExt as _;
use safetensors::{Dtype, tensor::TensorView};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

/// AtomAI's blocks and ours.
const BLOCKS: [(&str, &str); 7] = [
    ("c1.block", "down1"),
    ("c2.block", "down2"),
    ("c3.block", "down3"),
    ("bn.atrous_module", "bottleneck"),
    ("c4.block", "merge3"),
    ("c5.block", "merge2"),
    ("c6.block", "merge1"),
];
const POINTWISE: [(&str, &str); 4] = [
    ("upsample_block1.conv", "up3"),
    ("upsample_block2.conv", "up2"),
    ("upsample_block3.conv", "up1"),
    ("px", "classes"),
];

/// The f32 arrays of an .npz file by name: the entries of a zip archive, read through its central directory.
fn read_npz(path: &Path) -> Result<BTreeMap<String, ArrayD<f32>>> {
    let file = std::fs::read(path).with_context(|| path.display().to_string())?;
    let bytes = |from: usize, count: usize| file.get(from..from + count).context("the archive ends early");
    let u16_at =
        |at: usize| Ok::<_, anyhow::Error>(usize::from(u16::from_le_bytes(bytes(at, 2)?.try_into()?)));
    let u32_at = |at: usize| Ok::<_, anyhow::Error>(u32::from_le_bytes(bytes(at, 4)?.try_into()?) as usize);
    let end = file.windows(4).rposition(|w| w == b"PK\x05\x06").context("not a zip archive")?;
    let (entries, mut at) = (u16_at(end + 10)?, u32_at(end + 16)?);
    let mut arrays = BTreeMap::new();
    for _ in 0..entries {
        ensure!(bytes(at, 4)? == b"PK\x01\x02", "the archive's directory is damaged");
        let (method, length, name_length) = (u16_at(at + 10)?, u32_at(at + 20)?, u16_at(at + 28)?);
        let name = std::str::from_utf8(bytes(at + 46, name_length)?)?.trim_end_matches(".npy").to_owned();
        let local = u32_at(at + 42)?;
        let data = bytes(local + 30 + u16_at(local + 26)? + u16_at(local + 28)?, length)?;
        let mut npy = Vec::new();
        match method {
            0 => npy.extend_from_slice(data),
            8 => _ = flate2::read::DeflateDecoder::new(data).read_to_end(&mut npy)?,
            other => bail!("{name}: compression method {other}"),
        }
        // PyTorch's step counters are integers, and no part of the network.
        if !name.ends_with("num_batches_tracked") {
            arrays.insert(name, ArrayD::read_npy(npy.as_slice())?);
        }
        at += 46 + name_length + u16_at(at + 30)? + u16_at(at + 32)?;
    }
    Ok(arrays)
}

/// Our name of one of AtomAI's parameters. Its blocks are flat lists of convolution, activation, normalisation.
fn our_name(name: &str) -> Option<String> {
    if let Some((block, rest)) =
        BLOCKS.iter().find_map(|(theirs, ours)| Some((ours, name.strip_prefix(theirs)?)))
    {
        let (child, parameter) = rest.strip_prefix('.')?.split_once('.')?;
        let child: usize = child.parse().ok()?;
        let parameter = match (child % 3, parameter) {
            (0, parameter) => format!("conv.{parameter}"),
            (2, "weight") => "norm.gamma".to_owned(),
            (2, "bias") => "norm.beta".to_owned(),
            (2, parameter) => format!("norm.{parameter}"),
            _ => return None,
        };
        return Some(format!("{block}.{}.{parameter}", child / 3));
    }
    POINTWISE.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", name.strip_prefix(theirs)?)))
}

/// A model folder with AtomAI's weights.
fn import(weights: &BTreeMap<String, ArrayD<f32>>, folder: &Path) -> Result<()> {
    let architecture = Architecture::Fcnn(FcnnConfig { filters: 16, classes: 3 });
    let manifest = write_untrained(folder, architecture, 1)?;
    let tensors = weights
        .iter()
        .map(|(name, array)| {
            let name = our_name(name).with_context(|| format!("no place for {name}"))?;
            let data: Vec<u8> = array.iter().flat_map(|value| value.to_le_bytes()).collect();
            Ok((name, array.shape().to_vec(), data))
        })
        .collect::<Result<Vec<_>>>()?;
    let views = tensors
        .iter()
        .map(|(name, shape, data)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect::<Result<Vec<_>>>()?;
    let bytes = safetensors::serialize(views, None)?;
    std::fs::write(folder.join("atomai.safetensors"), &bytes)?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let weights = WeightsRef { file: "atomai.safetensors".to_owned(), sha256 };
    Manifest { weights, ..manifest }.write(folder)?;
    Ok(())
}

#[test]
fn atomais_weights_give_atomais_probabilities() -> Result<()> {
    let Some(data) = std::env::var_os("FERROSTEM_DATA").map(std::path::PathBuf::from) else {
        eprintln!("skipped: FERROSTEM_DATA is not set");
        return Ok(());
    };
    let golden = read_npz(&data.join("atomai_golden_bto1.npz"))?;
    let array =
        |name: &str| golden.get(name).cloned().with_context(|| format!("no {name} in the golden file"));
    let image = array("image")?.into_dimensionality::<Ix2>()?;
    let expected = array("probability")?.into_dimensionality::<Ix3>()?.permuted_axes([2, 0, 1]);

    let folder = tempfile::tempdir()?;
    import(&read_npz(&data.join("atomai_dilunet_m.npz"))?, folder.path())?;
    let fcnn = Some(folder.path().to_owned());
    let engine =
        Engine::load(&EngineSettings { device: DeviceChoice::Cpu, fcnn, ..EngineSettings::default() })?;
    let found = engine.fcnn(&Normalisation::MinMax.normalise(&image))?.context("no FCNN")?;

    assert_eq!(found.dim(), expected.dim());
    let difference = |(a, b): (&f32, &f32)| if (a - b).is_finite() { (a - b).abs() } else { f32::INFINITY };
    let largest = expected.iter().zip(&found).map(difference).fold(0.0, f32::max);
    eprintln!("largest difference of a probability: {largest:.1e}");
    assert!(largest < 1e-4, "{largest}");
    // Columns were there to be found.
    assert!(expected.index_axis(ndarray::Axis(0), 1).iter().filter(|&&p| p > 0.9).count() > 500);
    Ok(())
}
