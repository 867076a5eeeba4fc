//! Expressions over the published fields, as a user writes them in the config: compiled once, evaluated window by window.
//!
//! *Grammar*: numbers, the [`FIELDS`], `pi`; `+ - * / ^`, `abs sqrt log10 sin cos min max`; `< <= > >= == !=`; `! && ||`;
//! parentheses. What binds tighter stands further left here: `^`, the minus sign and `!`, `* /`, `+ -`, comparisons, `&&`, `||`.
//! *Assumptions*: an expression is true or false (a condition) or a number (a score), which is known before it is evaluated.
//! *Error conditions*: text that is no expression is refused with the position of what is wrong. A window in which a field that
//! the expression names was not measured (NaN) fulfils no condition, whatever the expression says.
//!
//! Written here because no crate of the kind says where an expression is wrong without more dependencies than it is worth.

mod parser;
#[cfg(test)]
mod tests;

use parser::Parser;
use std::fmt;

/// The names that an expression may use, each with its unit and meaning: what is published (`mistilt_offset_x` is `mistilt.offset_x` on
/// the wire), and what is measured on the columns. Values of a window, in this order.
pub const FIELDS: [(&str, &str); 31] = [
    ("p_x", "P along the columns (right), pm"),
    ("p_y", "P along the rows (down), pm"),
    ("p", "length of P, pm"),
    ("p_angle", "direction of P, counter-clockwise as displayed, rad"),
    ("p_sigma", "predicted standard deviation of a component of P, pm"),
    ("cell_a", "cell edge nearer to the x axis, pm"),
    ("cell_b", "the other cell edge, pm"),
    ("cell_angle", "angle between the two, rad"),
    ("cell_area", "area of the cell, pm²"),
    ("aspect", "cell_a / cell_b"),
    ("ood_p_value", "p-value of the window's features (small = unusual)"),
    ("ood_flag", "1 where the window is flagged, 0 elsewhere"),
    ("ood_excess", "feature distance over the 99.9 % distance of ordinary windows"),
    ("mistilt_offset_x", "offset of P common to all domains of the tile, along the columns (right), pm"),
    ("mistilt_offset_y", "the same along the rows (down), pm"),
    ("mistilt_offset", "its length, pm"),
    ("mistilt_p_value", "p-value of no offset (small = the offset is no accident)"),
    ("mistilt_state", "0 not evaluated, 1 consistent, 2 suspect, 3 undetermined"),
    ("mistilt_tilt_x", "tilt that would give the offset, where the material has a calibration, mrad"),
    ("mistilt_tilt_y", "the same along the rows (down), mrad"),
    ("p_corrected_x", "p_x less the offset, with flags.mistilt.publish_corrected, pm"),
    ("p_corrected_y", "p_y less the offset, pm"),
    ("p_corrected", "length of P less the offset, pm"),
    ("classical_p_x", "P of the nearest cell of columns, at most 200 pm away, along the columns (right), pm"),
    ("classical_p_y", "the same along the rows (down), pm"),
    ("classical_p", "its length, pm"),
    ("classical_cell_a", "edge of that cell nearer to the x axis, pm"),
    ("classical_cell_b", "its other edge, pm"),
    ("classical_cell_angle", "angle between the two, rad"),
    ("classical_cell_area", "area of that cell, pm²"),
    ("classical_away", "distance between P and that of the columns, pm"),
];

/// Fields whose names begin so are there only with `flags.mistilt.publish_corrected`.
pub(super) const CORRECTED: &str = "p_corrected";
/// Fields whose names begin so are those of the nearest cell of columns.
pub(super) const CLASSICAL: &str = "classical";

/// What the fields are in one window, in the order of [`FIELDS`].
pub type Values = [f64; FIELDS.len()];

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}, character {position}: expected {expected}, found {found}")]
pub struct ExpressionError {
    pub text: String,
    /// Of what is wrong, counted in characters from 1.
    pub position: usize,
    pub expected: String,
    pub found: String,
}

/// Whether an expression is a condition or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Truth,
    Number,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truth => "a condition",
            Self::Number => "a number",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    And,
    Or,
    Minimum,
    Maximum,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Unary {
    Negate,
    Not,
    Absolute,
    SquareRoot,
    Log10,
    Sine,
    Cosine,
}

/// One step of a stack machine; truths are 1 and 0.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Constant(f64),
    Field(usize),
    Unary(Unary),
    Binary(Binary),
}

impl Binary {
    /// Of its operands, and of itself.
    const fn kinds(self) -> (Kind, Kind) {
        match self {
            Self::And | Self::Or => (Kind::Truth, Kind::Truth),
            Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual
            | Self::Equal
            | Self::NotEqual => (Kind::Number, Kind::Truth),
            _ => (Kind::Number, Kind::Number),
        }
    }

