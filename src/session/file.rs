//! A session file being written: how it comes into being, how it stays readable at every moment, how it is taken up again.
//!
//! The file is in HDF5's SWMR mode (single writer, multiple readers) whenever frames are written: what is on disk is then
//! whole at every moment, whoever kills the writer, and others can read along. In that mode nothing can be added but to
//! what is there, so a new measurement means leaving it for a moment: [`SessionFile::leave_swmr`], then
//! [`SessionFile::enter_swmr`]. In between the library orders nothing, so the order is ours: what is new is built in a group to
//! which nothing leads ([`SessionFile::stage`]), behind all that the file held, and is on disk before one write to the group's
//! header that it goes to makes it visible ([`SessionFile::link`]). A new file is in SWMR mode before it gets its name.
//!
//! The header of the root group has room for about 110 measurements ([`TEMPLATE`]). Beyond that, and in files of earlier versions,
//! linking takes several writes, and being killed between them can damage the file.
//!
//! A file that the disk does not take is never closed: libhdf5 1.10 frees what it still uses when it cannot write what it
//! closes, and the process ends. Its handle is leaked, and the file ends with what was written.

use super::error::{At, SessionError};
use super::stack::TEMPLATE;
use super::superblock;
use hdf5::file::{FileCloseDegree, LibraryVersion};
use hdf5::plist::group_create::LinkPhaseChange;
use hdf5::{File, Group};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Numbers tried for `{n}` in a path.
const MAX_NUMBERED: u32 = 100_000;

/// The one writer of a session file.
pub(super) struct SessionFile {
    path: PathBuf,
    /// Absent while the file is closed, and after it could not be opened again.
    file: Option<File>,
    identity: Identity,
    /// Held, never read.
    _lock: WriterLock,
}

impl SessionFile {
    /// Creates the session at `path`, or at the first free number where `path` contains `{n}`, with what `fill` puts into
    /// it. It appears under its name only when it is whole and in SWMR mode, and never in place of another file.
    pub(super) fn create<T>(
        path: &Path,
        fill: impl FnOnce(&File) -> Result<T, SessionError>,
    ) -> Result<(Self, T), SessionError> {
        let (draft, file, filled) = begin(path, fill)?;
        start_swmr(&file, &draft.0)?;
        let (path, lock) = publish(&draft.0, path)?;
        let identity =
            Identity::of(&path).map_err(|source| SessionError::Io { path: path.clone(), source })?;
        Ok((Self { path, file: Some(file), identity, _lock: lock }, filled))
    }

