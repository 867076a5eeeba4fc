//! What a reader finds while a session is written, and after its writer was killed: a copy of the file's bytes is what a
//! killed process leaves.

use super::support::{counts, frame, header, recorder, result};
use crate::session::file::{SessionFile, roomy_group};
use crate::session::h5::write_text;
use crate::session::superblock;
use crate::session::*;
use std::io::Write as _;
use std::path::{Path, PathBuf};

fn session() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.h5");
    (folder, path)
}

fn append(path: &Path) -> Result<Recorder, SessionError> {
    Recorder::append(path, &RecordSettings::default(), &header())
}

/// The sequence numbers of the frames in `path`, all of which must have their pixels.
fn whole_frames(path: &Path) -> Vec<u64> {
    let mut reader = open(path, &OpenOptions::default()).unwrap();
    (0..reader.len())
        .map(|index| {
            let message = reader.frame(index).unwrap().message;
            assert_eq!(message.data, counts(message.seq, message.data.shape()));
            message.seq
        })
        .collect()
}

#[test]
fn at_every_moment_the_file_opens_and_holds_all_that_was_flushed() {
    let (folder, path) = session();
    let mut recorder = recorder(&path);
    let copy = folder.path().join("killed.h5");
    let mut flushed = 0;
    for seq in 0..70 {
        let mut frame = frame(seq);
        // Another measurement now and then.
        frame.acquisition = format!("run {}", seq / 30);
        recorder.frame(&frame).unwrap();
        if seq % 3 != 0 {
            let mut result = result(seq);
            result.acquisition.clone_from(&frame.acquisition);
            recorder.result(&result).unwrap();
        }
        if seq % 7 == 0 {
            recorder.flush().unwrap();
            flushed = recorder.summary().frames;
        }
        std::fs::copy(&path, &copy).unwrap();
        let found = whole_frames(&copy);
        assert!(found.len() as u64 >= flushed, "{} frames found, {flushed} flushed", found.len());
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
        let results = ResultReader::open(&copy).unwrap();
        for index in 0..results.len() {
            results.result(index).unwrap();
        }
    }
    recorder.finish().unwrap();
    assert_eq!(whole_frames(&path), (0..70).collect::<Vec<_>>());
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "drafts and locks are gone: {left:?}");
}

#[test]
fn a_session_that_was_cut_short_goes_on_in_a_new_segment() {
    let (folder, path) = session();
    let killed = folder.path().join("killed.h5");
    let mut first = recorder(&path);
    for seq in 0..5 {
        first.frame(&frame(seq)).unwrap();
        first.result(&result(seq)).unwrap();
    }
    first.ack(7, "accepted", 11).unwrap();
    first.flush().unwrap();
    std::fs::copy(&path, &killed).unwrap();
    drop(first);

    let other = SessionHeader { config_toml: "mode = \"lossless\"\n".to_owned(), ..header() };
    let mut second = Recorder::append(&killed, &RecordSettings::default(), &other).unwrap();
    second.frame(&frame(5)).unwrap();
    second.result(&result(5)).unwrap();
    second.ack(8, "done", 12).unwrap();
    let event = SessionEvent { kind: "configure".to_owned(), t_ns: 13, ..SessionEvent::default() };
    second.event(&event).unwrap();
    assert_eq!(
        second.finish().unwrap(),
        RecordSummary { measurements: 1, frames: 1, results: 1, orphan_results: 0 }
    );

    assert_eq!(whole_frames(&killed), [0, 1, 2, 3, 4, 5]);
    let reader = ResultReader::open(&killed).unwrap();
    assert_eq!((reader.len(), reader.result(5).unwrap().measurement), (6, 1));
    assert_eq!(
        reader.acknowledgements().unwrap().iter().map(|ack| ack.candidate_id).collect::<Vec<_>>(),
        [7, 8]
    );
    assert_eq!(reader.events().unwrap(), [event]);
    assert_eq!(reader.config_toml().unwrap(), header().config_toml);
    let file = hdf5::File::open(&killed).unwrap();
    let config = file.dataset("metadata_001/config_toml").unwrap();
    assert_eq!(config.read_scalar::<hdf5::types::VarLenUnicode>().unwrap().as_str(), other.config_toml);
    let segment =
        |name: &str| file.group(name).unwrap().attr("segment").unwrap().read_scalar::<u32>().unwrap();
    assert_eq!([segment("Measurement_000"), segment("Measurement_001")], [0, 1]);
}

#[test]
fn a_session_without_frames_can_be_taken_up_too() {
    let (_folder, path) = session();
    recorder(&path).finish().unwrap();
    let mut second = append(&path).unwrap();
    second.frame(&frame(0)).unwrap();
    second.finish().unwrap();
    assert_eq!(whole_frames(&path), [0]);
}