    fn apply(self, a: f64, b: f64) -> f64 {
        let truth = |truth: bool| f64::from(u8::from(truth));
        match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            Self::Divide => a / b,
            Self::Power => a.powf(b),
            Self::Less => truth(a < b),
            Self::LessOrEqual => truth(a <= b),
            Self::Greater => truth(a > b),
            Self::GreaterOrEqual => truth(a >= b),
            Self::Equal => truth(a == b),
            Self::NotEqual => truth(a != b),
            Self::And => truth(a != 0.0 && b != 0.0),
            Self::Or => truth(a != 0.0 || b != 0.0),
            Self::Minimum => a.min(b),
            Self::Maximum => a.max(b),
        }
    }
}

impl Unary {
    fn apply(self, a: f64) -> f64 {
        match self {
            Self::Negate => -a,
            Self::Not => f64::from(u8::from(a == 0.0)),
            Self::Absolute => a.abs(),
            Self::SquareRoot => a.sqrt(),
            Self::Log10 => a.log10(),
            Self::Sine => a.sin(),
            Self::Cosine => a.cos(),
        }
    }
}

/// A compiled expression and the text that it came from.
#[derive(Debug, Clone, PartialEq)]
struct Expression {
    text: String,
    steps: Vec<Step>,
}

impl Expression {
    fn compile(text: &str, wanted: Kind) -> Result<Self, ExpressionError> {
        Ok(Self { text: text.to_owned(), steps: Parser::steps(text, wanted)? })
    }

    /// NaN where a field in it is.
    fn evaluate(&self, values: &Values, stack: &mut Vec<f64>) -> f64 {
        stack.clear();
        for step in &self.steps {
            let result = match *step {
                Step::Constant(value) => value,
                Step::Field(index) => {
                    let value = values.get(index).copied().unwrap_or(f64::NAN);
                    if value.is_nan() {
                        return f64::NAN;
                    }
                    value
                }
                Step::Unary(operation) => operation.apply(stack.pop().unwrap_or(f64::NAN)),
                Step::Binary(operation) => {
                    let right = stack.pop().unwrap_or(f64::NAN);
                    operation.apply(stack.pop().unwrap_or(f64::NAN), right)
                }
            };
            stack.push(result);
        }
        stack.pop().unwrap_or(f64::NAN)
    }

    fn fields(&self) -> impl Iterator<Item = usize> + '_ {
        self.steps.iter().filter_map(|step| match step {
            Step::Field(index) => Some(*index),
            _ => None,
        })
    }
}

/// Makes a type of one kind of expression, read from and written as its text.
macro_rules! expressions {
    ($(#[$about:meta])* $type:ident, $kind:expr) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Expression);

        impl $type {
            /// Whether a field is in it whose name begins with `prefix`.
            pub(super) fn names(&self, prefix: &str) -> bool {
                self.0.fields().any(|index| FIELDS.get(index).is_some_and(|(name, _)| name.starts_with(prefix)))
            }
        }

        impl TryFrom<String> for $type {
            type Error = ExpressionError;

            fn try_from(text: String) -> Result<Self, ExpressionError> {
                Expression::compile(&text, $kind).map(Self)
            }
        }

        impl From<$type> for String {
            fn from(expression: $type) -> Self {
                expression.0.text
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.text)
            }
        }
    };
}

expressions! {
    /// True or false in each window.
    Condition, Kind::Truth
}
expressions! {
    /// A number in each window.
    Score, Kind::Number
}

impl Condition {
    /// Whether it holds: never where a field in it is NaN. `stack` is room that it needs.
    pub fn holds(&self, values: &Values, stack: &mut Vec<f64>) -> bool {
        self.0.evaluate(values, stack) == 1.0
    }

    /// The fields in it with their values, each once, for people.
    pub fn describe(&self, values: &Values) -> String {
        let mut named: Vec<usize> = self.0.fields().collect();
        named.sort_unstable();
        named.dedup();
        let shown = named.into_iter().filter_map(|index| {
            let ((name, _), value) = FIELDS.get(index).zip(values.get(index))?;
            // Four digits say enough of any of them.
            let decimals = (3.0 - value.abs().max(1e-9).log10().floor()).clamp(0.0, 6.0) as usize;
            Some(format!("{name} = {value:.decimals$}"))
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

impl Score {
    /// NaN where a field in it is. `stack` is room that it needs.
    pub fn of(&self, values: &Values, stack: &mut Vec<f64>) -> f64 {
        self.0.evaluate(values, stack)
    }
}
