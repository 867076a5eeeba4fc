//! A pickle read as data: what `torch.save` writes (protocol 2), and nothing that runs.
//!
//! Python's pickle is a program that may call any function. Here it builds a tree of plain values; the only functions it
//! may name are those by which PyTorch describes tensors, dictionaries and optimizers, and none of them is called.
//! Anything else, opcode or function, is an error that names it, used or not.

mod machine;

use machine::Machine;

/// Longest pickle that is read, bytes. It describes the tensors; their values lie elsewhere.
pub(super) const MAX_PICKLE_BYTES: u64 = 8 << 20;
/// Most axes of a tensor.
const MAX_AXES: usize = 8;
/// Most arguments of anything that is called.
const MAX_FIELDS: usize = 8;

/// A pickle that is broken, or more than data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    #[error("the pickle ends early, at byte {at}")]
    End { at: usize },
    #[error("pickle opcode 0x{opcode:02x} at byte {at}: expected one that torch.save writes (protocol 2)")]
    Opcode { opcode: u8, at: usize },
    #[error(
        "the pickle refers to `{name}`: expected only tensors, dictionaries and optimizers, as in torch.save(model.state_dict(), …)"
    )]
    Global { name: String },
    #[error("the pickle at byte {at}: expected {expected}")]
    Malformed { at: usize, expected: &'static str },
}

/// Number type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    F32,
    F64,
    F16,
    Bf16,
    /// Anything that is no weight: counters and masks. By bytes an element.
    Other(usize),
}

impl Number {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Other(bytes) => bytes,
        }
    }
}

/// The numbers behind one or several tensors, by their key in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub key: String,
    pub number: Number,
    pub count: usize,
}

/// A view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub stride: Vec<usize>,
}

/// Index of a value in its [`Pickle`]; values refer to each other, even in circles.
type Id = usize;

/// What the pickle may refer to.
#[derive(Debug, Clone, PartialEq)]
enum Callable {
    Dict,
    Tensor,
    Parameter,
    Storage(Number),
    /// Named and described, never looked at: an optimizer and what it holds.
    Inert,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Callable(Callable),
    Storage(Storage),
    Tensor(Tensor),
    Inert,
}

/// A pickle's values.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

/// One entry of a dictionary, as far as it is of use here.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    Tensor(&'a Tensor),
    Dict(Vec<(&'a str, Entry<'a>)>),
    /// Numbers and text, printable.
    Plain(String),
    Other,
}

impl Pickle {
    /// Reads the pickle at the start of `bytes`; returns it and the number of bytes that it took.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, usize), PickleError> {
        let mut machine = Machine::new(bytes);
        let root = machine.run()?;
        let (values, length) = machine.into_values();
        Ok((Self { values, root }, length))
    }

    pub(super) fn int(&self) -> Option<i64> {
        match self.values.get(self.root) {
            Some(Value::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// The text of a list of texts.
    pub(super) fn texts(&self) -> Option<Vec<&str>> {
        match self.values.get(self.root)? {
            Value::List(ids) => ids.iter().map(|&id| self.text(id)).collect(),
            _ => None,
        }
    }

    /// All storages that the pickle refers to, some of them repeatedly.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// The root as a dictionary, and the dictionaries directly in it.
    pub(super) fn root(&self) -> Entry<'_> {
        self.entry(self.root, 2)
    }

    fn text(&self, id: Id) -> Option<&str> {
        match self.values.get(id)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn entry(&self, id: Id, depth: usize) -> Entry<'_> {
        match self.values.get(id) {
            Some(Value::Tensor(tensor)) => Entry::Tensor(tensor),
            Some(Value::Dict(pairs)) if depth > 0 => {
                let named = |&(key, value): &(Id, Id)| Some((self.text(key)?, self.entry(value, depth - 1)));
                Entry::Dict(pairs.iter().filter_map(named).collect())
            }
            Some(Value::Bool(value)) => Entry::Plain(value.to_string()),
            Some(Value::Int(value)) => Entry::Plain(value.to_string()),
            Some(Value::Float(value)) => Entry::Plain(value.to_string()),
            Some(Value::Text(value)) => Entry::Plain(value.clone()),
            _ => Entry::Other,
        }
    }
}
