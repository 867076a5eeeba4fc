//! The superblock of a session file, which says whether the file is being written and where it ends.
//!
//! HDF5 marks a file that is open for writing, and refuses to open a marked one: a killed daemon would leave its session
//! marked for ever, and a session could not be looked at while it is recorded. In SWMR mode (single writer, multiple
//! readers) the file is whole at every moment, so the mark says nothing, and [`settle`] takes it off again after each
//! flush. Source: HDF5 File Format Specification 3.0, II.A.2 (superblock version 3).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::path::Path;

const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
const LEN: usize = 48;
const VERSION: usize = 8;
const OFFSET_SIZE: usize = 9;
const FLAGS: usize = 11;
const END_OF_FILE: usize = 28;
const CHECKSUM: usize = 44;

/// Takes the mark of a file that is being written off `path`; leaves a file without such a mark, or of another
/// superblock, as it is.
pub(super) fn settle(path: &Path) -> Result<()> {
    edit(path, |_| ())
}

/// Makes a file that its writer never closed one that can be written to: takes the mark off, and lets the file end where
/// its bytes do, since what was written last may lie beyond the end that was noted last.
pub(super) fn recover(path: &Path) -> Result<()> {
    let len = std::fs::metadata(path)?.len();
    edit(path, |block| {
        let noted = end_of_file(block);
        block[END_OF_FILE..END_OF_FILE + 8].copy_from_slice(&noted.max(len).to_le_bytes());
    })
}

/// Makes a file that could not be written to its end one that can be read: takes the mark off, and lets the file end where
/// its bytes do, so that nothing is missed that was noted but never came.
pub(super) fn cut(path: &Path) -> Result<()> {
    let len = std::fs::metadata(path)?.len();
    edit(path, |block| block[END_OF_FILE..END_OF_FILE + 8].copy_from_slice(&len.to_le_bytes()))
}

fn end_of_file(block: &[u8; LEN]) -> u64 {
    let (bytes, _) = block[END_OF_FILE..].as_chunks::<8>();
    bytes.first().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Clears the flags, and lets `change` do the rest.
fn edit(path: &Path, change: impl FnOnce(&mut [u8; LEN])) -> Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let Some(found) = read(&mut file)? else { return Ok(()) };
    let mut block = found;
    block[FLAGS] = 0;
    change(&mut block);
    let checksum = lookup3(&block[..CHECKSUM]);
    block[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    if block != found {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&block)?;
    }
    Ok(())
}

/// The superblock, if it is one of version 3 at the start of the file and its checksum is right.
fn read(file: &mut File) -> Result<Option<[u8; LEN]>> {
    let mut block = [0; LEN];
    match file.read_exact(&mut block) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let known = block.starts_with(SIGNATURE)
        && block[VERSION] == 3
        && block[OFFSET_SIZE] == 8
        && block[CHECKSUM..] == lookup3(&block[..CHECKSUM]).to_le_bytes();
    Ok(known.then_some(block))
}

/// Bob Jenkins' lookup3 (`hashlittle` with initial value 0), which the format uses for its metadata.
fn lookup3(data: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(data.len() as u32);
    let (mut a, mut b, mut c) = (start, start, start);
    let word = |block: &[u8; 12], i: usize| {
        u32::from_le_bytes([block[4 * i], block[4 * i + 1], block[4 * i + 2], block[4 * i + 3]])
    };
    let add = |a: &mut u32, b: &mut u32, c: &mut u32, block: &[u8; 12]| {
        *a = a.wrapping_add(word(block, 0));
        *b = b.wrapping_add(word(block, 1));
        *c = c.wrapping_add(word(block, 2));
    };
    // The last block, full or not, is mixed in another way.
    let full = data.len().saturating_sub(1) / 12;
    let (blocks, _) = data.as_chunks::<12>();
    for block in &blocks[..full] {
        add(&mut a, &mut b, &mut c, block);
        for (rotation, [x, y, z]) in
            [4, 6, 8, 16, 19, 4].into_iter().zip([[0, 2, 1], [1, 0, 2], [2, 1, 0]].into_iter().cycle())
        {
            let mut v = [a, b, c];
            v[x] = v[x].wrapping_sub(v[y]) ^ v[y].rotate_left(rotation);
            v[y] = v[y].wrapping_add(v[z]);
            [a, b, c] = v;
        }
    }
    let tail = &data[full * 12..];
    if tail.is_empty() {
        return c;
    }
    let mut last = [0; 12];
    last[..tail.len()].copy_from_slice(tail);
    add(&mut a, &mut b, &mut c, &last);
    for (rotation, [x, y]) in
        [14, 11, 25, 16, 4, 14, 24].into_iter().zip([[2, 1], [0, 2], [1, 0]].into_iter().cycle())
    {
        let mut v = [a, b, c];
        v[x] = (v[x] ^ v[y]).wrapping_sub(v[y].rotate_left(rotation));
        [a, b, c] = v;
    }
    c
}

#[cfg(test)]
mod tests {
    use super::super::stack::TEMPLATE;
    use super::*;

    #[test]
    fn lookup3_gives_the_values_of_its_author() {
        // From the comments of lookup3.c.
        assert_eq!(lookup3(b""), 0xdead_beef);
        assert_eq!(lookup3(b"Four score and seven years ago"), 0x1777_0551);
    }

    #[test]
    fn the_mark_is_taken_off_and_the_rest_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marked.h5");
        let mut marked = TEMPLATE.to_vec();
        marked[FLAGS] = 5;
        let checksum = lookup3(&marked[..CHECKSUM]);
        marked[CHECKSUM..LEN].copy_from_slice(&checksum.to_le_bytes());
        std::fs::write(&path, &marked).unwrap();
        assert!(hdf5::File::open(&path).is_err(), "the library refuses a marked file");
        settle(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), TEMPLATE);
        settle(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), TEMPLATE);

        // What was appended without being noted is kept.
        marked.extend([7; 21]);
        std::fs::write(&path, &marked).unwrap();
        recover(&path).unwrap();
        let mut block = [0; LEN];
        block.copy_from_slice(&std::fs::read(&path).unwrap()[..LEN]);
        assert_eq!((block[FLAGS], end_of_file(&block)), (0, marked.len() as u64));
        hdf5::File::open(&path).unwrap();

        // What was noted without being appended is not missed.
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(marked.len() as u64 - 21)
            .unwrap();
        assert!(hdf5::File::open(&path).is_err(), "the library refuses a truncated file");
        cut(&path).unwrap();
        hdf5::File::open(&path).unwrap();
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.h5");
        let mut torn = TEMPLATE.to_vec();
        torn[END_OF_FILE] ^= 1;
        for content in [&b""[..], b"no HDF5 file, but longer than a superblock is; forty-eight", &torn] {
            std::fs::write(&path, content).unwrap();
            settle(&path).unwrap();
            recover(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
    }
}