#[test]
fn one_file_has_one_writer() {
    let (_folder, path) = session();
    let mut first = recorder(&path);
    let refusal = append(&path).err().unwrap();
    assert!(matches!(&refusal, SessionError::InUse { path: at } if *at == path), "{refusal}");
    first.frame(&frame(0)).unwrap();
    first.finish().unwrap();
    append(&path).unwrap().finish().unwrap();
}

#[test]
fn only_sessions_are_taken_up_and_others_stay_as_they_are() {
    let (folder, path) = session();
    let foreign = folder.path().join("foreign.h5");
    hdf5::File::create(&foreign).unwrap().close().unwrap();
    let before = std::fs::read(&foreign).unwrap();
    let error = append(&foreign).err().unwrap().to_string();
    assert!(error.contains("a session recorded by FerroSTEM"), "{error}");
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
    assert!(append(&path).err().unwrap().to_string().contains("session.h5"), "there is none");
}

#[test]
fn a_file_that_is_removed_or_replaced_ends_the_recording_and_nothing_else() {
    let (folder, path) = session();
    let mut recorder = recorder(&path);
    recorder.frame(&frame(0)).unwrap();
    recorder.flush().unwrap();
    std::fs::rename(&path, folder.path().join("moved.h5")).unwrap();
    assert!(matches!(recorder.flush(), Err(SessionError::Gone { .. })));
    std::fs::write(&path, "another's").unwrap();
    assert!(matches!(recorder.flush(), Err(SessionError::Gone { .. })));
    drop(recorder);
    assert_eq!(std::fs::read(&path).unwrap(), b"another's");
    superblock::recover(&folder.path().join("moved.h5")).unwrap();
    hdf5::File::open(folder.path().join("moved.h5")).unwrap();
}

