//! A state dictionary: named tensors in a file of PyTorch's (zip archive since 1.6, bare pickles before) or of safetensors.

use super::ImportError;
use super::pickle::{Entry, MAX_PICKLE_BYTES, Number, Pickle, Storage, Tensor};
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read as _};
use std::path::Path;

/// Largest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// The first pickle of a file from before PyTorch 1.6: its magic number.
const OLD_MAGIC: [u8; 15] = *b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The number in the second one.
const OLD_PROTOCOL: i64 = 1001;
/// Where the weights lie in a dictionary that holds more: AtomAI's name, and the names that people use.
const WEIGHTS_KEYS: [&str; 4] = ["weights", "state_dict", "model_state_dict", "model"];

type Tensors = BTreeMap<String, Tensor>;
type Metadata = BTreeMap<String, String>;

/// A file's tensors by name. Their values are read one by one, when asked for.
#[derive(Debug)]
pub(super) struct StateDict {
    /// What the file is, for people.
    pub format: &'static str,
    /// The numbers and texts beside the weights.
    pub metadata: Metadata,
    tensors: Tensors,
    source: Source,
}

/// Where the storages lie.
#[derive(Debug)]
enum Source {
    /// In the archive's entries `prefix + key`.
    Zip { archive: zip::ZipArchive<Cursor<Vec<u8>>>, prefix: String },
    /// In the file, from these bytes on.
    Bytes { bytes: Vec<u8>, starts: HashMap<String, usize> },
}

impl StateDict {
    /// Reads what `file` says of its tensors.
    pub(super) fn open(file: &Path) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Read { path: file.to_owned(), source };
        let length = std::fs::metadata(file).map_err(failed)?.len();
        if length > MAX_FILE_BYTES {
            return Err(ImportError::size("the file", length, MAX_FILE_BYTES));
        }
        Self::from_bytes(std::fs::read(file).map_err(failed)?)
    }

    pub(super) fn from_bytes(bytes: Vec<u8>) -> Result<Self, ImportError> {
        if bytes.starts_with(b"PK\x03\x04") {
            zipped(bytes)
        } else if bytes.starts_with(&OLD_MAGIC) {
            bare(bytes)
        } else if bytes.get(8) == Some(&b'{') {
            safe(bytes)
        } else {
            Err(ImportError::Format("expected a file of torch.save or of safetensors".to_owned()))
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// Takes `prefix` off all names, if all have it.
    pub(super) fn strip(&mut self, prefix: &str) {
        if self.tensors.keys().all(|name| name.starts_with(prefix)) {
            let tensors = std::mem::take(&mut self.tensors);
            self.tensors =
                tensors.into_iter().map(|(name, it)| (name[prefix.len()..].to_owned(), it)).collect();
        }
    }

    /// The values of a tensor, the last axis fastest. The caller has checked its shape.
    pub(super) fn values(&mut self, name: &str) -> Result<Vec<f32>, ImportError> {
        let tensor = self.tensors.get(name).cloned();
        let tensor = tensor.ok_or_else(|| ImportError::Format(format!("no tensor {name}")))?;
        let numbers = self.source.numbers(name, &tensor.storage)?;
        let count = tensor.shape.iter().product();
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0; tensor.shape.len()];
        for _ in 0..count {
            let at: usize = index.iter().zip(&tensor.stride).map(|(i, stride)| i * stride).sum();
            values.push(numbers.get(tensor.offset + at).copied().unwrap_or(f32::NAN));
            for (i, &size) in index.iter_mut().zip(&tensor.shape).rev() {
                *i += 1;
                if *i < size {
                    break;
                }
                *i = 0;
            }
        }
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(ImportError::Format(format!("{name}: {value}: expected finite weights"))),
            None => Ok(values),
        }
    }
}

