//! The stack machine that a pickle is a program for, less all that could run anything.

use super::{Callable, Id, MAX_AXES, MAX_FIELDS, Number, PickleError, Storage, Tensor, Value};
use std::collections::HashMap;

/// What a name in a pickle stands for; `None`: refused.
fn callable(module: &str, name: &str) -> Option<Callable> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Callable::Dict,
        ("collections", "defaultdict") | ("__builtin__" | "builtins", "dict") => Callable::Inert,
        ("torch._utils", "_rebuild_tensor_v2") => Callable::Tensor,
        ("torch._utils", "_rebuild_parameter") => Callable::Parameter,
        ("torch", "FloatStorage") => Callable::Storage(Number::F32),
        ("torch", "DoubleStorage") => Callable::Storage(Number::F64),
        ("torch", "HalfStorage") => Callable::Storage(Number::F16),
        ("torch", "BFloat16Storage") => Callable::Storage(Number::Bf16),
        ("torch", "LongStorage") => Callable::Storage(Number::Other(8)),
        ("torch", "IntStorage") => Callable::Storage(Number::Other(4)),
        ("torch", "ShortStorage") => Callable::Storage(Number::Other(2)),
        ("torch", "CharStorage" | "ByteStorage" | "BoolStorage") => Callable::Storage(Number::Other(1)),
        // What AtomAI keeps beside a trained network's weights.
        _ if module.starts_with("torch.optim.") => Callable::Inert,
        _ => return None,
    })
}

/// What lies on the stack: a value, or the mark below a group of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Mark,
    Value(Id),
}

