//! From text to the steps that evaluate it, by the precedence of its operators.

use super::{Binary, ExpressionError, FIELDS, Kind, Step, Unary};

/// Longest expression, bytes.
const MAX_BYTES: usize = 2000;
/// Deepest nesting.
const MAX_DEPTH: usize = 50;

/// Operators by their text, longest first, with how tightly they bind.
const OPERATORS: [(&str, Binary, u8); 13] = [
    ("||", Binary::Or, 1),
    ("&&", Binary::And, 2),
    ("<=", Binary::LessOrEqual, 3),
    (">=", Binary::GreaterOrEqual, 3),
    ("==", Binary::Equal, 3),
    ("!=", Binary::NotEqual, 3),
    ("<", Binary::Less, 3),
    (">", Binary::Greater, 3),
    ("+", Binary::Add, 4),
    ("-", Binary::Subtract, 4),
    ("*", Binary::Multiply, 5),
    ("/", Binary::Divide, 5),
    ("^", Binary::Power, 7),
];
/// How tightly a minus sign and `!` bind: less than `^`, so that `-2 ^ 2` is -4.
const UNARY_BINDS: u8 = 6;
const FUNCTIONS: [(&str, Unary); 5] = [
    ("abs", Unary::Absolute),
    ("sqrt", Unary::SquareRoot),
    ("log10", Unary::Log10),
    ("sin", Unary::Sine),
    ("cos", Unary::Cosine),
];
const FUNCTIONS_OF_TWO: [(&str, Binary); 2] = [("min", Binary::Minimum), ("max", Binary::Maximum)];

