//! Pixel size, times and channel of a TIFF file: from OME-XML, from ImageJ's description, or from the resolution where it
//! can be that of a microscope.

use super::facts::{Calibration, Facts, FrameTimes, Timing};
use super::units::{duration_ns, length_pm};
use std::io::{Read, Seek};
use tiff::decoder::Decoder;
use tiff::decoder::ifd::Value;
use tiff::tags::Tag;

/// Bytes of the description that are read; the calibration stands at its beginning.
const MAX_DESCRIPTION: usize = 1 << 18;
/// A pixel above this size comes from a printer's resolution (72 dpi: 353 µm), not from a microscope's.
const LARGEST_PIXEL_PM: f64 = 1e5;
const INCH_PM: f64 = 2.54e10;
const CENTIMETRE_PM: f64 = 1e10;

/// The tags of the first page that can say something.
#[derive(Debug, Default)]
pub(in crate::session) struct Labels {
    description: String,
    /// Pixels a unit, along the rows (`YResolution`) and along the columns.
    resolution: Option<[f64; 2]>,
    /// 1 none, 2 inch, 3 centimetre.
    resolution_unit: u16,
    /// Images that ImageJ counts.
    pub(in crate::session) images: Option<usize>,
}

impl Labels {
    pub(in crate::session) fn of<R: Read + Seek>(decoder: &mut Decoder<R>) -> Self {
        let mut description = vec![0; MAX_DESCRIPTION];
        let read = decoder.image_ifd().find_tag_bytes(Tag::ImageDescription, &mut description, 0);
        description.truncate(read.ok().flatten().unwrap_or(0));
        let end = description.iter().position(|byte| *byte == 0).unwrap_or(description.len());
        description.truncate(end);
        let ratio = |value: Value| match value {
            Value::Rational(above, below) => Some(f64::from(above) / f64::from(below)),
            _ => None,
        };
        let mut resolution = |tag| decoder.find_tag(tag).ok().flatten().and_then(ratio);
        let resolution = resolution(Tag::YResolution).zip(resolution(Tag::XResolution));
        let unit = decoder.find_tag_unsigned::<u16>(Tag::ResolutionUnit).ok().flatten();
        let description = text(&description);
        Self {
            images: imagej(&description, "images").and_then(|images| images.parse().ok()),
            description,
            resolution: resolution.map(|(row, col)| [row, col]),
            resolution_unit: unit.unwrap_or(2),
        }
    }
}

/// UTF-8, or Latin-1 where it is not.
fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes)
        .map_or_else(|_| bytes.iter().map(|&byte| char::from(byte)).collect(), str::to_owned)
}

/// What `labels` say of a stack of `frames` images.
pub(in crate::session) fn facts(labels: &Labels, frames: usize) -> Facts {
    if let Some(pixels) = xml_tag(&labels.description, "Pixels") {
        return ome(&labels.description, pixels, frames);
    }
    if labels.description.starts_with("ImageJ=") {
        let interval_ns =
            imagej(&labels.description, "finterval").and_then(|s| s.parse::<f64>().ok()).map(|s| s * 1e9);
        let frames = interval_ns.filter(|ns| *ns > 0.0).map_or(FrameTimes::Unknown, FrameTimes::Every);
        return Facts { timing: Timing { start_ns: None, frames }, ..Facts::new(imagej_calibration(labels)) };
    }
    Facts::new(resolution_calibration(labels))
}

/// The value of `key` in ImageJ's description, lines of `key=value`.
fn imagej<'a>(description: &'a str, key: &str) -> Option<&'a str> {
    description.starts_with("ImageJ=").then_some(())?;
    description.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::trim)
}

