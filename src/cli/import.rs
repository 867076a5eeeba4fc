//! `ferrostem import`: networks that PyTorch trained.

use super::say;
use crate::networks::{
    CLASS_ORDERS, DCNN_OUTPUTS, ForeignArchitecture, ImportSettings, Imported, OutputScale, Padding, import,
};
use crate::preprocess::Normalisation;
use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};

pub(super) const HELP: &str = "Examples:
  ferrostem import model.tar --arch atomai-unet --name my-unet
  ferrostem import dcnn.pt --arch dcnn-valid --outputs p_x,p_y,cell_a,cell_b --scale cell_a=400,20,370,430
  ferrostem analyze image.npy --fcnn ./my-unet --native-scale

Pickles are read as data: nothing in them is run, and one that names a function other than PyTorch's own is refused.

atomai-unet: AtomAI's Segmentor(\"Unet\", nb_classes=3, with_dilation=True), as model.save_model(...) or torch.save(model.net.state_dict(), ...).
dcnn-valid (p = 0, n = (window - 22) / 2) and dcnn-same (p = 1, n = window / 2): torch.save(net.state_dict(), ...) of
  def conv(i, o): return [nn.Conv2d(i, o, 3, padding=p), nn.LeakyReLU(0.01)]
  net = nn.Sequential(
      *conv(1, 32), *conv(32, 32), *conv(32, 32), *conv(32, 32), *conv(32, 32),  # 0, 2, 4, 6, 8
      *conv(32, 64), *conv(64, 64),                                              # 10, 12
      nn.MaxPool2d(2),                                                           # 14
      *conv(64, 128), *conv(128, 128),                                           # 15, 17
      nn.BatchNorm2d(128), nn.Dropout(0.2), nn.Flatten(),                        # 19, 20, 21
      nn.Linear(128 * n * n, outputs))                                           # 22
whose keys are 0.weight, 0.bias, 2.weight, ..., 19.running_var, 22.weight, 22.bias.";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Arch {
    AtomaiUnet,
    DcnnValid,
    DcnnSame,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// State dictionary of torch.save (.pt, .pth), AtomAI's saved model (.tar), or safetensors.
    file: PathBuf,
    #[arg(long)]
    arch: Arch,
    /// The model's name, and that of its folder; without it, the file's.
    #[arg(long)]
    name: Option<String>,
    /// Folder that receives the model's folder.
    #[arg(long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Pixel size of the training images; frames are resampled to it, unless --native-scale is given. Without it, 20 for
    /// atomai-unet (20 px a cell of 400 pm), 15 for a DCNN.
    #[arg(long, value_name = "PM")]
    pixel_size_pm: Option<f64>,
    /// min-max or local:SIGMA_PX. Without it, min-max for atomai-unet, local:40 for a DCNN.
    #[arg(long)]
    normalisation: Option<String>,
    /// What the U-net's channels are: b the dim sublattice, a the bright one.
    #[arg(long, default_value = CLASS_ORDERS[0], value_parser = CLASS_ORDERS)]
    classes: String,
    /// What the DCNN's outputs are, in its order. Those that it lacks come out as not measured.
    #[arg(long, value_delimiter = ',', default_values = DCNN_OUTPUTS)]
    outputs: Vec<String>,
    /// value = MEAN + SCALE x output, and the range of values trained on; without it 0,1 and any. Repeatable.
    #[arg(long, value_name = "NAME=MEAN,SCALE[,LOW,HIGH]")]
    scale: Vec<String>,
    /// One JSON object: what was read and written.
    #[arg(long)]
    json: bool,
}

impl ImportArgs {
    fn settings(&self) -> anyhow::Result<ImportSettings> {
        let stem = self.file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let dcnn = |padding| -> anyhow::Result<ForeignArchitecture> {
            Ok(ForeignArchitecture::Dcnn { padding, outputs: self.scales()? })
        };
        let (architecture, pixel_size_pm, normalisation) = match self.arch {
            Arch::AtomaiUnet => {
                let a_first = self.classes == CLASS_ORDERS[1];
                (ForeignArchitecture::AtomaiUnet { a_first }, 20.0, Normalisation::MinMax)
            }
            Arch::DcnnValid => (dcnn(Padding::Valid)?, 15.0, Normalisation::Local { sigma_px: 40.0 }),
            Arch::DcnnSame => (dcnn(Padding::Same)?, 15.0, Normalisation::Local { sigma_px: 40.0 }),
        };
        let name = self.name.clone().unwrap_or(stem);
        if Path::new(&name).file_name().is_none_or(|file_name| file_name != name.as_str()) {
            bail!("--name {name}: expected a name for a folder");
        }
        Ok(ImportSettings {
            name,
            architecture,
            pixel_size_pm: self.pixel_size_pm.unwrap_or(pixel_size_pm),
            normalisation: self
                .normalisation
                .as_deref()
                .map_or(Ok(normalisation), parse_normalisation)
                .context("--normalisation")?,
        })
    }

    fn scales(&self) -> anyhow::Result<Vec<OutputScale>> {
        let plain =
            |name: &String| OutputScale { name: name.clone(), mean: 0.0, scale: 1.0, trained_range: None };
        let mut outputs: Vec<OutputScale> = self.outputs.iter().map(plain).collect();
        for text in &self.scale {
            let (name, numbers) =
                text.split_once('=').with_context(|| format!("--scale {text}: expected NAME=…"))?;
            let output = outputs.iter_mut().find(|output| output.name == name);
            let output = output.with_context(|| format!("--scale {text}: expected one of --outputs"))?;
            let numbers: Result<Vec<f64>, _> = numbers.split(',').map(str::parse).collect();
            (output.mean, output.scale, output.trained_range) = match numbers.as_deref() {
                Ok(&[mean, scale]) => (mean, scale, None),
                Ok(&[mean, scale, low, high]) => (mean, scale, Some([low, high])),
                _ => bail!("--scale {text}: expected two or four numbers"),
            };
        }
        Ok(outputs)
    }
}

fn parse_normalisation(text: &str) -> anyhow::Result<Normalisation> {
    match text.split_once(':') {
        None if text == "min-max" => Ok(Normalisation::MinMax),
        Some(("local", sigma_px)) => Ok(Normalisation::Local { sigma_px: sigma_px.parse()? }),
        _ => bail!("{text}: expected min-max or local:SIGMA_PX"),
    }
}

pub(super) fn import_model(args: &ImportArgs) -> anyhow::Result<()> {
    let settings = args.settings()?;
    let folder = args.output.join(&settings.name);
    let imported = import(&args.file, &folder, &settings).with_context(|| args.file.display().to_string())?;
    if args.json {
        return say(json!({ "file": args.file, "folder": folder, "imported": imported }));
    }
    let Imported { format, metadata, tensors, ignored, manifest } = &imported;
    say(format!("{}: {format}, {} tensors, {} ignored", args.file.display(), tensors.len(), ignored.len()))?;
    for (key, value) in metadata {
        say(format!("  {key}: {value}"))?;
    }
    say(format!(
        "{}: {:?}, {} pm a pixel, {:?}",
        folder.display(),
        manifest.architecture,
        manifest.input.pixel_size_pm,
        manifest.input.normalisation
    ))
}
