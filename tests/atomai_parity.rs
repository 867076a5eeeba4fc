//! AtomAI's own network, with its own weights, imported and run here: the probabilities and the columns that AtomAI 0.8.1
//! on PyTorch returned for a real image of BaTiO3 come out again. Skipped unless `FERROSTEM_DATA` names the folder with
//! `atomai_dilunet_m.pt` and `atomai_golden_bto1.npz`.

use anyhow::{Context as _, Result, bail, ensure};
use ferrostem::columns::{ColumnSettings, find_columns};
use ferrostem::networks::{
    DeviceChoice, Engine, EngineSettings, ForeignArchitecture, ImportError, ImportSettings, Padding, import,
};
use ferrostem::preprocess::{Normalisation, PixelMap};
use ndarray::{Array2, ArrayD, Ix2, Ix3};
use ndarray_npy::ReadNpyExt as _;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// AtomAI finds columns of any size, and drops none but those near the edge.
const ATOMAI_COLUMNS: ColumnSettings = ColumnSettings {
    threshold: 0.5,
    min_area_px: 1,
    edge_px: 5.0,
    weighted_centre: false,
    refine: false,
    max_shift_px: 3.0,
};

fn data_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("FERROSTEM_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: FERROSTEM_DATA is not set");
    }
    folder
}

fn settings() -> ImportSettings {
    ImportSettings {
        name: "atomai".to_owned(),
        architecture: ForeignArchitecture::AtomaiUnet { a_first: false },
        pixel_size_pm: 20.0,
        normalisation: Normalisation::MinMax,
    }
}

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

#[test]
fn atomais_weights_give_atomais_probabilities_and_columns() -> Result<()> {
    let Some(data) = data_folder() else { return Ok(()) };
    let golden = read_npz(&data.join("atomai_golden_bto1.npz"))?;
    let array =
        |name: &str| golden.get(name).cloned().with_context(|| format!("no {name} in the golden file"));
    let image = array("image")?.into_dimensionality::<Ix2>()?;
    let expected = array("probability")?.into_dimensionality::<Ix3>()?.permuted_axes([2, 0, 1]);

    let folder = tempfile::tempdir()?;
    let imported = import(&data.join("atomai_dilunet_m.pt"), folder.path(), &settings())?;
    assert_eq!((imported.tensors.len(), imported.ignored.len()), (86, 13));
    let fcnn = Some(folder.path().to_owned());
    let engine =
        Engine::load(&EngineSettings { device: DeviceChoice::Cpu, fcnn, ..EngineSettings::default() })?;
    let found = engine.fcnn(&Normalisation::MinMax.normalise(&image))?.context("no FCNN")?;

    assert_eq!(found.dim(), expected.dim());
    let difference = |(a, b): (&f32, &f32)| if (a - b).is_finite() { (a - b).abs() } else { f32::INFINITY };
    let largest = expected.iter().zip(&found).map(difference).fold(0.0, f32::max);
    eprintln!("largest difference of a probability: {largest:.1e}");
    assert!(largest < 1e-4, "{largest}");

    let valid = Array2::from_elem(image.dim(), true);
    let columns = find_columns(&found, &valid, &PixelMap::IDENTITY, &ATOMAI_COLUMNS)?;
    // Row, column, class.
    let expected = array("coordinates")?.into_dimensionality::<Ix2>()?;
    assert_eq!(columns.len(), expected.nrows());
    // Both list class by class, each component in the order of its topmost pixels.
    let mut largest = 0.0_f64;
    for (column, theirs) in columns.iter().zip(expected.rows()) {
        assert_eq!(column.sublattice as usize, theirs[2] as usize);
        let [row, col] = [f64::from(theirs[0]), f64::from(theirs[1])];
        largest = largest.max((column.row - row).hypot(column.col - col));
    }
    eprintln!("{} columns, largest distance {largest:.1e} px", columns.len());
    assert!(largest < 0.01, "{largest}");
    Ok(())
}

#[test]
fn atomais_files_of_other_networks_are_described() -> Result<()> {
    let Some(data) = data_folder() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("model");
    // A saved model, of another kind; it says so.
    let other = import(&data.join("atomai_metadict_example.tar"), &target, &settings());
    let Err(ImportError::Setting { key, value, .. }) = other else { bail!("{other:?}") };
    assert_eq!((key.as_str(), value.as_str()), ("the file's model_type", "imspec"));
    let dcnn = ForeignArchitecture::Dcnn { padding: Padding::Same, outputs: Vec::new() };
    let error = import(
        &data.join("atomai_dilunet_m.pt"),
        &target,
        &ImportSettings { architecture: dcnn, ..settings() },
    );
    let error = error.err().context("a U-net is no DCNN")?.to_string();
    assert!(error.contains("missing: 0.weight [32, 1, 3, 3]"), "{error}");
    assert!(error.contains("superfluous: bn.atrous_module.0.bias"), "{error}");
    assert!(!target.exists());
    Ok(())
}
