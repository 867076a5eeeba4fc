//! A small file of DigitalMicrograph: a thumbnail in colours, then a stack.

use super::samples::stack;
use std::path::Path;

/// A tag of a DigitalMicrograph file.
enum Tag {
    Group(Vec<(&'static str, Tag)>),
    /// Its kind, and its bytes, little-endian.
    Number(u64, Vec<u8>),
    /// The kind of its elements, their number, and their bytes.
    Array(u64, u64, Vec<u8>),
}

impl Tag {
    fn u32(value: u32) -> Self {
        Self::Number(5, value.to_le_bytes().to_vec())
    }

    fn f32(value: f32) -> Self {
        Self::Number(6, value.to_le_bytes().to_vec())
    }

    fn text(text: &str) -> Self {
        Self::Array(
            4,
            text.encode_utf16().count() as u64,
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        )
    }

    fn axis(scale: f32, units: &str) -> Self {
        Self::Group(vec![("Scale", Self::f32(scale)), ("Units", Self::text(units))])
    }

    fn bytes(&self, size: fn(u64) -> Vec<u8>) -> Vec<u8> {
        let described = |info: &[u64], value: &[u8]| {
            let numbers: Vec<u8> = info.iter().flat_map(|&number| size(number)).collect();
            [b"%%%%", &size(info.len() as u64)[..], &numbers, value].concat()
        };
        match self {
            Self::Number(kind, bytes) => described(&[*kind], bytes),
            Self::Array(kind, count, bytes) => described(&[20, *kind, *count], bytes),
            Self::Group(tags) => {
                let mut all = [&[1, 0][..], &size(tags.len() as u64)].concat();
                for (name, tag) in tags {
                    let content = tag.bytes(size);
                    all.push(if matches!(tag, Self::Group(_)) { 20 } else { 21 });
                    all.extend((name.len() as u16).to_be_bytes());
                    all.extend(name.as_bytes());
                    // Version 4 says how long each tag is.
                    if size(0).len() == 8 {
                        all.extend(size(content.len() as u64));
                    }
                    all.extend(content);
                }
                all
            }
        }
    }
}

fn dm_of(path: &Path, version: u32, size: fn(u64) -> Vec<u8>) {
    let pixels = stack().iter().flat_map(|v| v.to_le_bytes()).collect();
    let thumbnail = Tag::Group(vec![("DataType", Tag::u32(23))]);
    let image = Tag::Group(vec![
        (
            "Calibrations",
            Tag::Group(vec![(
                "Dimension",
                Tag::Group(vec![
                    ("", Tag::axis(0.016, "nm")),
                    ("", Tag::axis(0.2, "Å")),
                    ("", Tag::axis(0.04, "s")),
                ]),
            )]),
        ),
        ("Data", Tag::Array(6, 60, pixels)),
        ("DataType", Tag::u32(2)),
        ("Dimensions", Tag::Group(vec![("", Tag::u32(5)), ("", Tag::u32(4)), ("", Tag::u32(3))])),
    ]);
    let list = Tag::Group(vec![
        ("", Tag::Group(vec![("ImageData", thumbnail)])),
        ("", Tag::Group(vec![("ImageData", image), ("Name", Tag::text("HAADF"))])),
    ]);
    let root = Tag::Group(vec![("ImageList", list)]).bytes(size);
    let header = [&version.to_be_bytes()[..], &size(root.len() as u64), &1u32.to_be_bytes()].concat();
    std::fs::write(path, [&header[..], &root, &[0; 8]].concat()).unwrap();
}

pub(super) fn dm3(path: &Path) {
    dm_of(path, 3, |number| (number as u32).to_be_bytes().to_vec());
}

pub(super) fn dm4(path: &Path) {
    dm_of(path, 4, |number| number.to_be_bytes().to_vec());
}
