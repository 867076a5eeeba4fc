//! Numbers, read by value.

use super::Reader;
use crate::error::DecodeError;
use minicbor::data::Type;

impl Reader<'_> {
    /// An integer of CBOR's full range, -2^64 to 2^64 - 1.
    pub(in crate::cbor) fn integer(&mut self) -> Result<i128, DecodeError> {
        self.decoder.int().map(i128::from).map_err(|error| self.failed(&error))
    }

    /// A floating point number of any width.
    pub(in crate::cbor) fn floating(&mut self) -> Result<f64, DecodeError> {
        self.decoder.f64().map_err(|error| self.failed(&error))
    }

    /// A number as `f64`; an integer is taken where `f64` holds it exactly.
    pub(in crate::cbor) fn float(&mut self) -> Result<f64, DecodeError> {
        let kind = self.kind()?;
        if is_float(kind) {
            return self.floating();
        }
        if !is_integer(kind) {
            return Err(self.unexpected("a number"));
        }
        let integer = self.integer()?;
        let float = integer as f64;
        if float as i128 == integer {
            return Ok(float);
        }
        Err(self.mismatch("a number that a 64-bit float holds exactly", &integer.to_string()))
    }

    /// A non-negative integer; a float is taken where it is one.
    pub(in crate::cbor) fn uint(&mut self) -> Result<u64, DecodeError> {
        const EXPECTED: &str = "an integer from 0 to 2^64 - 1";
        let kind = self.kind()?;
        if is_integer(kind) {
            let integer = self.integer()?;
            return u64::try_from(integer).map_err(|_| self.mismatch(EXPECTED, &integer.to_string()));
        }
        if !is_float(kind) {
            return Err(self.unexpected(EXPECTED));
        }
        let float = self.floating()?;
        if float >= 0.0 && float < u64::MAX as f64 && float.fract() == 0.0 {
            return Ok(float as u64);
        }
        Err(self.mismatch(EXPECTED, &float.to_string()))
    }

    pub(in crate::cbor) fn uint32(&mut self) -> Result<u32, DecodeError> {
        let value = self.uint()?;
        u32::try_from(value).map_err(|_| self.mismatch("an integer from 0 to 2^32 - 1", &value.to_string()))
    }
}

pub(in crate::cbor) fn is_integer(kind: Type) -> bool {
    use Type::{I8, I16, I32, I64, Int, U8, U16, U32, U64};
    matches!(kind, U8 | U16 | U32 | U64 | I8 | I16 | I32 | I64 | Int)
}

pub(in crate::cbor) fn is_float(kind: Type) -> bool {
    matches!(kind, Type::F16 | Type::F32 | Type::F64)
}