/// ImageJ counts pixels a `unit`.
fn imagej_calibration(labels: &Labels) -> Calibration {
    let unit = imagej(&labels.description, "unit").unwrap_or_default();
    let unit_y = imagej(&labels.description, "yunit").unwrap_or(unit);
    let Some([row, col]) = labels.resolution else {
        return Calibration::none("ImageJ's description comes without a resolution");
    };
    let source = format!("ImageJ: {row} pixels a {unit_y} down, {col} a {unit} across");
    match length_pm(unit_y).zip(length_pm(unit)) {
        Some((y_pm, x_pm)) => Calibration::new([y_pm / row, x_pm / col], source),
        None => Calibration::none(format!("{source}, no lengths")),
    }
}

fn resolution_calibration(labels: &Labels) -> Calibration {
    let Some([row, col]) = labels.resolution else {
        return Calibration::none("no OME-XML, no ImageJ description, no resolution");
    };
    let (unit_pm, name) = match labels.resolution_unit {
        2 => (INCH_PM, "inch"),
        3 => (CENTIMETRE_PM, "cm"),
        _ => return Calibration::none(format!("a resolution of {row} x {col} pixels without a unit")),
    };
    let source = format!("resolution of {row} x {col} pixels a {name}");
    let size = [unit_pm / row, unit_pm / col];
    if size.iter().all(|size| *size <= LARGEST_PIXEL_PM) {
        return Calibration::new(size, source);
    }
    Calibration::none(format!("a {source} is a printer's"))
}

/// OME-XML gives sizes in `PhysicalSizeXUnit`, µm where it is left out.
fn ome(description: &str, pixels: &str, frames: usize) -> Facts {
    let number = |name: &str| xml_attribute(pixels, name).and_then(|value| value.parse::<f64>().ok());
    let unit = |name: &str| xml_attribute(pixels, name).unwrap_or_else(|| "µm".to_owned());
    let calibration = match number("PhysicalSizeY").zip(number("PhysicalSizeX")) {
        None => Calibration::none("the OME-XML has no PhysicalSizeX and PhysicalSizeY"),
        Some((row, col)) => {
            let (unit_y, unit_x) = (unit("PhysicalSizeYUnit"), unit("PhysicalSizeXUnit"));
            let source = format!("OME-XML: PhysicalSizeY {row} {unit_y}, PhysicalSizeX {col} {unit_x}");
            match length_pm(&unit_y).zip(length_pm(&unit_x)) {
                Some((y_pm, x_pm)) => Calibration::new([row * y_pm, col * x_pm], source),
                None => Calibration::none(format!("{source}, no lengths")),
            }
        }
    };
    // The increment is that of time points; it is that of the frames where each is one.
    let time_points = number("SizeT").filter(|&n| n == frames as f64);
    let unit_ns = xml_attribute(pixels, "TimeIncrementUnit").map_or(Some(1e9), |unit| duration_ns(&unit));
    let every = time_points.and(number("TimeIncrement")).zip(unit_ns).map(|(time, ns)| time * ns);
    let channel = xml_tag(description, "Channel").and_then(|tag| xml_attribute(tag, "Name"));
    Facts {
        timing: Timing {
            start_ns: None,
            frames: every.filter(|ns| *ns > 0.0).map_or(FrameTimes::Unknown, FrameTimes::Every),
        },
        channel: channel.filter(|name| !name.is_empty()),
        ..Facts::new(calibration)
    }
}

/// The inside of the first tag `<name …>`.
fn xml_tag<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    if !xml.contains("<OME") {
        return None;
    }
    let open = format!("<{name}");
    xml.match_indices(&open).find_map(|(at, _)| {
        let rest = &xml[at + open.len()..];
        rest.starts_with(char::is_whitespace).then(|| rest.split('>').next())?
    })
}

