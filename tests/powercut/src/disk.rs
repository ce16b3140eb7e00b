//! What may be on a disk after the power went: synced changes are there, of the others any part.
//!
//! Invariant: nothing is kept back by kindness. Each unsynced write may be missing, torn at its
//! sectors or have overtaken others, and each unsynced change of a directory may be missing with
//! all later ones. Core.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// One call of the process on its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Opened, and made if it was not there.
    Create(PathBuf),
    /// These bytes at this place.
    Write(PathBuf, usize, Vec<u8>),
    /// These bytes at the end.
    Append(PathBuf, Vec<u8>),
    /// To this length.
    Truncate(PathBuf, usize),
    /// Its name is gone.
    Unlink(PathBuf),
    /// It bears the second name now, in the place of what bore that.
    Rename(PathBuf, PathBuf),
    /// Returned without an error.
    Sync(PathBuf),
    /// A line for the one who watches.
    Told(String),
}

impl Call {
    /// The file or directory it is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Call::Create(path)
            | Call::Write(path, ..)
            | Call::Append(path, _)
            | Call::Truncate(path, _)
            | Call::Unlink(path)
            | Call::Rename(path, _)
            | Call::Sync(path) => Some(path),
            Call::Told(_) => None,
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Debug, Clone)]
enum Naming {
    Named(PathBuf, usize),
    Gone(PathBuf),
    Renamed(PathBuf, PathBuf, usize),
}

impl Naming {
    /// The name that it is about.
    fn path(&self) -> &Path {
        match self {
            Naming::Named(path, _) | Naming::Gone(path) | Naming::Renamed(_, path, _) => path,
        }
    }
}

#[derive(Debug, Default)]
struct File {
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// As the process sees it.
    length: usize,
}

/// A disk under a process' calls.
#[derive(Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    /// As the process sees them.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<Naming>,
}

impl Disk {
    /// Takes one call in.
    pub fn apply(&mut self, call: &Call) {
        match call {
            Call::Create(path) if !self.names.contains_key(path) => {
                let file = self.files.len();
                self.files.push(File::default());
                self.names.insert(path.clone(), file);
                self.unsynced_names.push(Naming::Named(path.clone(), file));
            }
            Call::Unlink(path) if self.names.remove(path).is_some() => {
                self.unsynced_names.push(Naming::Gone(path.clone()));
            }
            Call::Write(path, offset, data) => {
                self.change(path, Change::Write(*offset, data.clone()));
            }
            Call::Append(path, data) => {
                let file = self.names.get(path);
                let end = file.map_or(0, |file| self.files[*file].length);
                self.change(path, Change::Write(end, data.clone()));
            }
            Call::Truncate(path, length) => self.change(path, Change::Truncate(*length)),
            Call::Rename(from, to) => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                    let renamed = Naming::Renamed(from.clone(), to.clone(), file);
                    self.unsynced_names.push(renamed);
                }
            }
            Call::Sync(path) => self.sync(path),
            Call::Create(_) | Call::Unlink(_) | Call::Told(_) => {}
        }
    }

    /// The files after a power cut at this moment, one of the many possible outcomes.
    pub fn power_cut(&self, random: &mut Random) -> BTreeMap<PathBuf, Vec<u8>> {
        let fate = Fate::draw(random);
        let mut names = self.durable_names.clone();
        let kept = match fate {
            Fate::NothingUnsynced => 0,
            Fate::InOrder | Fate::AnyOrder => random.below(self.unsynced_names.len() + 1),
        };
        for naming in &self.unsynced_names[..kept] {
            name(&mut names, naming);
        }
        names
            .into_iter()
            .map(|(path, file)| (path, self.files[file].after_cut(fate, random)))
            .collect()
    }

    fn change(&mut self, path: &Path, change: Change) {
        // The memory that connections share is made anew after a power cut.
        if let Some(file) = self.names.get(path) {
            let file = &mut self.files[*file];
            file.length = match &change {
                Change::Write(offset, data) => file.length.max(offset + data.len()),
                Change::Truncate(length) => *length,
            };
            file.unsynced.push(change);
        }
    }

    fn sync(&mut self, path: &Path) {
        match self.names.get(path) {
            Some(file) => {
                let file = &mut self.files[*file];
                for change in file.unsynced.drain(..) {
                    change.apply(&mut file.durable);
                }
            }
            // A directory, and the names in it alone.
            None => {
                let unsynced = std::mem::take(&mut self.unsynced_names);
                for naming in unsynced {
                    match naming.path().parent() == Some(path) {
                        true => name(&mut self.durable_names, &naming),
                        false => self.unsynced_names.push(naming),
                    }
                }
            }
        }
    }
}

fn name(names: &mut BTreeMap<PathBuf, usize>, naming: &Naming) {
    match naming {
        Naming::Named(path, file) => names.insert(path.clone(), *file),
        Naming::Gone(path) => names.remove(path),
        Naming::Renamed(from, to, file) => {
            names.remove(from);
            names.insert(to.clone(), *file)
        }
    };
}

/// How a disk treats what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    NothingUnsynced,
    InOrder,
    AnyOrder,
}

impl Fate {
    fn draw(random: &mut Random) -> Fate {
        match random.below(8) {
            0 => Fate::NothingUnsynced,
            1 | 2 => Fate::InOrder,
            _ => Fate::AnyOrder,
        }
    }
}

impl File {
    fn after_cut(&self, fate: Fate, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        match fate {
            Fate::NothingUnsynced => {}
            Fate::InOrder => {
                let kept = random.below(self.unsynced.len() + 1);
                for change in &self.unsynced[..kept] {
                    change.apply(&mut content);
                }
                if let Some(last) = self.unsynced.get(kept) {
                    last.tear(&mut content, random);
                }
            }
            Fate::AnyOrder => self.in_any_order(&mut content, random),
        }
        content
    }

    /// Writes overtake each other, but not a truncation, which a file system keeps in order.
    fn in_any_order(&self, content: &mut Vec<u8>, random: &mut Random) {
        let is_truncation = |change: &Change| matches!(change, Change::Truncate(_));
        for run in self
            .unsynced
            .split_inclusive(|change| is_truncation(change))
        {
            let (writes, truncation) = match run.split_last() {
                Some((last, writes)) if is_truncation(last) => (writes, Some(last)),
                _ => (run, None),
            };
            let mut order: Vec<_> = writes.iter().collect();
            random.shuffle(&mut order);
            for write in order {
                match random.below(3) {
                    0 => {}
                    1 => write.tear(content, random),
                    _ => write.apply(content),
                }
            }
            if let Some(truncation) = truncation
                && random.below(2) == 0
            {
                truncation.apply(content);
            }
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write(offset, data) => put(content, *offset, data),
            Change::Truncate(length) => content.resize(*length, 0),
        }
    }

    /// Only some of the sectors arrive.
    fn tear(&self, content: &mut Vec<u8>, random: &mut Random) {
        let Change::Write(offset, data) = self else {
            return;
        };
        let mut at = 0;
        while at < data.len() {
            let end = ((offset + at) / SECTOR + 1) * SECTOR - offset;
            let end = end.min(data.len());
            if random.below(2) == 0 {
                put(content, offset + at, &data[at..end]);
            }
            at = end;
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

/// Numbers from a seed; splitmix64 by Sebastiano Vigna.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// At least 0, below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % end
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
