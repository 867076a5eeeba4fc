use super::*;

fn load(sets: &[&str]) -> Result<Config, ConfigError> {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Config::load(None, std::iter::empty(), &sets)
}

#[test]
fn layers_override_each_other_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    std::fs::write(
        &path,
        "mode = \"lossless\"\n[lanes]\nresults = \"tcp://127.0.0.1:1\"\nlatest = \"tcp://127.0.0.1:2\"\n",
    )
    .unwrap();
    let environment = [
        ("FERROSTEM__LANES__RESULTS".to_owned(), "tcp://127.0.0.1:3".to_owned()),
        ("FERROSTEM__FLAGS__OOD__ALPHA".to_owned(), "0.02".to_owned()),
        ("HOME".to_owned(), "/nowhere".to_owned()),
    ];
    let sets = ["flags.ood.alpha=0.05".to_owned()];
    let config = Config::load(Some(&path), environment.into_iter(), &sets).unwrap();
    assert_eq!(config.mode, Mode::Lossless);
    assert_eq!(config.lanes.results, "tcp://127.0.0.1:3");
    assert_eq!(config.lanes.latest, "tcp://127.0.0.1:2");
    assert_eq!(config.flags.ood.alpha, 0.05);
}

#[test]
fn errors_name_the_key_the_value_and_the_range() {
    let message = |sets: &[&str]| load(sets).unwrap_err().to_string();
    assert!(message(&["flags.ood.alpha=2"]).starts_with("flags.ood.alpha = 2: expected"));
    assert!(message(&["flags.ood.alpga=0.1"]).contains("alpga"));
    assert!(message(&["device=gpu"]).starts_with("device = gpu: expected auto"));
    assert!(message(&["mode=fast"]).contains("mode"));
    assert!(message(&["runtime.queue_frames=0"]).contains("1 to 1024"));
    assert!(message(&["nonsense"]).contains("KEY=VALUE"));
    assert!(message(&["material=unobtainium"]).starts_with("material = unobtainium"));
}

#[test]
fn an_expression_that_is_none_refuses_to_start_and_says_where_it_is_wrong() {
    let with = |expression: &str| {
        load(&[&format!("flags.candidates.expressions=[{{name='a',expression='{expression}'}}]")])
    };
    let message = |expression: &str| with(expression).unwrap_err().to_string();
    let open = message("p > (40");
    assert!(open.contains("flags.candidates.expressions[0].expression"), "{open}");
    assert!(open.contains("\"p > (40\", character 8: expected \")\""), "{open}");
    let unknown = message("p > 40 && q_x < 1");
    assert!(unknown.contains("character 11: expected one of p_x, p_y, p,"), "{unknown}");
    let config = with("p > 40 && ood_p_value > 0.01").unwrap();
    let table = config.to_toml().unwrap().parse::<toml::Table>().unwrap();
    assert_eq!(Config::from_table(table).unwrap(), config);
}

#[test]
fn a_resolved_config_reads_back_the_same() {
    let config = load(&["sources=[{name=\"a\",endpoint=\"tcp://127.0.0.1:9\",pattern=\"pull\"}]"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolved.toml");
    std::fs::write(&path, config.to_toml().unwrap()).unwrap();
    assert_eq!(Config::load(Some(&path), std::iter::empty(), &[]).unwrap(), config);
}

#[test]
fn shipped_configs_load() {
    for name in ["live", "replay", "demo"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/{name}.toml"));
        Config::load(Some(&path), std::iter::empty(), &[]).unwrap();
    }
}