    /// Takes up a session that exists, also one whose writer was killed; `check` says whether it is one, before anything
    /// is changed, and `inspect` sees what it held.
    ///
    /// # Errors
    /// When another process writes to it, or it cannot be written.
    pub(super) fn append<T>(
        path: &Path,
        check: impl FnOnce(&Path) -> Result<(), SessionError>,
        inspect: impl FnOnce(&File) -> Result<T, SessionError>,
    ) -> Result<(Self, T), SessionError> {
        let io = |source| SessionError::Io { path: path.to_owned(), source };
        let identity = Identity::of(path).map_err(io)?;
        let lock = WriterLock::take(path)?;
        check(path)?;
        superblock::recover(path).map_err(io)?;
        let file = open_for_writing(path)?;
        let seen = inspect(&file)?;
        Ok((Self { path: path.to_owned(), file: Some(file), identity, _lock: lock }, seen))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file as it is open now; handles into it end with [`Self::leave_swmr`].
    pub(super) fn get(&self) -> Result<&File, SessionError> {
        self.file.as_ref().ok_or_else(|| {
            SessionError::unexpected(
                self.path.display().to_string(),
                "an open session",
                "one that was closed",
            )
        })
    }

    /// From here on the file is whole on disk at every moment, and nothing but rows and images can be added.
    pub(super) fn enter_swmr(&self) -> Result<(), SessionError> {
        start_swmr(self.get()?, &self.path)
    }

    /// Closes and opens the file, so that groups and datasets can be added. Every handle into it is void then.
    pub(super) fn leave_swmr(&mut self) -> Result<&File, SessionError> {
        self.flush()?;
        if let Some(file) = self.file.take() {
            file.close().at(|| self.path.display().to_string())?;
        }
        self.file = Some(open_for_writing(&self.path)?);
        self.get()
    }

    /// A group for what is to be added, outside SWMR mode; nothing leads to it, and it goes when it is dropped.
    pub(super) fn stage(&self) -> Result<Group, SessionError> {
        let file = self.get()?;
        file.create_group_builder().create(None).at(|| self.path.display().to_string())
    }

    /// Moves all that is in `staged` to the group at `parent` (the root: `""`), under the same names. Whenever the writer is killed,
    /// it is either there and whole, or it is not there.
    pub(super) fn link(&self, staged: &Group, parent: &str) -> Result<(), SessionError> {
        self.flush()?;
        let at = || format!("{}:{parent}", self.path.display());
        for name in staged.member_names().at(at)? {
            staged.relink(&name, &format!("{parent}/{name}")).at(at)?;
        }
        self.flush()
    }

    /// Brings the file on disk up to date.
    ///
    /// # Errors
    /// When the disk does not take it, or the file is no longer where it was.
    pub(super) fn flush(&self) -> Result<(), SessionError> {
        self.get()?.flush().at(|| self.path.display().to_string())?;
        if self.is_there() {
            return self.settle();
        }
        Err(SessionError::Gone { path: self.path.clone() })
    }

    /// Closes the file.
    pub(super) fn close(mut self) -> Result<(), SessionError> {
        self.flush()?;
        match self.file.take() {
            Some(file) => file.close().at(|| self.path.display().to_string()),
            None => Ok(()),
        }
    }

    /// Whether the path still leads to the file that is being written.
    fn is_there(&self) -> bool {
        Identity::of(&self.path).is_ok_and(|now| now == self.identity)
    }

    fn settle(&self) -> Result<(), SessionError> {
        let path = || self.path.clone();
        superblock::settle(&self.path).map_err(|source| match source.kind() {
            // Taken away since it was last seen there.
            std::io::ErrorKind::NotFound => SessionError::Gone { path: path() },
            _ => SessionError::Io { path: path(), source },
        })
    }
}

impl Drop for SessionFile {
    fn drop(&mut self) {
        let Some(file) = self.file.take_if(|file| file.flush().is_err()) else { return };
        std::mem::forget(file);
        if self.is_there() {
            // Whoever dropped it knows already that the disk takes no more.
            let _ = superblock::cut(&self.path);
        }
    }
}

fn start_swmr(file: &File, path: &Path) -> Result<(), SessionError> {
    let settle =
        || superblock::settle(path).map_err(|source| SessionError::Io { path: path.to_owned(), source });
    file.flush().at(|| path.display().to_string())?;
    settle()?;
    file.start_swmr().at(|| path.display().to_string())?;
    settle()
}

/// Opened without HDF5's own lock, which a reader who follows the session would hold; [`WriterLock`] keeps other writers off.
fn open_for_writing(path: &Path) -> Result<File, SessionError> {
    let mut options = File::with_options();
    options
        .fapl()
        .libver_bounds(LibraryVersion::V110, LibraryVersion::V110)
        .fclose_degree(FileCloseDegree::Strong)
        .file_locking(false);
    let file = options.open_rw(path).at(|| path.display().to_string())?;
    superblock::settle(path).map_err(|source| SessionError::Io { path: path.to_owned(), source })?;
    Ok(file)
}

/// A group in `parent` whose links stay in its header, which has room for those of a measurement: adding some later is one write.
pub(super) fn roomy_group(parent: &Group, name: &str) -> hdf5::Result<Group> {
    /// A measurement has up to 24 links of some 30 bytes.
    const ROOM: usize = 800;
    let in_header = LinkPhaseChange { max_compact: 256, min_dense: 0 };
    let group = parent.create_group_builder().with_gcpl(|p| p.link_phase_change(in_header)).create(name)?;
    // What a link takes stays with the header when it goes.
    group.link_soft(&"-".repeat(ROOM), "room")?;
    group.unlink("room")?;
    Ok(group)
}

/// Makes a session readable whose writer was killed while HDF5 had marked it as open: the writer's lock is there, and nobody
/// holds it. Whether it did so.
pub(super) fn recover_killed(session: &Path) -> bool {
    sibling(session, "lock").exists()
        && WriterLock::take(session).is_ok_and(|_lock| superblock::recover(session).is_ok())
}

/// A hidden file beside `path` that begins as [`TEMPLATE`], after `fill`.
pub(super) fn draft<T>(
    path: &Path,
    fill: impl FnOnce(&File) -> Result<T, SessionError>,
) -> Result<(Draft, T), SessionError> {
    let (draft, file, filled) = begin(path, fill)?;
    file.close().at(|| draft.0.display().to_string())?;
    Ok((draft, filled))
}

/// The same, still open, and all of it on disk.
fn begin<T>(
    path: &Path,
    fill: impl FnOnce(&File) -> Result<T, SessionError>,
) -> Result<(Draft, File, T), SessionError> {
    let draft = Draft::beside(path);
    fs::write(&draft.0, TEMPLATE).map_err(|source| SessionError::Io { path: path.to_owned(), source })?;
    let file = open_for_writing(&draft.0)?;
    let filled = fill(&file);
    match file.flush().at(|| path.display().to_string()).and(filled) {
        Ok(filled) => Ok((draft, file, filled)),
        Err(error) => {
            std::mem::forget(file);
            Err(error)
        }
    }
}

/// Gives `draft` its name, under which nothing may be yet.
fn publish(draft: &Path, path: &Path) -> Result<(PathBuf, WriterLock), SessionError> {
    let template = path.to_string_lossy();
    let numbers = if template.contains("{n}") { 0..MAX_NUMBERED } else { 0..1 };
    for number in numbers {
        let name = PathBuf::from(template.replace("{n}", &format!("{number:03}")));
        match name_draft(draft, &name) {
            Ok(()) => {
                let lock = WriterLock::take(&name)?;
                return Ok((name, lock));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(source) => return Err(SessionError::Io { path: name, source }),
        }
    }
    Err(SessionError::Exists { path: path.to_owned() })
}

/// Gives `draft` the name `name`. A link fails where the name is taken; where the file system has none, the name is
/// reserved first.
fn name_draft(draft: &Path, name: &Path) -> std::io::Result<()> {
    match fs::hard_link(draft, name) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
        Err(_) => {
            OpenOptions::new().write(true).create_new(true).open(name)?;
            fs::rename(draft, name)
        }
    }
}

/// `.NAME.suffix` beside `path`.
fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{suffix}"))
}

