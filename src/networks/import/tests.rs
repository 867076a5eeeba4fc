use super::*;
use crate::networks::{DcnnMaps, DeviceChoice, Engine, EngineSettings};
use ndarray::Array2;
use std::io::Write as _;
use tempfile::TempDir;

const ZIP: &[u8] = include_bytes!("samples/zip.pt");
const BARE: &[u8] = include_bytes!("samples/bare.pt");
const TRAINED: [&[u8]; 2] =
    [include_bytes!("samples/trained.tar"), include_bytes!("samples/trained_bare.tar")];

fn refusal(bytes: Vec<u8>) -> String {
    StateDict::from_bytes(bytes).unwrap_err().to_string()
}

/// An archive as torch.save writes it, with this pickle and no storages.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("m/data.pkl", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(pickle).unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn what_pytorch_saved_comes_out() {
    for bytes in [ZIP, BARE] {
        let mut state = StateDict::from_bytes(bytes.to_vec()).unwrap();
        assert_eq!(state.shape("single"), Some(&[2, 3][..]));
        assert_eq!(state.values("single").unwrap(), [0.5, -1.25, 3.0, 4.0, 5.5, 1e-3]);
        assert_eq!(state.shape("transposed"), Some(&[3, 2][..]));
        assert_eq!(state.values("transposed").unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(state.values("part").unwrap(), [3.0, 4.0]);
        // The third is the smallest binary16 above 0, which 6e-8 rounds to.
        assert_eq!(state.values("half").unwrap(), [1.5, -2.0, 2f32.powi(-24)]);
        assert_eq!(state.values("bfloat16").unwrap(), [1.5, -2.0]);
        assert!(state.values("norm.num_batches_tracked").unwrap_err().to_string().contains("floating-point"));
    }
}

#[test]
fn an_optimizer_beside_the_weights_is_looked_over() {
    for bytes in TRAINED {
        let mut state = StateDict::from_bytes(bytes.to_vec()).unwrap();
        assert_eq!(state.names().collect::<Vec<_>>(), ["bias", "weight"]);
        assert_eq!(state.metadata["model_type"], "seg");
        assert_eq!(state.values("weight").unwrap().len(), 2);
    }
}

#[test]
fn a_pickle_that_would_run_something_is_refused_by_name() {
    // What `pickle.dumps` makes of an object whose __reduce__ is (os.system, ("true",)).
    let call = b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00trueq\x01\x85q\x02Rq\x03.";
    assert!(refusal(archive(call)).contains("`posix.system`"));
    // The same before an innocent dictionary, its result thrown away.
    let hidden = b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R0}q\x00.";
    assert!(refusal(archive(hidden)).contains("`__builtin__.eval`"));
    // Named only, never called; and through the opcode of protocol 4.
    assert!(refusal(archive(b"\x80\x02cos\nsystem\n.")).contains("`os.system`"));
    assert!(refusal(archive(b"\x80\x02X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.")).contains("0x93"));
    assert!(refusal(archive(b"\x80\x04}.")).contains("expected protocol 2"));
    // Instances by the opcodes of protocols 0 and 1, and the extension registry.
    for opcode in [b'i', b'o', b'P', 0x82, 0x92] {
        assert!(refusal(archive(&[0x80, 2, b'(', opcode])).contains(&format!("0x{opcode:02x}")));
    }
    // In an old file, the pickle is the fourth of five.
    let at = BARE.windows(24).position(|bytes| bytes == b"ctorch._utils\n_rebuild_t").unwrap();
    let mut bytes = BARE.to_vec();
    bytes[at + 1..at + 6].copy_from_slice(b"xorch");
    assert!(refusal(bytes).contains("`xorch._utils._rebuild_tensor_v2`"));
}

#[test]
fn broken_pickles_are_named() {
    for (pickle, expected) in [
        (&b"\x80\x02}"[..], "ends early"),
        (b"\x80\x02X\xff\xff\xff\xff", "ends early"),
        (b"\x80\x02h\x07.", "a memo that was written"),
        (b"\x80\x02t.", "a mark on the stack"),
        (b"\x80\x02(\x85.", "a value on the stack"),
        (b"\x80\x02K\x01K\x02a.", "a list or dictionary"),
        (b"\x80\x02K\x01)R.", "something to call"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "a tensor, a parameter"),
        (b"\x80\x02K\x01.", "expected a dictionary"),
        (b"\x80\x02}.", "no tensors in the dictionary"),
        // A list that holds itself.
        (b"\x80\x02]q\x00h\x00a.", "expected a dictionary"),
        (b"\x80\x02}q\x00X\x07\x00\x00\x00weightsh\x00s.", "no tensors in the dictionary"),
    ] {
        let error = refusal(archive(pickle));
        assert!(error.contains(expected), "{pickle:?}: {error}");
    }
}