impl Source {
    fn numbers(&mut self, name: &str, storage: &Storage) -> Result<Vec<f32>, ImportError> {
        let damaged = |what: String| ImportError::Format(format!("{name}: {what}"));
        let length = storage.count.checked_mul(storage.number.bytes());
        let length = length.filter(|&length| length as u64 <= MAX_FILE_BYTES);
        let length = length.ok_or_else(|| damaged(format!("{} values are too many", storage.count)))?;
        match self {
            Self::Bytes { bytes, starts } => {
                let start = starts.get(&storage.key).copied();
                let data = start.and_then(|start| bytes.get(start..start.checked_add(length)?));
                let data = data.ok_or_else(|| damaged("its values are cut off".to_owned()))?;
                floats(data, storage.number)
                    .ok_or_else(|| damaged("expected floating-point numbers".to_owned()))
            }
            Self::Zip { archive, prefix } => {
                let entry_name = format!("{prefix}data/{}", storage.key);
                let mut entry = archive.by_name(&entry_name).map_err(|error| damaged(error.to_string()))?;
                if entry.size() != length as u64 {
                    let size = entry.size();
                    return Err(damaged(format!("{entry_name} has {size} bytes, expected {length}")));
                }
                let data = entry_bytes(&mut entry, length as u64)?;
                floats(&data, storage.number)
                    .ok_or_else(|| damaged("expected floating-point numbers".to_owned()))
            }
        }
    }
}

