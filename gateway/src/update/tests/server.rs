//! A web server of few words that can be made to misbehave. Layer: tests.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

/// Files by their path.
pub(super) type Shelf = BTreeMap<String, Vec<u8>>;

/// What a path gets in the place of its file.
#[derive(Clone)]
pub(super) enum Trick {
    /// Other bytes.
    Instead(Vec<u8>),
    /// Half of it.
    Truncated,
    /// Bytes without end.
    Endless,
    /// Another address.
    Redirect,
    /// Nothing.
    Missing,
}

#[derive(Default)]
struct State {
    shelf: Shelf,
    tricks: HashMap<String, Trick>,
    asked: HashMap<String, usize>,
}

pub(super) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // Who breaks off is served no further.
                thread::spawn(move || serve(&stream, &state));
            }
        });
        Server { address, state }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn set(&self, shelf: Shelf) {
        self.state().shelf = shelf;
    }

    pub(super) fn trick(&self, path: &str, trick: Trick) {
        self.state().tricks.insert(path.to_owned(), trick);
    }

    pub(super) fn forgive(&self) {
        self.state().tricks.clear();
    }

    /// How often a path was asked for.
    pub(super) fn asked(&self, path: &str) -> usize {
        self.state().asked.get(path).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next() {
        let line = line?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        while !lines.next().transpose()?.unwrap_or_default().is_empty() {}
        let (trick, file) = {
            let mut state = state.lock().unwrap();
            *state.asked.entry(path.clone()).or_default() += 1;
            (
                state.tricks.get(&path).cloned(),
                state.shelf.get(&path).cloned(),
            )
        };
        answer(stream, trick, file)?;
    }
    Ok(())
}

fn answer(
    mut stream: &TcpStream,
    trick: Option<Trick>,
    file: Option<Vec<u8>>,
) -> std::io::Result<()> {
    let ok = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    match (trick, file) {
        (None, Some(file)) => {
            stream.write_all(ok(file.len()).as_bytes())?;
            stream.write_all(&file)
        }
        (Some(Trick::Instead(bytes)), _) => {
            stream.write_all(ok(bytes.len()).as_bytes())?;
            stream.write_all(&bytes)
        }
        (Some(Trick::Truncated), Some(file)) => {
            stream.write_all(ok(file.len()).as_bytes())?;
            stream.write_all(&file[..file.len() / 2])?;
            stream.shutdown(std::net::Shutdown::Both)
        }
        (Some(Trick::Endless), _) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b' '; 4096])?;
            }
        }
        (Some(Trick::Redirect), _) => stream.write_all(
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        ),
        _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    }
}