#[test]
fn sizes_that_the_file_does_not_hold_are_refused_before_they_are_allocated() {
    // `single`, told to have 2³¹ − 1 rows, in a storage that it does not say to be larger.
    let bytes = BARE.to_vec();
    let shape = b"K\x00K\x02K\x03\x86";
    let at = bytes.windows(shape.len()).position(|it| it == shape).unwrap();
    let mut wide = bytes.clone();
    wide.splice(at + 2..at + 4, *b"J\xff\xff\xff\x7f");
    assert!(refusal(wide).contains("expected a tensor"));
    // An archive whose storage is shorter than the pickle says.
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    let mut original = zip::ZipArchive::new(std::io::Cursor::new(ZIP)).unwrap();
    let mut pickle = Vec::new();
    std::io::Read::read_to_end(&mut original.by_name("zip/data.pkl").unwrap(), &mut pickle).unwrap();
    zip.start_file("zip/data.pkl", options).unwrap();
    zip.write_all(&pickle).unwrap();
    zip.start_file("zip/data/0", options).unwrap();
    zip.write_all(&[0; 20]).unwrap();
    let mut state = StateDict::from_bytes(zip.finish().unwrap().into_inner()).unwrap();
    let error = state.values("single").unwrap_err().to_string();
    assert!(error.contains("zip/data/0 has 20 bytes, expected 24"), "{error}");
    // A storage that is not there.
    assert!(state.values("part").unwrap_err().to_string().starts_with("part: "));
}

#[test]
fn cut_and_flipped_files_are_errors_and_never_panics() {
    let safe = tiny_safetensors();
    for bytes in [ZIP, BARE, TRAINED[0], TRAINED[1], &safe] {
        let names: Vec<String> =
            StateDict::from_bytes(bytes.to_vec()).unwrap().names().map(str::to_owned).collect();
        let read = |bytes: Vec<u8>| -> Result<(), ImportError> {
            let mut state = StateDict::from_bytes(bytes)?;
            names.iter().filter(|name| !name.ends_with("tracked")).try_for_each(|name| {
                let count: usize = state.shape(name).unwrap_or_default().iter().product();
                if count < 1000 { state.values(name).map(|_| ()) } else { Ok(()) }
            })
        };
        read(bytes.to_vec()).unwrap();
        for length in 0..bytes.len() {
            assert!(read(bytes[..length].to_vec()).is_err(), "{length} of {} bytes", bytes.len());
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << (at % 8);
            // A flipped weight is another weight; nothing must come to harm.
            let _ = read(flipped);
        }
    }
}

fn tiny_safetensors() -> Vec<u8> {
    let data: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    safetensors::serialize([("a", TensorView::new(Dtype::F32, vec![2], &data).unwrap())], None).unwrap()
}

/// As `formula` in tools/python/pytorch_golden.py.
fn formula(tensor: u64, count: usize) -> Vec<f64> {
    let modulus = 1_u64 << 32;
    (0..count as u64)
        .map(|i| {
            let x = (i * 2_654_435_761 + (tensor + 1) * 2_246_822_519) % modulus;
            let x = (x ^ (x >> 15)) * 2_246_822_519 % modulus;
            (x ^ (x >> 13)) as f64 / (1_u64 << 31) as f64 - 1.0
        })
        .collect()
}

const WINDOW: usize = 30;
const CONVOLUTIONS: [(usize, usize, usize); 9] = [
    (0, 1, 32),
    (2, 32, 32),
    (4, 32, 32),
    (6, 32, 32),
    (8, 32, 32),
    (10, 32, 64),
    (12, 64, 64),
    (15, 64, 128),
    (17, 128, 128),
];

