fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let settings = ferrostem::train::DcnnTrainSettings::read(std::path::Path::new(&args[1]))?;
    let metrics = ferrostem::train::train_dcnn(settings, ferrostem::networks::DeviceChoice::Cpu, std::path::Path::new(&args[2]))?;
    for (k, v) in metrics { eprintln!("{k} = {v}"); }
    Ok(())
}
