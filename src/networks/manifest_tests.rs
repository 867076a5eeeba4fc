use super::*;
use crate::networks::untrained::RandomWeights;
use crate::networks::write_untrained;
use crate::networks::{Calibration, HeadKind, HeldOut};
use burn::module::Module;
use burn::tensor::{Distribution, Tensor};
use std::fs;
use tempfile::TempDir;

const DCNN: DcnnConfig =
    DcnnConfig { padding: Padding::Valid, head: HeadKind::Linear, window_px: 30, outputs: 7 };
const FCNN: FcnnConfig = FcnnConfig { filters: 4, classes: 3 };

fn model(architecture: Architecture) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_untrained(folder.path(), architecture, 1).unwrap();
    folder
}

/// What loading says of a DCNN folder in which `edit` was at work.
fn refusal(edit: impl FnOnce(&Path)) -> String {
    let folder = model(Architecture::Dcnn(DCNN));
    edit(folder.path());
    let error = LoadedModel::dcnn(folder.path(), &Device::flex()).unwrap_err().to_string();
    // Every refusal names the file that it is about.
    assert!(error.starts_with(folder.path().to_str().unwrap()), "{error}");
    error
}

fn edit_manifest(folder: &Path, edit: impl FnOnce(&mut Manifest)) {
    let mut manifest = Manifest::read(folder).unwrap();
    edit(&mut manifest);
    manifest.write(folder).unwrap();
}

#[test]
fn missing_files_are_named() {
    for file in [MANIFEST_FILE, "weights.safetensors", "features.safetensors"] {
        let error = refusal(|folder| fs::remove_file(folder.join(file)).unwrap());
        assert!(error.contains(&format!("{file}: No such file")), "{error}");
    }
}

#[test]
fn changed_files_are_named_with_both_checksums() {
    for file in ["weights.safetensors", "features.safetensors"] {
        let error = refusal(|folder| {
            let mut bytes = fs::read(folder.join(file)).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(folder.join(file), bytes).unwrap();
        });
        assert!(
            error.contains(&format!("{file}: SHA-256 is ")) && error.contains("manifest says"),
            "{error}"
        );
    }
}

#[test]
fn a_model_of_the_other_kind_is_refused() {
    let (dcnn, fcnn) = (model(Architecture::Dcnn(DCNN)), model(Architecture::Fcnn(FCNN)));
    let error = LoadedModel::dcnn(fcnn.path(), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("architecture.kind = fcnn: expected dcnn"), "{error}");
    let error = LoadedModel::fcnn(dcnn.path(), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("architecture.kind = dcnn: expected fcnn"), "{error}");
}

#[test]
fn values_that_no_network_can_have_are_named_by_key() {
    type Spoil = fn(&mut Manifest);
    let spoilt: [(&str, Spoil); 10] = [
        ("name = : expected", |m| m.name.clear()),
        ("input.pixel_size_pm = 0: expected", |m| m.input.pixel_size_pm = 0.0),
        ("input.pixel_size_pm = NaN: expected", |m| m.input.pixel_size_pm = f64::NAN),
        ("input.normalisation.sigma_px = 0: expected", |m| {
            m.input.normalisation = Normalisation::Local { sigma_px: 0.0 };
        }),
        ("outputs.scale = 0: expected", |m| m.outputs[2].scale = 0.0),
        ("outputs.mean = inf: expected", |m| m.outputs[0].mean = f64::INFINITY),
        ("outputs.trained_range = [2, 1]: expected", |m| m.outputs[6].trained_range = [2.0, 1.0]),
        // The order of the outputs is the order of the head's channels: neither swapped nor left out.
        ("outputs = p_y, p_x, cell_a", |m| m.outputs.swap(0, 1)),
        ("outputs = p_x, p_y, cell_a, cell_b, cell_angle, cell_area: expected", |m| {
            m.outputs.pop();
        }),
        ("architecture.outputs = 6: expected", |m| {
            m.architecture = Architecture::Dcnn(DcnnConfig { outputs: 6, ..DCNN });
        }),
    ];
    for (key, spoil) in spoilt {
        let error = refusal(|folder| edit_manifest(folder, spoil));
        assert!(error.contains(MANIFEST_FILE) && error.contains(key), "{error}");
    }
    for window_px in [26, 31, 514] {
        let error = refusal(|folder| {
            edit_manifest(folder, |m| m.architecture = Architecture::Dcnn(DcnnConfig { window_px, ..DCNN }));
        });
        assert!(error.contains(&format!("architecture.window_px = {window_px}: expected")), "{error}");
    }
}

#[test]
fn unknown_keys_are_refused() {
    let error = refusal(|folder| {
        let path = folder.join(MANIFEST_FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("colour = \"blue\"\n{text}")).unwrap();
    });
    assert!(error.contains("unknown field `colour`"), "{error}");
}

#[test]
fn weights_of_another_shape_are_refused_although_their_checksum_is_right() {
    let error = refusal(|folder| {
        let other = DcnnConfig { window_px: 40, ..DCNN }.init(&Device::flex());
        let bytes = weights_bytes(folder, &other).unwrap();
        edit_manifest(folder, |m| m.weights = write_part(folder, "weights.safetensors", &bytes).unwrap());
    });
    assert!(error.contains("weights.safetensors") && error.contains("head.weight"), "{error}");
    // Not weights at all.
    let error = refusal(|folder| {
        edit_manifest(folder, |m| m.weights = write_part(folder, "weights.safetensors", b"hello").unwrap());
    });
    assert!(error.contains("weights.safetensors"), "{error}");
    // Statistics of two features for a network of 128.
    let error = refusal(|folder| {
        let calibration = Calibration::fit(&[HeldOut::spread(5.0)]).unwrap();
        let statistics = FeatureStatistics { calibration, ..FeatureStatistics::raw(2) };
        let bytes = statistics.to_bytes().unwrap();
        let part = write_part(folder, "features.safetensors", &bytes).unwrap();
        edit_manifest(folder, |m| m.features = Some(part));
    });
    assert!(error.contains("`mean` has 2 values, expected 128"), "{error}");
}

#[test]
fn loaded_weights_compute_bit_for_bit_what_the_saved_ones_did() {
    let device = Device::flex();
    let images = Tensor::<4>::random([2, 1, 32, 32], Distribution::Normal(0.0, 1.0), &device);
    let bits = |tensor: Tensor<4>| -> Vec<u32> {
        let values: Vec<f32> = tensor.to_data().try_into_vec().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };

    let folder = model(Architecture::Dcnn(DCNN));
    let network = DCNN.init(&device).map(&mut RandomWeights::new(5));
    let part =
        write_part(folder.path(), "other.safetensors", &weights_bytes(folder.path(), &network).unwrap());
    edit_manifest(folder.path(), |m| m.weights = part.unwrap());
    let loaded = LoadedModel::dcnn(folder.path(), &device).unwrap();
    let run = |network: &Dcnn| bits(network.head_dense(network.features(images.clone()), 2));
    assert_eq!(run(&network), run(&loaded.network));
    assert_ne!(run(&network), run(&DCNN.init(&device).map(&mut RandomWeights::new(6))));

    let folder = model(Architecture::Fcnn(FCNN));
    let network = FCNN.init(&device).map(&mut RandomWeights::new(5));
    let part =
        write_part(folder.path(), "other.safetensors", &weights_bytes(folder.path(), &network).unwrap());
    edit_manifest(folder.path(), |m| m.weights = part.unwrap());
    let loaded = LoadedModel::fcnn(folder.path(), &device).unwrap();
    assert_eq!(bits(network.forward(images.clone())), bits(loaded.network.forward(images)));
}