/// The tensors of the golden network by name, in the order of its state dictionary.
fn tensors(padding: Padding) -> Vec<(String, Vec<usize>)> {
    let side = if padding == Padding::Same { 15 } else { 4 };
    let mut tensors = Vec::new();
    for (place, from, to) in CONVOLUTIONS {
        tensors.push((format!("{place}.weight"), vec![to, from, 3, 3]));
        tensors.push((format!("{place}.bias"), vec![to]));
    }
    for name in ["weight", "bias", "running_mean", "running_var"] {
        tensors.push((format!("19.{name}"), vec![128]));
    }
    tensors.push(("22.weight".to_owned(), vec![7, 128 * side * side]));
    tensors.push(("22.bias".to_owned(), vec![7]));
    tensors
}

/// A safetensors file with the golden network, after `edit`.
fn golden_file(padding: Padding, edit: impl FnOnce(&mut Vec<(String, Vec<usize>)>)) -> (TempDir, PathBuf) {
    let mut tensors = tensors(padding);
    edit(&mut tensors);
    let parts: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .enumerate()
        .map(|(index, (name, shape))| {
            let inputs: usize = shape.iter().skip(1).product();
            let around = if name == "19.weight" || name == "19.running_var" { 1.0 } else { 0.0 };
            let value = |u: f64| match shape.len() {
                1 => 0.2 * u + around,
                _ => u * (6.0 / inputs as f64).sqrt(),
            };
            let numbers = formula(index as u64, shape.iter().product());
            let bytes = numbers.iter().flat_map(|&u| (value(u) as f32).to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = parts
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("golden.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    (folder, path)
}

fn settings(padding: Padding, outputs: &[&str]) -> ImportSettings {
    let plain =
        |name: &&str| OutputScale { name: (*name).to_owned(), mean: 0.0, scale: 1.0, trained_range: None };
    let outputs = outputs.iter().map(plain).collect();
    ImportSettings {
        name: "golden".to_owned(),
        architecture: ForeignArchitecture::Dcnn { padding, outputs },
        pixel_size_pm: 15.0,
        normalisation: Normalisation::Local { sigma_px: 40.0 },
    }
}

fn run(folder: &Path, exact_windows: bool) -> DcnnMaps {
    let dcnn = Some(folder.to_owned());
    let settings =
        EngineSettings { device: DeviceChoice::Cpu, dcnn, exact_windows, ..EngineSettings::default() };
    let image = formula(1000, 46 * 42).iter().map(|&value| value as f32).collect();
    let image = Array2::from_shape_vec((46, 42), image).unwrap();
    Engine::load(&settings).unwrap().dcnn(&image, 4).unwrap().unwrap()
}

/// The maps in the order of [`DCNN_OUTPUTS`].
fn in_order(maps: &DcnnMaps) -> [Array2<f32>; 7] {
    let DcnnMaps { p_x, p_y, p_sigma, cell_a, cell_b, cell_angle, cell_area, .. } = maps;
    [p_x, p_y, cell_a, cell_b, cell_angle, cell_area, &p_sigma.ln()].map(Clone::clone)
}

fn pytorch(padding: Padding) -> Vec<Vec<f64>> {
    let mut golden: serde_json::Value = serde_json::from_str(include_str!("samples/dcnn.json")).unwrap();
    let key = if padding == Padding::Same { "same" } else { "valid" };
    serde_json::from_value(golden[key].take()).unwrap()
}

#[test]
fn the_dcnn_computes_what_pytorch_does() {
    for (padding, exact_windows) in [(Padding::Valid, false), (Padding::Valid, true), (Padding::Same, false)]
    {
        let (folder, file) = golden_file(padding, |_| {});
        let model = folder.path().join("golden");
        let imported = import(&file, &model, &settings(padding, &DCNN_OUTPUTS)).unwrap();
        assert_eq!(imported.tensors.len(), 24);
        let Architecture::Dcnn(config) = imported.manifest.architecture else { panic!("no DCNN") };
        assert_eq!(config.window_px, WINDOW);
        let found = in_order(&run(&model, exact_windows));
        let expected = pytorch(padding);
        let (mut largest, mut spread) = (0.0_f64, 0.0_f64);
        for (channel, map) in found.iter().enumerate() {
            assert_eq!(map.dim(), (5, 4));
            for (&value, window) in map.iter().zip(&expected) {
                largest = largest.max((f64::from(value) - window[channel]).abs());
                spread = spread.max((window[channel] - expected[0][channel]).abs());
            }
        }
        eprintln!("{padding:?}, exact {exact_windows}: {largest:.1e} of {spread:.2}");
        assert!(spread > 0.05 && largest < 1e-4, "{padding:?}: {largest} of {spread}");
    }
}

#[test]
fn outputs_are_put_into_our_order_and_what_lacks_is_not_measured() {
    let (folder, file) = golden_file(Padding::Valid, |tensors| {
        for (_, shape) in tensors.iter_mut().filter(|(name, _)| name.starts_with("22.")) {
            shape[0] = 2;
        }
    });
    let model = folder.path().join("two");
    let mut settings = settings(Padding::Valid, &["cell_b", "p_x"]);
    if let ForeignArchitecture::Dcnn { outputs, .. } = &mut settings.architecture {
        (outputs[0].mean, outputs[0].scale, outputs[0].trained_range) = (400.0, 20.0, Some([370.0, 430.0]));
    }
    let imported = import(&file, &model, &settings).unwrap();
    assert_eq!(imported.manifest.outputs[3].trained_range, [370.0, 430.0]);
    let maps = run(&model, false);
    // The same two outputs, taken as P.
    let straight = folder.path().join("straight");
    import(&file, &straight, &self::settings(Padding::Valid, &["p_x", "p_y"])).unwrap();
    let all = run(&straight, false);
    for (index, &value) in all.p_x.iter().enumerate() {
        let close = |found: &Array2<f32>, expected: f32| {
            let found = found.iter().nth(index).copied().unwrap();
            assert!((found - expected).abs() < 1e-3, "{found} {expected}");
        };
        // The head's first channel is cell_b, its second p_x.
        close(&maps.cell_b, 400.0 + 20.0 * value);
        close(&maps.p_x, all.p_y.iter().nth(index).copied().unwrap());
    }
    for map in [&maps.p_y, &maps.p_sigma, &maps.cell_a, &maps.cell_angle, &maps.cell_area] {
        assert!(map.iter().all(|value| value.is_nan()));
    }
}

#[test]
fn networks_that_do_not_fit_are_described() {
    type Edit = fn(&mut Vec<(String, Vec<usize>)>);
    let edits: [(&str, Edit); 5] = [
        ("missing: 4.bias [32]", |tensors| tensors.retain(|(name, _)| name != "4.bias")),
        ("superfluous: extra", |tensors| tensors.push(("extra".to_owned(), vec![3]))),
        ("10.weight is [64, 32, 1, 9], expected [64, 32, 3, 3]", |tensors| {
            tensors[10].1 = vec![64, 32, 1, 9]
        }),
        ("22.weight is [7, 2050], expected [7, 2048]", |tensors| tensors[22].1 = vec![7, 2050]),
        ("22.weight is [6, 2048], expected [7, 2048]", |tensors| tensors[22].1 = vec![6, 2048]),
    ];
    for (expected, edit) in edits {
        let (folder, file) = golden_file(Padding::Valid, edit);
        let model = folder.path().join("model");
        let error = import(&file, &model, &settings(Padding::Valid, &DCNN_OUTPUTS)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!model.exists());
    }
}

#[test]
fn the_wrong_architecture_and_wrong_settings_are_refused() {
    let (folder, file) = golden_file(Padding::Valid, |_| {});
    let model = folder.path().join("model");
    let refused = |settings: &ImportSettings| import(&file, &model, settings).unwrap_err().to_string();
    let dcnn = settings(Padding::Valid, &DCNN_OUTPUTS);
    let unet =
        ImportSettings { architecture: ForeignArchitecture::AtomaiUnet { a_first: false }, ..dcnn.clone() };
    let error = refused(&unet);
    assert!(
        error.contains("missing: c1.block.0.weight [16, 1, 3, 3]") && error.contains("superfluous: 0.bias")
    );
    // 4 x 4 features: 8 px with padding, which holds no window.
    assert!(refused(&settings(Padding::Same, &DCNN_OUTPUTS)).contains("window_px = 8"));
    assert!(
        refused(&settings(Padding::Valid, &["p_x", "p_x"])).contains("outputs = p_x: expected each at most")
    );
    assert!(refused(&settings(Padding::Valid, &["colour"])).contains("outputs = colour"));
    let error = refused(&ImportSettings { pixel_size_pm: 0.0, ..dcnn.clone() });
    assert!(error.contains("input.pixel_size_pm = 0: expected 1 to 200"), "{error}");
    assert!(!model.exists());
    import(&file, &model, &dcnn).unwrap();
    assert!(refused(&dcnn).contains("there is a model already"));
}
