use super::*;

/// The first fields; the others were not measured.
const MEASURED: [f64; 12] = [30.0, -40.0, 50.0, 0.93, 4.0, 400.0, 390.0, 1.57, 156_000.0, 1.0256, 0.02, 0.0];
const VALUES: Values = {
    let mut values = [f64::NAN; FIELDS.len()];
    let mut n = 0;
    while n < MEASURED.len() {
        values[n] = MEASURED[n];
        n += 1;
    }
    values
};

fn number(text: &str) -> f64 {
    Score::try_from(text.to_owned()).unwrap().of(&VALUES, &mut Vec::new())
}

fn holds(text: &str) -> bool {
    Condition::try_from(text.to_owned()).unwrap().holds(&VALUES, &mut Vec::new())
}

#[test]
fn arithmetic_binds_as_in_mathematics() {
    let cases = [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("10 - 4 - 3", 3.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("-2 ^ 2", -4.0),
        ("2 ^ -1", 0.5),
        ("--3", 3.0),
        ("6 / 3 / 2", 1.0),
        ("1.5e1 + .5", 15.5),
        ("min(3, 2) + max(1, 4) * abs(-2)", 10.0),
        ("sqrt(p_x ^ 2 + p_y ^ 2) - p", 0.0),
        ("log10(1000) + cos(0) + sin(0)", 4.0),
        ("cos(pi)", -1.0),
    ];
    for (text, expected) in cases {
        assert!((number(text) - expected).abs() < 1e-12, "{text}: {}", number(text));
    }
}

#[test]
fn conditions_combine_and_unmeasured_fields_fulfil_none() {
    assert!(holds("p > 40 && ood_p_value > 0.01"));
    assert!(!holds("p > 60 && ood_p_value > 0.01 || p_sigma > 5"));
    assert!(holds("p < 40 || p_x == 30 && !(p_y >= 0)"));
    assert!(holds("aspect != 1 && cell_a / cell_b > 1.02"));
    assert!(holds("p_angle*180/pi>53&&p_angle * 180 / pi < 54"));
    // ood_excess was not measured: neither it nor its opposite holds.
    assert!(!holds("ood_excess > 1") && !holds("!(ood_excess > 1)") && !holds("p > 1 || ood_excess > 1"));
    assert!(number("ood_excess + 1").is_nan());
}

#[test]
fn what_is_wrong_is_named_with_its_position() {
    // (text, position, part of what was expected, part of what was found)
    let cases = [
        ("", 1, "a value", "the end"),
        ("p >", 4, "a value", "the end"),
        ("p > 40 &&& p < 3", 10, "a value", "'&'"),
        ("p > 40 && polarisation < 3", 11, "one of p_x, p_y, p,", "\"polarisation\""),
        ("µ > 1 && q > 1", 1, "one of p_x", "\"µ\""),
        ("p > (40", 8, "\")\"", "the end"),
        ("p > 40)", 7, "an operator or the end", "')'"),
        ("p > 40 p", 8, "an operator or the end", "\"p\""),
        ("p", 1, "a condition", "a number: \"p\""),
        ("p > 1 && p_x", 10, "a condition", "a number: \"p_x\""),
        ("(p > 1) + 2 > 1", 1, "a number", "a condition: \"(p > 1)\""),
        ("1 < p < 3", 1, "a number", "a condition: \"1 < p\""),
        ("!p", 2, "a condition", "a number: \"p\""),
        ("abs(p > 1) > 1", 5, "a number", "a condition"),
        ("min(1) > p", 6, "\",\"", "')'"),
        ("sqrt p > 1", 6, "\"(\"", "\"p\""),
        ("p > 1.2.3", 5, "a finite number", "\"1.2.3\""),
        ("p > 1e999", 5, "a finite number", "\"1e999\""),
        ("p = 3", 3, "an operator or the end", "'='"),
    ];
    for (text, position, expected, found) in cases {
        let error = Condition::try_from(text.to_owned()).unwrap_err();
        assert_eq!((error.position, error.text.as_str()), (position, text), "{error}");
        assert!(error.expected.contains(expected) && error.found.contains(found), "{error}");
    }
    assert_eq!(Score::try_from("p > 1".to_owned()).unwrap_err().expected, "a number");
    let deep = format!("{}p{} > 1", "(".repeat(60), ")".repeat(60));
    assert!(Condition::try_from(deep).unwrap_err().expected.contains("50 levels"));
    assert!(Condition::try_from("p > 1 ".repeat(1000)).is_err());
}

#[test]
fn any_text_is_read_or_refused() {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let pieces =
        ["p", "(", ")", "-", "!", "&&", "3.", "e", "1e", "µ", ",", "min", " ", "^", "<", "{", "\u{1F600}"];
    for _ in 0..20_000 {
        let text: String =
            (0..rng.random_range(0..9)).map(|_| pieces[rng.random_range(0..pieces.len())]).collect();
        if let Ok(score) = Score::try_from(text.clone()) {
            score.of(&VALUES, &mut Vec::new());
            assert_eq!(String::from(score), text);
        }
    }
}

#[test]
fn the_values_behind_a_condition_are_told() {
    let condition = Condition::try_from("p > 40 && (aspect > 1 || p < 3)".to_owned()).unwrap();
    assert_eq!(condition.describe(&VALUES), "p = 50.00, aspect = 1.026");
}

#[test]
fn every_field_has_a_name_of_its_own_and_a_meaning() {
    for (n, (name, meaning)) in FIELDS.iter().enumerate() {
        assert!(!meaning.is_empty() && FIELDS.iter().take(n).all(|(other, _)| other != name), "{name}");
        let condition = Condition::try_from(format!("{name} > 1")).unwrap();
        assert!(condition.names(name) && !condition.names("q"));
    }
}

#[test]
fn the_shipped_configs_list_every_field() {
    let configs = [
        include_str!("../../../configs/live.toml"),
        include_str!("../../../configs/replay.toml"),
        include_str!("../../../configs/demo.toml"),
    ];
    for config in configs {
        let (_, list) = config.split_once("Fields: ").unwrap();
        let (list, _) = list.split_once("Operators: ").unwrap();
        let words: Vec<&str> = list.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
        for (name, _) in FIELDS {
            assert!(words.contains(&name), "{name}: {list}");
        }
    }
}
