//! Which processor runs the networks, chosen at run time.

use burn::tensor::{Device, DeviceType};
use std::fmt;
use std::str::FromStr;

/// `auto`, `cpu`, `vulkan[:index]` or `wgpu[:index]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A real GPU before the CPU, and the CPU before a software rasteriser.
    #[default]
    Auto,
    Cpu,
    /// A Vulkan adapter by its index in [`list_devices`].
    Vulkan(usize),
    /// An adapter of whichever graphics API wgpu prefers on this system (Vulkan, Direct3D 12, Metal).
    Wgpu(usize),
}

/// A device that was asked for and is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("device = {0}: expected auto, cpu, vulkan, vulkan:INDEX, wgpu or wgpu:INDEX")]
    Unknown(String),
    #[error("device = {choice}: this machine has {found} {api} adapter(s); `ferrostem devices` lists them")]
    Absent { choice: DeviceChoice, api: &'static str, found: usize },
}

/// A device as `ferrostem devices` lists it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DeviceInfo {
    /// What to write after `--device`.
    pub choice: String,
    /// As the device names itself.
    pub name: String,
    /// False for the CPU and for software rasterisers.
    pub is_gpu: bool,
    /// True for the one that `auto` takes.
    pub is_auto: bool,
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || DeviceError::Unknown(text.to_owned());
        let (api, index) = match text.split_once(':') {
            Some((api, index)) => (api, index.parse::<usize>().map_err(|_| unknown())?),
            None => (text, 0),
        };
        match (api, text.contains(':')) {
            ("auto", false) => Ok(Self::Auto),
            ("cpu", false) => Ok(Self::Cpu),
            ("vulkan", _) => Ok(Self::Vulkan(index)),
            ("wgpu", _) => Ok(Self::Wgpu(index)),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Vulkan(index) => write!(f, "vulkan:{index}"),
            Self::Wgpu(index) => write!(f, "wgpu:{index}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device, and says which it became.
    ///
    /// # Errors
    /// When there is no such adapter.
    pub(crate) fn open(self) -> Result<(Device, String), DeviceError> {
        let nth = |api: &'static str, kind: DeviceType, index: usize| {
            let mut devices = Device::enumerate(kind).into_vec();
            if index < devices.len() {
                let device = devices.swap_remove(index);
                let name = format!("{} ({api}:{index})", name_of(&device));
                Ok((device, name))
            } else {
                Err(DeviceError::Absent { choice: self, api, found: devices.len() })
            }
        };
        match self {
            Self::Cpu => Ok((Device::flex(), cpu_name())),
            Self::Vulkan(index) => nth("vulkan", DeviceType::Vulkan, index),
            Self::Wgpu(index) => nth("wgpu", DeviceType::Wgpu, index),
            Self::Auto => match first_gpu() {
                Some((index, device)) => {
                    let name = format!("{} (vulkan:{index})", name_of(&device));
                    Ok((device, name))
                }
                None => Ok((Device::flex(), cpu_name())),
            },
        }
    }
}

/// Everything that `--device` can name on this machine.
pub fn list_devices() -> Vec<DeviceInfo> {
    let auto = first_gpu().map(|(index, _)| DeviceChoice::Vulkan(index));
    let mut devices = vec![DeviceInfo {
        choice: DeviceChoice::Cpu.to_string(),
        name: cpu_name(),
        is_gpu: false,
        is_auto: auto.is_none(),
    }];
    let mut list = |kind: DeviceType, choice: fn(usize) -> DeviceChoice| {
        for (index, device) in Device::enumerate(kind).into_vec().iter().enumerate() {
            devices.push(DeviceInfo {
                choice: choice(index).to_string(),
                name: name_of(device),
                is_gpu: is_gpu(device),
                is_auto: auto == Some(choice(index)),
            });
        }
    };
    list(DeviceType::Vulkan, DeviceChoice::Vulkan);
    list(DeviceType::Wgpu, DeviceChoice::Wgpu);
    devices
}

fn first_gpu() -> Option<(usize, Device)> {
    Device::enumerate(DeviceType::Vulkan)
        .into_vec()
        .into_iter()
        .enumerate()
        .find(|(_, device)| is_gpu(device))
}

/// Whether a card stands behind it; software rasterisers have none.
fn is_gpu(device: &Device) -> bool {
    device.identity().is_some_and(|identity| identity.physical.is_some())
}

fn name_of(device: &Device) -> String {
    device.identity().map_or_else(|| format!("{device:?}"), |identity| identity.name)
}

fn cpu_name() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("CPU, {threads} threads (flex)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("vulkan", DeviceChoice::Vulkan(0)),
            ("vulkan:2", DeviceChoice::Vulkan(2)),
            ("wgpu:1", DeviceChoice::Wgpu(1)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string().parse::<DeviceChoice>().unwrap(), choice);
        }
        for text in ["", "gpu", "cpu:0", "auto:1", "vulkan:", "vulkan:-1", "wgpu:x"] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert_eq!(error, DeviceError::Unknown(text.to_owned()));
        }
    }

    #[test]
    fn the_cpu_is_always_listed_and_one_device_is_auto() {
        let devices = list_devices();
        assert_eq!(devices[0].choice, "cpu");
        assert_eq!(devices.iter().filter(|d| d.is_auto).count(), 1);
    }
}
