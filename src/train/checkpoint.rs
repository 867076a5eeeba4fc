//! The checkpoint of a run: weights, optimizer state, step and the best check, replaced together.

use super::TrainError;
use super::stopping::{Best, Check, Stopping};
use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
use std::fs;
use std::path::{Path, PathBuf};

/// Written last and removed first: a folder with it is a whole checkpoint.
const STEP_FILE: &str = "step";
/// What is known of the best check, with its weights in `best.bpk`; there where there was one.
const BEST_FILE: &str = "best.toml";

/// The folder `checkpoint` in a training folder, and `checkpoint.new` beside it while it is replaced.
///
/// A new one is written whole, to the disk, before the old one is removed, and takes its place then. Killed at any time, a run leaves one
/// of the two whole.
pub(super) struct Checkpoint {
    folder: PathBuf,
}

impl Checkpoint {
    /// The checkpoint in `folder`, if there is any; a replacement that a kill interrupted is finished.
    ///
    /// # Errors
    /// When the files cannot be moved.
    pub fn open(folder: &Path) -> Result<Self, TrainError> {
        let checkpoint = Self { folder: folder.join("checkpoint") };
        if !checkpoint.exists() && checkpoint.fresh().join(STEP_FILE).exists() {
            checkpoint.replace()?;
        }
        Ok(checkpoint)
    }

    pub fn exists(&self) -> bool {
        self.folder.join(STEP_FILE).exists()
    }

    /// What was saved, and the step to make next; what is given, and 0, where nothing was saved.
    ///
    /// # Errors
    /// When a file cannot be read, or is of another network.
    pub fn resume<M: Module>(
        &self,
        network: M,
        optimizer: ModuleOptimizer,
    ) -> Result<(M, ModuleOptimizer, u64), TrainError> {
        let Ok(step) = fs::read_to_string(self.folder.join(STEP_FILE)) else {
            return Ok((network, optimizer, 0));
        };
        let step =
            step.trim().parse().map_err(|_| self.error(format!("step = {step}: expected a number")))?;
        let network = self.network(network, "network.bpk")?;
        let optimizer =
            optimizer.from_bytes(self.bytes("optimizer.bpk")?).map_err(|e| self.error(format!("{e:?}")))?;
        Ok((network, optimizer, step))
    }

    /// What was saved of the checks; `network` is one of the same kind.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub fn checks<M: Module>(&self, network: M) -> Result<Stopping<M>, TrainError> {
        let path = self.folder.join(BEST_FILE);
        if !(self.exists() && path.exists()) {
            return Ok(Stopping { best: None });
        }
        let text = fs::read_to_string(&path).map_err(|source| TrainError::File { path, source })?;
        let check: Check = toml::from_str(&text).map_err(|e| self.error(format!("{BEST_FILE}: {e}")))?;
        let network = self.network(network, "best.bpk")?;
        Ok(Stopping { best: Some(Best { network, check }) })
    }

    /// # Errors
    /// When a file cannot be written.
    pub fn save<M: Module + Clone>(
        &self,
        network: &M,
        optimizer: &ModuleOptimizer,
        step: u64,
        checks: &Stopping<M>,
    ) -> Result<(), TrainError> {
        let fresh = self.fresh();
        let file = |source| TrainError::File { path: fresh.clone(), source };
        // What a kill left of another.
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(file)?;
        }
        fs::create_dir_all(&fresh).map_err(file)?;
        // The snapshot, because its batch-normalisation statistics hold the last step too; the record of a network in
        // training is one step behind.
        network.valid().save_file(fresh.join("network.bpk")).map_err(|e| self.error(format!("{e:?}")))?;
        optimizer.save(fresh.join("optimizer.bpk")).map_err(|e| self.error(format!("{e:?}")))?;
        if let Some(Best { network, check }) = &checks.best {
            network.clone().save_file(fresh.join("best.bpk")).map_err(|e| self.error(format!("{e:?}")))?;
            let text = toml::to_string(check).map_err(|e| self.error(format!("{BEST_FILE}: {e}")))?;
            fs::write(fresh.join(BEST_FILE), text).map_err(file)?;
        }
        let written = fresh.join("step.part");
        fs::write(&written, step.to_string()).map_err(file)?;
        flush(&fresh).map_err(file)?;
        fs::rename(&written, fresh.join(STEP_FILE)).map_err(file)?;
        flush(&fresh).map_err(file)?;
        self.replace()
    }

    /// The whole checkpoint beside the old one takes its place.
    fn replace(&self) -> Result<(), TrainError> {
        let file = |source| TrainError::File { path: self.folder.clone(), source };
        if self.exists() {
            fs::remove_file(self.folder.join(STEP_FILE)).map_err(file)?;
        }
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).map_err(file)?;
        }
        fs::rename(self.fresh(), &self.folder).map_err(file)
    }

    fn network<M: Module>(&self, network: M, name: &str) -> Result<M, TrainError> {
        let record = ModuleRecord::from_bytes(self.bytes(name)?).map_err(|e| self.error(format!("{e:?}")))?;
        network.try_load_record(record).map_err(|e| self.error(format!("{e:?}")))
    }

    /// A file in memory: from a path, burn reads tensors when they are asked for, and by then the file is another checkpoint's or gone.
    fn bytes(&self, name: &str) -> Result<Bytes, TrainError> {
        let path = self.folder.join(name);
        let bytes = fs::read(&path).map_err(|source| TrainError::File { path, source })?;
        Ok(Bytes::from_bytes_vec(bytes))
    }

    fn fresh(&self) -> PathBuf {
        self.folder.with_extension("new")
    }

    fn error(&self, message: String) -> TrainError {
        TrainError::Checkpoint { path: self.folder.clone(), message }
    }
}