/// Reads an expression by the precedence of its operators, and writes the steps in the order of their execution.
pub(super) struct Parser<'a> {
    text: &'a str,
    /// Bytes read.
    at: usize,
    steps: Vec<Step>,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// The steps of an expression that is `wanted`.
    pub(super) fn steps(text: &'a str, wanted: Kind) -> Result<Vec<Step>, ExpressionError> {
        let mut parser = Parser { text, at: 0, steps: Vec::new(), depth: 0 };
        if text.len() > MAX_BYTES {
            return Err(parser.wrong(0, format!("at most {MAX_BYTES} bytes"), format!("{}", text.len())));
        }
        let kind = parser.expression(0)?;
        if !parser.rest().is_empty() {
            return Err(parser.unexpected("an operator or the end"));
        }
        parser.must_be(wanted, kind, 0)?;
        Ok(parser.steps)
    }

    /// What is left, without the space before it.
    fn rest(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn wrong(&self, at: usize, expected: impl Into<String>, found: impl Into<String>) -> ExpressionError {
        let position = 1 + self.text.get(..at).unwrap_or_default().chars().count();
        let (expected, found) = (expected.into(), found.into());
        ExpressionError { text: self.text.to_owned(), position, expected, found }
    }

    fn unexpected(&mut self, expected: &str) -> ExpressionError {
        let rest = self.rest();
        let word = word(rest);
        let found = match (word.is_empty(), rest.chars().next()) {
            (false, _) => format!("{word:?}"),
            (true, Some(character)) => format!("{character:?}"),
            (true, None) => "the end".to_owned(),
        };
        self.wrong(self.at, expected, found)
    }

    fn must_be(&self, wanted: Kind, kind: Kind, from: usize) -> Result<(), ExpressionError> {
        if wanted == kind {
            return Ok(());
        }
        let found = self.text.get(from..self.at).unwrap_or_default().trim();
        Err(self.wrong(from, wanted.to_string(), format!("{kind}: {found:?}")))
    }

    fn take(&mut self, token: &str) -> bool {
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
        }
        there
    }

    fn expect(&mut self, token: &str) -> Result<(), ExpressionError> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected(&format!("{token:?}"))) }
    }

    /// An expression of operators that bind at least as tightly as `least`.
    fn expression(&mut self, least: u8) -> Result<Kind, ExpressionError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.unexpected(&format!("at most {MAX_DEPTH} levels of nesting")));
        }
        self.rest();
        let from = self.at;
        let mut kind = self.operand()?;
        while let Some((token, operation, binds)) = self.operator().filter(|(_, _, binds)| *binds >= least) {
            let (operands, result) = operation.kinds();
            self.must_be(operands, kind, from)?;
            self.at += token.len();
            self.rest();
            let right_from = self.at;
            // `^` from the right, the others from the left; comparisons cannot be chained, for a truth is no number.
            let right = self.expression(if operation == Binary::Power { binds } else { binds + 1 })?;
            self.must_be(operands, right, right_from)?;
            self.steps.push(Step::Binary(operation));
            kind = result;
        }
        self.depth -= 1;
        Ok(kind)
    }

    fn operator(&mut self) -> Option<(&'static str, Binary, u8)> {
        let rest = self.rest();
        OPERATORS.into_iter().find(|(token, _, _)| rest.starts_with(token))
    }

    fn operand(&mut self) -> Result<Kind, ExpressionError> {
        let rest = self.rest();
        if self.take("(") {
            let kind = self.expression(0)?;
            self.expect(")")?;
            return Ok(kind);
        }
        for (token, operation, wanted) in [("-", Unary::Negate, Kind::Number), ("!", Unary::Not, Kind::Truth)]
        {
            if self.take(token) {
                self.argument(wanted, UNARY_BINDS)?;
                self.steps.push(Step::Unary(operation));
                return Ok(wanted);
            }
        }
        if rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return self.number();
        }
        self.named(word(rest))
    }

    fn argument(&mut self, wanted: Kind, least: u8) -> Result<(), ExpressionError> {
        self.rest();
        let from = self.at;
        let kind = self.expression(least)?;
        self.must_be(wanted, kind, from)
    }

    fn number(&mut self) -> Result<Kind, ExpressionError> {
        let rest = self.rest();
        let digits = |text: &str| text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let mut length = digits(rest);
        if let Some(exponent) = rest.get(length..).and_then(|rest| rest.strip_prefix(['e', 'E'])) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let count = digits(exponent.get(sign..).unwrap_or_default());
            length += if count > 0 { 1 + sign + count } else { 0 };
        }
        let text = rest.get(..length).unwrap_or_default();
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => {
                self.at += length;
                self.steps.push(Step::Constant(value));
                Ok(Kind::Number)
            }
            _ => Err(self.wrong(self.at, "a finite number", format!("{text:?}"))),
        }
    }

    /// A field, a constant or a function.
    fn named(&mut self, name: &str) -> Result<Kind, ExpressionError> {
        let from = self.at;
        self.at += name.len();
        if let Some(index) = FIELDS.iter().position(|(field, _)| *field == name) {
            self.steps.push(Step::Field(index));
        } else if name == "pi" {
            self.steps.push(Step::Constant(std::f64::consts::PI));
        } else if let Some((_, function)) = FUNCTIONS.into_iter().find(|(function, _)| *function == name) {
            self.expect("(")?;
            self.argument(Kind::Number, 0)?;
            self.expect(")")?;
            self.steps.push(Step::Unary(function));
        } else if let Some((_, function)) =
            FUNCTIONS_OF_TWO.into_iter().find(|(function, _)| *function == name)
        {
            self.expect("(")?;
            self.argument(Kind::Number, 0)?;
            self.expect(",")?;
            self.argument(Kind::Number, 0)?;
            self.expect(")")?;
            self.steps.push(Step::Binary(function));
        } else {
            self.at = from;
            if name.is_empty() {
                return Err(self.unexpected("a value"));
            }
            let functions = FUNCTIONS.map(|(name, _)| name).into_iter().chain(["min", "max"]);
            let known: Vec<&str> =
                FIELDS.iter().map(|(name, _)| *name).chain(["pi"]).chain(functions).collect();
            return Err(self.unexpected(&format!("one of {}", known.join(", "))));
        }
        Ok(Kind::Number)
    }
}

/// The name at the beginning of `text`.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}
