//! Files that were damaged: an error or an image, never a panic and never more memory than allowed.

use super::samples::SAMPLES;
use crate::session::{OpenOptions, UnitCellParameterization, contents, open};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// Damaged copies of each sample.
const FLIPS: usize = 200;
const CUTS: usize = 40;

/// Whatever can be done with a file.
fn use_file(path: &Path) -> bool {
    let options = OpenOptions { max_frame_bytes: 1 << 20, ..OpenOptions::default() };
    // What is found matters less than that something is.
    let _ = contents(path);
    let _ = UnitCellParameterization::open(path);
    let Ok(mut reader) = open(path, &options) else { return false };
    let last = reader.len().saturating_sub(1);
    let _ = (reader.description(), reader.calibration(), reader.time_ns(0), reader.time_ns(last));
    [0, 1, last].into_iter().any(|index| {
        reader.frame(index).is_ok_and(|frame| {
            assert!(frame.message.data.bytes().len() <= 1 << 20);
            true
        })
    })
}

/// Where bits are flipped: anywhere, but in HDF5 files only in text (names, units, attributes, signatures). The library
/// itself, 1.10.8, ends the process on some damaged structures, which no reader can prevent.
fn places_to_damage(file: &[u8]) -> Vec<usize> {
    if !file.starts_with(b"\x89HDF") {
        return (0..file.len()).collect();
    }
    let is_text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let mut places = Vec::new();
    let mut at = 0;
    for run in file.chunk_by(|a, b| is_text(a) == is_text(b)) {
        if run.len() >= 4 && run.iter().all(is_text) {
            places.extend(at..at + run.len());
        }
        at += run.len();
    }
    places
}

#[test]
fn damaged_files_are_errors_or_images() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for (name, write) in SAMPLES {
        let path = folder.path().join(name);
        write(&path);
        let whole = std::fs::read(&path).unwrap();
        let is_image = !name.contains("UCParameterization");
        assert_eq!(use_file(&path), is_image, "{name}");
        for cut in 0..CUTS {
            std::fs::write(&path, &whole[..whole.len() * cut / CUTS]).unwrap();
            use_file(&path);
        }
        let places = places_to_damage(&whole);
        let mut still_read = 0;
        for _ in 0..FLIPS {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..4) {
                let at = places[random.random_range(0..places.len())];
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            std::fs::write(&path, &bytes).unwrap();
            still_read += usize::from(use_file(&path));
        }
        // Most of a small file is not essential; a reader that refuses everything would not be tested by this. Of the text in
        // an HDF5 file with nothing but a dataset, all is.
        assert!(!is_image || still_read > 0 || whole.starts_with(b"\x89HDF"), "{name}");
    }
}