/// Reads an archive's entry of at most `limit` bytes, whatever its header says.
fn entry_bytes(entry: &mut impl std::io::Read, limit: u64) -> Result<Vec<u8>, ImportError> {
    let mut bytes = Vec::new();
    entry.take(limit + 1).read_to_end(&mut bytes).map_err(|error| ImportError::Format(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(ImportError::size("an entry of the archive", bytes.len() as u64, limit));
    }
    Ok(bytes)
}

/// Little-endian numbers; `None` when they are no floating-point ones.
fn floats(bytes: &[u8], number: Number) -> Option<Vec<f32>> {
    let (fours, _) = bytes.as_chunks::<4>();
    let (eights, _) = bytes.as_chunks::<8>();
    let (twos, _) = bytes.as_chunks::<2>();
    Some(match number {
        Number::F32 => fours.iter().map(|&four| f32::from_le_bytes(four)).collect(),
        Number::F64 => eights.iter().map(|&eight| f64::from_le_bytes(eight) as f32).collect(),
        Number::F16 => twos.iter().map(|&two| half(u16::from_le_bytes(two))).collect(),
        Number::Bf16 => {
            twos.iter().map(|&two| f32::from_bits(u32::from(u16::from_le_bytes(two)) << 16)).collect()
        }
        Number::Other(_) => return None,
    })
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

fn zipped(bytes: Vec<u8>) -> Result<StateDict, ImportError> {
    let archive = |error: zip::result::ZipError| ImportError::Format(format!("the archive: {error}"));
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(archive)?;
    let prefix = zip
        .file_names()
        .filter_map(Result::ok)
        .find_map(|name| name.strip_suffix("data.pkl").map(str::to_owned));
    let prefix = prefix.ok_or_else(|| ImportError::Format("the archive holds no data.pkl".to_owned()))?;
    if let Ok(mut order) = zip.by_name(&format!("{prefix}byteorder"))
        && entry_bytes(&mut order, 16)? != b"little"
    {
        return Err(ImportError::Format("byte order: expected little".to_owned()));
    }
    let mut entry = zip.by_name(&format!("{prefix}data.pkl")).map_err(archive)?;
    let text = entry_bytes(&mut entry, MAX_PICKLE_BYTES)?;
    drop(entry);
    let (pickle, _) = Pickle::read(&text)?;
    let (tensors, metadata) = weights(&pickle)?;
    let source = Source::Zip { archive: zip, prefix };
    Ok(StateDict { format: "PyTorch (zip)", metadata, tensors, source })
}

/// Five pickles (magic number, protocol, machine, object, keys of the storages), then each storage's count and numbers.
fn bare(bytes: Vec<u8>) -> Result<StateDict, ImportError> {
    let mut at = OLD_MAGIC.len();
    let mut next = || -> Result<Pickle, ImportError> {
        let rest = bytes.get(at..).unwrap_or_default();
        let rest = rest.get(..MAX_PICKLE_BYTES as usize).unwrap_or(rest);
        let (pickle, length) = Pickle::read(rest)?;
        at += length;
        Ok(pickle)
    };
    let wrong = |what: &str| ImportError::Format(format!("an old PyTorch file: {what}"));
    if next()?.int() != Some(OLD_PROTOCOL) {
        return Err(wrong("expected protocol 1001"));
    }
    let machine = next()?;
    let little = matches!(machine.root(), Entry::Dict(entries) if entries.iter().any(|(name, value)| {
        *name == "little_endian" && matches!(value, Entry::Plain(text) if text == "true")
    }));
    if !little {
        return Err(wrong("byte order: expected little"));
    }
    let object = next()?;
    let (tensors, metadata) = weights(&object)?;
    let keys = next()?;
    let keys: Vec<&str> = keys.texts().ok_or_else(|| wrong("expected a list of storages"))?;
    // How many numbers a storage has stands before them; how long each is, where the object refers to it.
    let kinds: HashMap<&str, &Storage> =
        object.storages().map(|storage| (storage.key.as_str(), storage)).collect();
    let mut starts = HashMap::new();
    for key in keys {
        let cut = || wrong("its values are cut off");
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(cut)?;
        let count = usize::try_from(u64::from_le_bytes(*count)).map_err(|_| cut())?;
        let Some(storage) = kinds.get(key) else {
            return Err(wrong(&format!("nothing refers to storage {key}")));
        };
        if storage.count != count {
            return Err(wrong(&format!("storage {key} has {count} values, expected {}", storage.count)));
        }
        let (start, length) = (at + 8, count.checked_mul(storage.number.bytes()).ok_or_else(cut)?);
        at = start.checked_add(length).filter(|&end| end <= bytes.len()).ok_or_else(cut)?;
        starts.insert(key.to_owned(), start);
    }
    let source = Source::Bytes { starts, bytes };
    Ok(StateDict { format: "PyTorch (before 1.6)", metadata, tensors, source })
}

/// The tensors of the root dictionary or of the one that holds the weights, and what stands beside them.
fn weights(pickle: &Pickle) -> Result<(Tensors, Metadata), ImportError> {
    let Entry::Dict(root) = pickle.root() else {
        return Err(ImportError::Format(
            "expected a dictionary: torch.save(model.state_dict(), …)".to_owned(),
        ));
    };
    let mut tensors = named_tensors(&root);
    let mut metadata = BTreeMap::new();
    for (name, entry) in &root {
        match entry {
            Entry::Dict(inner) if tensors.is_empty() && WEIGHTS_KEYS.contains(name) => {
                tensors = named_tensors(inner)
            }
            Entry::Plain(text) => _ = metadata.insert((*name).to_owned(), text.clone()),
            _ => {}
        }
    }
    if tensors.is_empty() {
        let names: Vec<&str> = root.iter().map(|(name, _)| *name).collect();
        return Err(ImportError::Format(format!(
            "no tensors in the dictionary nor under {}; found {}",
            WEIGHTS_KEYS.join(", "),
            super::some(&names),
        )));
    }
    Ok((tensors, metadata))
}

fn named_tensors(entries: &[(&str, Entry<'_>)]) -> Tensors {
    let tensor = |(name, entry): &(&str, Entry<'_>)| match entry {
        Entry::Tensor(tensor) => Some(((*name).to_owned(), (*tensor).clone())),
        _ => None,
    };
    entries.iter().filter_map(tensor).collect()
}

fn safe(bytes: Vec<u8>) -> Result<StateDict, ImportError> {
    let broken = |error: safetensors::SafeTensorError| ImportError::Format(error.to_string());
    let (header_length, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let (mut tensors, mut starts) = (BTreeMap::new(), HashMap::new());
    for (name, info) in header.tensors() {
        let number = match info.dtype {
            Dtype::F32 => Number::F32,
            Dtype::F64 => Number::F64,
            Dtype::F16 => Number::F16,
            Dtype::BF16 => Number::Bf16,
            other => Number::Other(other.bitsize() / 8),
        };
        let count = info.shape.iter().product();
        let mut stride = vec![1; info.shape.len()];
        for axis in (1..stride.len()).rev() {
            stride[axis - 1] = stride[axis] * info.shape[axis];
        }
        starts.insert(name.clone(), header_length + 8 + info.data_offsets.0);
        let storage = Storage { key: name.clone(), number, count };
        tensors.insert(name, Tensor { storage, offset: 0, shape: info.shape.clone(), stride });
    }
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(StateDict { format: "safetensors", metadata, tensors, source: Source::Bytes { bytes, starts } })
}