/// Waits until the files of `folder`, and their names, are on the disk: where the power fails, no step is to be left without its weights.
fn flush(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        fs::OpenOptions::new().write(true).open(entry?.path())?.sync_all()?;
    }
    // Windows does not open folders as files.
    #[cfg(unix)]
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::{AdamConfig, GradientsParams};
    use burn::tensor::{Device, Tensor};

    fn network() -> Linear {
        LinearConfig::new(2, 3).init(&Device::flex())
    }

    fn optimizer() -> ModuleOptimizer {
        AdamConfig::new().init()
    }

    /// A network in training, and its optimizer, after a step.
    fn trained() -> (Linear, ModuleOptimizer) {
        let (network, mut optimizer) = (network().train(), optimizer());
        let loss = network.forward(Tensor::<2>::ones([1, 2], &Device::flex().autodiff())).sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        let network = optimizer.step(0.1, network, gradients);
        (network, optimizer)
    }

    fn weights(network: &Linear) -> Vec<f32> {
        network.weight.val().to_data().try_into_vec().unwrap()
    }

    /// The step and the weights that a run in `folder` would go on with.
    fn found(folder: &Path) -> (u64, Vec<f32>) {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let (network, _, step) = checkpoint.resume(network(), optimizer()).unwrap();
        (step, weights(&network))
    }

    /// Killed while checkpoint 2 takes the place of 1, one of them is found, and the next one is saved.
    #[test]
    fn a_kill_at_any_time_leaves_a_whole_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let [old, fresh] = ["checkpoint", "checkpoint.new"].map(|name| folder.path().join(name));
        let trained = [trained(), trained()];
        let weights = trained.each_ref().map(|(network, _)| weights(network));
        let save = |step: u64| {
            let (network, optimizer) = &trained[step as usize - 1];
            Checkpoint::open(folder.path())
                .unwrap()
                .save(network, optimizer, step, &Stopping { best: None })
                .unwrap();
        };
        assert_eq!(found(folder.path()).0, 0);

        // Part of the new one is written.
        save(1);
        fs::create_dir(&fresh).unwrap();
        fs::write(fresh.join("network.bpk"), "half").unwrap();
        assert_eq!(found(folder.path()), (1, weights[0].clone()));

        // The new one is whole, and a part of the old one is removed.
        save(2);
        fs::rename(&old, &fresh).unwrap();
        fs::create_dir(&old).unwrap();
        fs::write(old.join("optimizer.bpk"), "what is left").unwrap();
        assert_eq!(found(folder.path()), (2, weights[1].clone()));
        assert!(old.exists() && !fresh.exists());

        // The old one is removed, and the new one is not moved yet.
        fs::rename(&old, &fresh).unwrap();
        assert_eq!(found(folder.path()), (2, weights[1].clone()));

        // Both are whole: either will do, and the next one replaces it.
        let copied = tempfile::tempdir().unwrap();
        fs::rename(&old, copied.path().join("checkpoint")).unwrap();
        save(1);
        fs::rename(copied.path().join("checkpoint"), &fresh).unwrap();
        assert_eq!(found(folder.path()), (1, weights[0].clone()));
        save(2);
        assert_eq!(found(folder.path()), (2, weights[1].clone()));
    }

    #[test]
    fn the_best_check_is_kept_with_its_weights() {
        let folder = tempfile::tempdir().unwrap();
        let (best, (last, optimizer)) = (network(), trained());
        let check = Check { loss: 0.1 + 0.2, steps: 40, since: 1 };
        let checks = Stopping { best: Some(Best { network: best.clone(), check }) };
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert!(checkpoint.checks(network()).unwrap().best.is_none());
        checkpoint.save(&last, &optimizer, 50, &checks).unwrap();
        let found = checkpoint.checks(network()).unwrap().best.unwrap();
        assert_eq!((found.check, weights(&found.network)), (check, weights(&best)));
        assert_eq!(self::found(folder.path()), (50, weights(&last)));
        checkpoint.save(&last, &optimizer, 60, &Stopping { best: None }).unwrap();
        assert!(checkpoint.checks(network()).unwrap().best.is_none());
    }
}
