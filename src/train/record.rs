//! What the run in a training folder was begun with: its checkpoint is not resumed with anything else.

use super::TrainError;
use std::fs;
use std::path::Path;
use toml::{Table, Value};

/// The record, beside the checkpoint.
const SETTINGS_FILE: &str = "settings.toml";

/// Records in `folder` what its run is given. A run that is `resumed` must have been begun with the same, as far as its record goes: a
/// version that did not have a key recorded none, and the earliest kept no record.
///
/// # Errors
/// When the run was begun with something else, or the record cannot be read or written.
pub(super) fn claim(folder: &Path, given: &Table, resumed: bool) -> Result<(), TrainError> {
    let path = folder.join(SETTINGS_FILE);
    let file = |source| TrainError::File { path: path.clone(), source };
    if resumed && path.exists() {
        let text = fs::read_to_string(&path).map_err(file)?;
        let begun: Table = toml::from_str(&text)
            .map_err(|error| TrainError::Config { path: path.clone(), message: error.to_string() })?;
        if let Some((key, [was, is])) = difference(&begun, given) {
            let message = format!("begun with {key} = {was}, now {is}: expected the same, or another folder");
            return Err(TrainError::Checkpoint { path: folder.to_owned(), message });
        }
    }
    fs::write(&path, given.to_string()).map_err(file)
}

/// The first key that `given` has not as `begun` has it, and its value in both. What only `given` has does not count.
fn difference(begun: &Table, given: &Table) -> Option<(String, [String; 2])> {
    begun.iter().find_map(|(key, was)| match (was, given.get(key)) {
        (Value::Table(was), Some(Value::Table(is))) => {
            difference(was, is).map(|(inner, values)| (format!("{key}.{inner}"), values))
        }
        (was, Some(is)) if was == is => None,
        (was, is) => {
            Some((key.clone(), [was.to_string(), is.map_or("nothing".to_owned(), Value::to_string)]))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::export::table;
    use crate::train::{DcnnTrainSettings, Schedule};

    fn given(steps: u64) -> Table {
        let schedule = Schedule { steps, ..Schedule::default() };
        table(&DcnnTrainSettings { schedule, ..DcnnTrainSettings::default() }).unwrap()
    }

    #[test]
    fn a_run_goes_on_with_what_it_was_begun_with_alone() {
        let folder = tempfile::tempdir().unwrap();
        claim(folder.path(), &given(7), false).unwrap();
        claim(folder.path(), &given(7), true).unwrap();
        let error = claim(folder.path(), &given(8), true).unwrap_err().to_string();
        let folder_name = folder.path().display().to_string();
        for part in [folder_name.as_str(), "begun with schedule.steps = 7, now 8"] {
            assert!(error.contains(part), "{error}");
        }
        // What was refused is not recorded; where there is no checkpoint, there is nothing to go on with.
        claim(folder.path(), &given(7), true).unwrap();
        claim(folder.path(), &given(8), false).unwrap();
        assert!(claim(folder.path(), &given(7), true).is_err());
    }

    #[test]
    fn records_of_earlier_versions_are_taken_for_what_they_say() {
        let folder = tempfile::tempdir().unwrap();
        // No record at all.
        claim(folder.path(), &given(7), true).unwrap();
        assert!(claim(folder.path(), &given(8), true).is_err());
        // A key that there was not; it is known from now on.
        let mut fewer = given(7);
        assert!(fewer.remove("gamma").is_some());
        claim(folder.path(), &fewer, false).unwrap();
        claim(folder.path(), &given(7), true).unwrap();
        let error = claim(folder.path(), &fewer, true).unwrap_err().to_string();
        assert!(error.contains("gamma = [1.0, 1.0], now nothing"), "{error}");
    }
}