#[test]
fn the_thread_stops_recording_when_the_file_goes_and_counts_what_it_drops() {
    let (_folder, path) = session();
    let settings = RecordSettings { flush_interval_ms: 10, ..RecordSettings::default() };
    let recorder = Recorder::create(&path, &settings, &header()).unwrap();
    let (tell, told) = std::sync::mpsc::sync_channel(4);
    let thread =
        RecorderThread::start(recorder, &settings, move |problem| tell.send(problem).unwrap()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let problem = told.recv().unwrap();
    assert!(problem.stopped && problem.message.contains("removed"), "{problem:?}");
    assert!(thread.stopped());
    for seq in 0..3 {
        assert!(!thread.submit(RecordItem::Frame(std::sync::Arc::new(frame(seq)))));
    }
    assert_eq!((thread.take_frames_dropped(), thread.take_frames_dropped()), (3, 0));
    let counts = thread.finish();
    assert_eq!((counts.frames_dropped, counts.write_errors), (3, 1));
}

/// `bytes` as a file beside `path`: what a writer leaves that is killed when so much of its writing is done.
fn killed_at(path: &Path, bytes: &[u8]) -> PathBuf {
    let killed = path.with_file_name("killed.h5");
    std::fs::write(&killed, bytes).unwrap();
    killed
}

#[test]
fn what_is_being_added_leaves_all_else_alone_until_one_write_shows_it() {
    let (_folder, path) = session();
    let mut first = recorder(&path);
    for seq in 0..12 {
        first.frame(&frame(seq)).unwrap();
        first.result(&result(seq)).unwrap();
    }
    first.finish().unwrap();
    let frames: Vec<u64> = (0..12).collect();
    let before = std::fs::read(&path).unwrap();

    let (session, ()) = SessionFile::append(&path, |_| Ok(()), |_| Ok(())).unwrap();
    let staged = session.stage().unwrap();
    let group = roomy_group(&staged, "extra").unwrap();
    let values: Vec<u8> = (0..9000).map(|n| n as u8).collect();
    for name in ["a", "b", "c"] {
        let data = group.create_group(name).unwrap().new_dataset_builder().with_data(&values);
        write_text(&data.create("data").unwrap(), "units", "counts").unwrap();
    }
    session.flush().unwrap();
    let built = std::fs::read(&path).unwrap();
    session.link(&staged, "").unwrap();
    let linked = std::fs::read(&path).unwrap();
    drop((group, staged));

    // However much of it is written, in whatever order, the file is what it was: the superblock aside, all lies behind it.
    const SUPERBLOCK: usize = 48;
    assert!(built.len() > before.len() + 3 * values.len());
    assert!(built[SUPERBLOCK..before.len()] == before[SUPERBLOCK..], "what was there has changed");
    for end in (before.len()..built.len()).step_by(997) {
        let killed = killed_at(&path, &[&before, &built[before.len()..end]].concat());
        assert_eq!(whole_frames(&killed), frames);
    }
    assert_eq!(whole_frames(&killed_at(&path, &built)), frames);
    assert!(!hdf5::File::open(killed_at(&path, &built)).unwrap().link_exists("extra"));
    // One write, within one page, shows it; with it comes whatever else the library still writes, or not.
    let changed: Vec<usize> = (SUPERBLOCK..before.len()).filter(|n| linked[*n] != built[*n]).collect();
    assert!(!changed.is_empty() && changed.iter().all(|n| *n < 4096), "{changed:?}");
    for bytes in [[&linked[..4096], &built[4096..]].concat(), linked] {
        let killed = killed_at(&path, &bytes);
        assert_eq!(whole_frames(&killed), frames);
        let file = hdf5::File::open(&killed).unwrap();
        for name in ["a", "b", "c"] {
            let data = file.dataset(&format!("extra/{name}/data")).unwrap();
            assert_eq!(data.read_raw::<u8>().unwrap(), values);
        }
    }
}

#[test]
fn measurements_that_follow_one_another_keep_their_links_in_one_page() {
    let (_folder, path) = session();
    let mut recorder = recorder(&path);
    for run in 0..100 {
        let mut frame = frame(run);
        frame.acquisition = format!("run {run}");
        recorder.frame(&frame).unwrap();
        recorder.flush().unwrap();
        let before = std::fs::read(&path).unwrap();
        // The second flush writes the frame, for which it begins a measurement.
        recorder.flush().unwrap();
        let after = std::fs::read(&path).unwrap();
        let name = format!("Measurement_{run:03}");
        let count =
            |bytes: &[u8]| bytes[..4096].windows(name.len()).filter(|w| *w == name.as_bytes()).count();
        assert_eq!(count(&after), count(&before) + 1, "{name}");
    }
    recorder.finish().unwrap();
    assert_eq!(whole_frames(&path), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_session_that_a_killed_writer_left_marked_is_opened_by_the_next_reader() {
    let (_folder, path) = session();
    let mut recorder = recorder(&path);
    recorder.frame(&frame(0)).unwrap();
    recorder.finish().unwrap();
    let whole = std::fs::read(&path).unwrap();
    // Opened to be written to, as HDF5 does it, and never closed.
    let file = hdf5::File::open_rw(&path).unwrap();
    let marked = std::fs::read(&path).unwrap();
    file.close().unwrap();
    assert_ne!(whole, marked, "a mark");
    let killed = killed_at(&path, &marked);
    let lock = killed.with_file_name(".killed.h5.lock");
    assert!(open(&killed, &OpenOptions::default()).is_err(), "another program's writer may be at work");
    std::fs::write(&lock, "").unwrap();
    assert_eq!(whole_frames(&killed), [0]);
    assert!(!lock.exists());
    assert_eq!(std::fs::read(&killed).unwrap(), whole);
}

/// Where the process that is to be killed writes.
const WRITER: &str = "FERROSTEM_KILLED_WRITER";

/// Records on and on, another measurement every second frame, and says after every flush how many frames are in the file.
fn write_until_killed(path: &Path) {
    let (first, mut recorder) = match path.exists() {
        true => (whole_frames(path).len() as u64, append(path).unwrap()),
        false => (0, recorder(path)),
    };
    for seq in first..10_000 {
        let (mut frame, mut result) = (frame(seq), result(seq));
        frame.acquisition = format!("run {}", seq / 2);
        result.acquisition.clone_from(&frame.acquisition);
        recorder.frame(&frame).unwrap();
        recorder.result(&result).unwrap();
        recorder.flush().unwrap();
        writeln!(std::io::stdout(), "written {}", seq + 1).unwrap();
    }
}

#[test]
fn a_writer_that_is_killed_while_it_adds_measurements_leaves_all_that_it_flushed() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    if let Some(path) = std::env::var_os(WRITER) {
        return write_until_killed(Path::new(&path));
    }
    let name = concat!(
        "session::tests::durability::",
        "a_writer_that_is_killed_while_it_adds_measurements_leaves_all_that_it_flushed"
    );
    let folder = tempfile::tempdir().unwrap();
    let mut at_work = 0;
    for round in 0..30_usize {
        // A few kills a file: what each leaves is taken up again.
        let path = folder.path().join(format!("session {}.h5", round / 6));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(WRITER, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let written = said.filter_map(|line| line.ok()?.strip_prefix("written ")?.parse::<u64>().ok());
        let flushed = written.take(1 + round % 4).last().unwrap();
        // A little later each time: somewhere in the frames that come next.
        (0..round * 20_000).for_each(|_| std::hint::spin_loop());
        child.kill().unwrap();
        child.wait().unwrap();
        let found = whole_frames(&path);
        assert!(found.len() as u64 >= flushed, "round {round}: {} frames of {flushed}", found.len());
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
        let results = ResultReader::open(&path).unwrap();
        assert!(results.len() as u64 >= flushed, "round {round}: {} results of {flushed}", results.len());
        (0..results.len()).for_each(|index| drop(results.result(index).unwrap()));
        at_work += usize::from(found.len() as u64 > flushed);
    }
    eprintln!("{at_work} of 30 kills came after a further frame");
}