/// The value of an attribute in the inside of a tag.
fn xml_attribute(tag: &str, name: &str) -> Option<String> {
    let open = format!("{name}=");
    let value = tag.match_indices(&open).find_map(|(at, _)| {
        let named_so = tag[..at].chars().next_back().is_none_or(char::is_whitespace);
        let rest = &tag[at + open.len()..];
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        named_so.then(|| rest[1..].split(quote).next())?
    })?;
    let replaced = [
        ("&#181;", "µ"),
        ("&#xB5;", "µ"),
        ("&#197;", "Å"),
        ("&#xC5;", "Å"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ];
    Some(replaced.iter().fold(value.to_owned(), |text, (from, to)| text.replace(from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(labels: &Labels) -> Option<[f64; 2]> {
        facts(labels, 1).calibration.pixel_size_pm.map(|size| size.map(|pm| (pm * 1e6).round() / 1e6))
    }

    #[test]
    fn imagej_counts_pixels_a_unit() {
        for (unit, resolution, expected) in [
            ("nm", [50.0, 62.5], Some([20.0, 16.0])),
            ("\\u00B5m", [50_000.0, 62_500.0], Some([20.0, 16.0])),
            ("micron", [50_000.0, 62_500.0], Some([20.0, 16.0])),
            ("Angstrom", [5.0, 6.25], Some([20.0, 16.0])),
            ("1/nm", [50.0, 50.0], None),
            ("pixel", [1.0, 1.0], None),
            ("nm", [0.0, 1.0], None),
        ] {
            let description = format!("ImageJ=1.54f\nimages=7\nunit={unit}\nfinterval=0.5\nloop=false\n");
            let labels =
                Labels { description, resolution: Some(resolution), resolution_unit: 1, images: None };
            assert_eq!(size(&labels), expected, "{unit}");
            assert_eq!(facts(&labels, 7).timing.at(2), Some(1_000_000_000));
        }
    }

    #[test]
    fn only_a_microscopes_resolution_is_a_calibration() {
        for (resolution, resolution_unit, expected) in [
            ([5e8, 6.25e8], 3, Some([20.0, 16.0])),
            ([1.27e9, 1.27e9], 2, Some([20.0, 20.0])),
            ([72.0, 72.0], 2, None),
            ([300.0, 300.0], 2, None),
            ([118.1, 118.1], 3, None),
            ([5e8, 5e8], 1, None),
            ([0.0, 0.0], 3, None),
        ] {
            let labels = Labels { resolution: Some(resolution), resolution_unit, ..Labels::default() };
            assert_eq!(size(&labels), expected, "{resolution:?} {resolution_unit}");
        }
        assert_eq!(size(&Labels::default()), None);
    }

    #[test]
    fn ome_xml_is_read_with_its_units() {
        let xml = |attributes: &str| Labels {
            description: format!(
                "<?xml version=\"1.0\"?><OME><Image><PixelsOf/><Pixels ID='a' {attributes} SizeT=\"3\" TimeIncrement=\"2\">\
                 <Channel ID=\"c\" Name=\"HAADF\"/></Pixels></Image></OME>"
            ),
            resolution: Some([72.0, 72.0]),
            resolution_unit: 2,
            images: None,
        };
        for (attributes, expected) in [
            (
                "PhysicalSizeX=\"0.016\" PhysicalSizeXUnit=\"nm\" PhysicalSizeY='20' PhysicalSizeYUnit='pm'",
                Some([20.0, 16.0]),
            ),
            ("PhysicalSizeX=\"0.000016\" PhysicalSizeY=\"0.00002\"", Some([20.0, 16.0])),
            (
                "PhysicalSizeX=\"0.16\" PhysicalSizeXUnit=\"Å\" PhysicalSizeY=\"0.2\" PhysicalSizeYUnit=\"&#197;\"",
                Some([20.0, 16.0]),
            ),
            (
                "PhysicalSizeX=\"1\" PhysicalSizeXUnit=\"pixel\" PhysicalSizeY=\"1\" PhysicalSizeYUnit=\"pixel\"",
                None,
            ),
            ("PhysicalSizeX=\"1\"", None),
        ] {
            assert_eq!(size(&xml(attributes)), expected, "{attributes}");
        }
        let facts = facts(&xml(""), 3);
        assert_eq!((facts.channel.as_deref(), facts.timing.at(1)), (Some("HAADF"), Some(2_000_000_000)));
        assert_eq!(super::facts(&xml(""), 4).timing.at(1), None);
    }
}