/// A file that is removed when it goes out of scope, unless it got another name.
pub(super) struct Draft(PathBuf);

impl Draft {
    /// A hidden name beside `path`.
    pub(super) fn beside(path: &Path) -> Self {
        Self(sibling(path, &format!("{}.new", std::process::id())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Gives it the name `name`, under which nothing may be yet.
    pub(super) fn publish(self, name: &Path) -> Result<(), SessionError> {
        name_draft(&self.0, name).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => SessionError::Exists { path: name.to_owned() },
            _ => SessionError::Io { path: name.to_owned(), source },
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = fs::remove_file(&self.0);
    }
}

/// Which file a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    #[cfg(unix)]
    device_and_inode: (u64, u64),
}

impl Identity {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = fs::metadata(path)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Ok(Self { device_and_inode: (metadata.dev(), metadata.ino()) })
        }
        #[cfg(not(unix))]
        Ok(metadata).map(|_| Self {})
    }
}

/// Keeps a second writer off a session: a locked file beside it, which the system unlocks when its holder dies.
struct WriterLock {
    path: PathBuf,
    file: Option<fs::File>,
}

impl WriterLock {
    fn take(session: &Path) -> Result<Self, SessionError> {
        let path = sibling(session, "lock");
        let io = |source| SessionError::Io { path: path.clone(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, file: Some(file) }),
            Err(fs::TryLockError::WouldBlock) => Err(SessionError::InUse { path: session.to_owned() }),
            Err(fs::TryLockError::Error(source)) => Err(io(source)),
        }
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // Removed while still locked, so that nobody locks a file that is about to go. What cannot be removed does no harm.
        let _ = fs::remove_file(&self.path);
        self.file = None;
    }
}