/// Reads one pickle.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Slot>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, values: Vec::new(), stack: Vec::new(), memo: HashMap::new() }
    }

    /// The values, and the number of bytes read.
    pub(super) fn into_values(self) -> (Vec<Value>, usize) {
        (self.values, self.at)
    }

    /// Runs the pickle to its end; returns what it leaves on the stack.
    pub(super) fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            let [opcode] = self.take()?;
            match opcode {
                0x80 => {
                    let [protocol] = self.take()?;
                    self.require(protocol == 2, "protocol 2")?;
                }
                b'.' => return self.pop(),
                b'(' => self.stack.push(Slot::Mark),
                b'c' => self.global()?,
                b'q' | b'r' | b'h' | b'j' => self.memory(opcode)?,
                b'N' | 0x88 | 0x89 | b'K' | b'M' | b'J' | b'G' | b'X' | 0x8a => self.plain(opcode)?,
                b')' | b']' | b'}' | b't' | 0x85..=0x87 => self.collection(opcode)?,
                b'a' | b'e' | b's' | b'u' => self.fill(opcode)?,
                b'Q' => self.storage()?,
                b'R' | 0x81 => self.call()?,
                // A state: PyTorch's only matters to Python.
                b'b' => _ = self.pop()?,
                _ => return Err(PickleError::Opcode { opcode, at: self.at - 1 }),
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let end = self.at.checked_add(N).ok_or(PickleError::End { at: self.at })?;
        let bytes = self.bytes.get(self.at..end).and_then(|bytes| bytes.try_into().ok());
        self.at = end;
        bytes.ok_or(PickleError::End { at: self.bytes.len() })
    }

    fn slice(&mut self, length: usize) -> Result<&[u8], PickleError> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or(PickleError::End { at: self.bytes.len() })?;
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or(PickleError::End { at: self.bytes.len() })?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    fn malformed(&self, expected: &'static str) -> PickleError {
        PickleError::Malformed { at: self.at, expected }
    }

    fn require(&self, holds: bool, expected: &'static str) -> Result<(), PickleError> {
        if holds { Ok(()) } else { Err(self.malformed(expected)) }
    }

    fn push(&mut self, value: Value) {
        self.stack.push(Slot::Value(self.values.len()));
        self.values.push(value);
    }

    fn inert(&mut self) -> Result<(), PickleError> {
        self.push(Value::Inert);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        match self.stack.pop() {
            Some(Slot::Value(id)) => Ok(id),
            _ => Err(self.malformed("a value on the stack")),
        }
    }

    /// The values above the last mark.
    fn pop_group(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.stack.iter().rposition(|&slot| slot == Slot::Mark);
        let mark = mark.ok_or_else(|| self.malformed("a mark on the stack"))?;
        let group = self.stack.drain(mark..).skip(1);
        Ok(group.filter_map(|slot| if let Slot::Value(id) = slot { Some(id) } else { None }).collect())
    }

    fn global(&mut self) -> Result<(), PickleError> {
        let (module, name) = (self.line()?, self.line()?);
        match callable(&module, &name) {
            Some(callable) => {
                self.push(Value::Callable(callable));
                Ok(())
            }
            None => Err(PickleError::Global { name: format!("{module}.{name}") }),
        }
    }

    fn memory(&mut self, opcode: u8) -> Result<(), PickleError> {
        let key = match opcode {
            b'q' | b'h' => u32::from(self.take::<1>()?[0]),
            _ => u32::from_le_bytes(self.take()?),
        };
        if matches!(opcode, b'q' | b'r') {
            let Some(&Slot::Value(id)) = self.stack.last() else {
                return Err(self.malformed("a value on the stack"));
            };
            self.memo.insert(key, id);
        } else {
            let id = self.memo.get(&key).copied().ok_or_else(|| self.malformed("a memo that was written"))?;
            self.stack.push(Slot::Value(id));
        }
        Ok(())
    }

    fn plain(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.take::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.take()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.take()?).into()),
            b'G' => Value::Float(f64::from_be_bytes(self.take()?)),
            b'X' => {
                let length = u32::from_le_bytes(self.take()?) as usize;
                Value::Text(String::from_utf8_lossy(self.slice(length)?).into_owned())
            }
            _ => {
                let [length] = self.take()?;
                let bytes = self.slice(length.into())?;
                let sign = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
                let mut value = [sign; 8];
                match value.get_mut(..bytes.len()) {
                    Some(low) => low.copy_from_slice(bytes),
                    // PyTorch's magic number, which is wider than any number of use here.
                    None => return self.inert(),
                }
                Value::Int(i64::from_le_bytes(value))
            }
        };
        self.push(value);
        Ok(())
    }

    fn collection(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b')' => Value::Tuple(Vec::new()),
            b']' => Value::List(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            b't' => Value::Tuple(self.pop_group()?),
            _ => {
                let mut items = (0x85..=opcode).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
                items.reverse();
                Value::Tuple(items)
            }
        };
        self.push(value);
        Ok(())
    }

    /// Puts values into the list or dictionary below them.
    fn fill(&mut self, opcode: u8) -> Result<(), PickleError> {
        let items = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_group()?,
        };
        let target = self.pop()?;
        self.stack.push(Slot::Value(target));
        match (opcode, self.values.get_mut(target)) {
            (b'a' | b'e', Some(Value::List(list))) => list.extend(items),
            (b's' | b'u', Some(Value::Dict(pairs))) if items.len().is_multiple_of(2) => {
                pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            (_, Some(Value::Inert)) => {}
            _ => return Err(self.malformed("a list or dictionary to fill")),
        }
        Ok(())
    }

    /// `('storage', type, key, location, count)`, and in old files a view, which must be None.
    fn storage(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let storage = match self.fields(id).as_deref() {
            Some(
                [
                    Value::Text(tag),
                    Value::Callable(Callable::Storage(number)),
                    Value::Text(key),
                    _,
                    count,
                    view @ ..,
                ],
            ) if tag == "storage" && matches!(view, [] | [Value::None]) => {
                size(count).map(|count| Storage { key: key.clone(), number: *number, count })
            }
            _ => None,
        };
        let storage = storage.ok_or_else(|| self.malformed("a storage that is no view of another"))?;
        self.push(Value::Storage(storage));
        Ok(())
    }

    fn call(&mut self) -> Result<(), PickleError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Some(Value::Callable(function)) = self.values.get(function) else {
            return Err(self.malformed("something to call"));
        };
        let value = match (function, self.fields(arguments).as_deref()) {
            (Callable::Dict, Some([])) => Some(Value::Dict(Vec::new())),
            (Callable::Inert, Some(_)) => Some(Value::Inert),
            (Callable::Parameter, Some([Value::Tensor(tensor), ..])) => Some(Value::Tensor(tensor.clone())),
            (
                Callable::Tensor,
                Some([Value::Storage(storage), offset, Value::Tuple(shape), Value::Tuple(stride), ..]),
            ) => self.tensor(storage, size(offset), [shape, stride]).map(Value::Tensor),
            _ => None,
        };
        let value = value.ok_or_else(|| self.malformed("a tensor, a parameter or an empty dictionary"))?;
        self.push(value);
        Ok(())
    }

    fn tensor(&self, storage: &Storage, offset: Option<usize>, axes: [&Vec<Id>; 2]) -> Option<Tensor> {
        let [shape, stride] = axes.map(|ids| {
            let sizes = ids.iter().map(|&id| size(self.values.get(id)?));
            if ids.len() > MAX_AXES { None } else { sizes.collect::<Option<Vec<_>>>() }
        });
        let (offset, shape, stride) = (offset?, shape?, stride?);
        if shape.len() != stride.len() {
            return None;
        }
        let empty = shape.contains(&0);
        let last = shape.iter().zip(&stride).try_fold(offset, |last, (&size, &stride)| {
            last.checked_add(size.saturating_sub(1).checked_mul(stride)?)
        })?;
        (empty || last < storage.count).then(|| Tensor { storage: storage.clone(), offset, shape, stride })
    }

    /// The values of a tuple.
    fn fields(&self, id: Id) -> Option<Vec<&Value>> {
        match self.values.get(id)? {
            Value::Tuple(ids) if ids.len() <= MAX_FIELDS => {
                ids.iter().map(|&id| self.values.get(id)).collect()
            }
            _ => None,
        }
    }
}

fn size(value: &Value) -> Option<usize> {
    match value {
        Value::Int(value) => usize::try_from(*value).ok(),
        _ => None,
    }
}
