//! Opening a file as a command would.

use crate::session::*;
use ndarray::{Array2, Array3};
use std::path::Path;

pub(super) fn read(path: &Path, dataset: Option<&str>) -> Result<Box<dyn FrameReader>, SessionError> {
    open(path, &OpenOptions { dataset: dataset.map(str::to_owned), ..OpenOptions::default() })
}

pub(super) fn refusal(path: &Path, dataset: Option<&str>) -> String {
    match read(path, dataset) {
        Ok(reader) => panic!("{reader:?} was opened"),
        Err(error) => error.to_string(),
    }
}

/// All frames as `[frame, row, col]`.
pub(super) fn frames(reader: &mut dyn FrameReader) -> Array3<f32> {
    let frames: Vec<Array2<f32>> = (0..reader.len())
        .map(|index| {
            let data = reader.frame(index).unwrap().message.data;
            Array2::from_shape_vec(data.shape(), data.to_f32()).unwrap()
        })
        .collect();
    let views: Vec<_> = frames.iter().map(|frame| frame.view()).collect();
    ndarray::stack(ndarray::Axis(0), &views).unwrap()
}
