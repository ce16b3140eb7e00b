//! Promise: the pages and the control socket answer who asks properly, and whoever does not costs one of
//! a few places for a few seconds.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests watch real sockets by the real clock"
)]

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use broker_lite::observe::{
    control::{self, Answer, Answerer, Answers},
    http,
};
use serde_json::json;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

/// Connections that are served at once.
const PLACES: usize = 16;
/// Longer than a request's head may take, shorter than a whole connection.
const AFTER_THE_HEADS_TIME: Duration = Duration::from_secs(8);
/// Long enough for an answer of a server that has a place.
const AT_ONCE: Duration = Duration::from_millis(500);

async fn pages() -> http::Server {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let page = http::metrics_page(|| "# EOF\n".to_owned());
    http::Server::start(loopback, page).await.unwrap()
}

/// Sends a request and reads until the server closes, for no longer than `patience`.
fn request(address: SocketAddr, head: &str, patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    // A server that refuses a head before its end resets the connection behind its answer.
    match stream.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => return Err(error),
        _ => {}
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn ask(address: SocketAddr, head: String, patience: Duration) -> io::Result<String> {
    let asked = spawn_blocking(move || request(address, &head, patience));
    asked.await.unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[tokio::test]
async fn each_request_gets_the_answer_that_it_deserves() {
    let server = pages().await;
    let head = |method: &str, path: &str| get(path).replace("GET", method);
    let long = get("/metrics").replace(
        "\r\n\r\n",
        &format!("\r\nX: {}\r\n\r\n", "x".repeat(20_000)),
    );
    let many = get("/metrics").replace("\r\n\r\n", &format!("{}\r\n\r\n", "\r\nX: x".repeat(100)));
    for (request, status, words) in [
        (get("/metrics"), "200 OK", "# EOF"),
        (get("/metrics?name=x"), "200 OK", "# EOF"),
        (get("/"), "404 Not Found", "try /metrics"),
        (
            get("/metrics/../etc/passwd"),
            "404 Not Found",
            "try /metrics",
        ),
        (
            head("POST", "/metrics"),
            "405 Method Not Allowed",
            "allow: GET, HEAD",
        ),
        (
            head("DELETE", "/metrics"),
            "405 Method Not Allowed",
            "allow: GET, HEAD",
        ),
        (long, "431 Request Header Fields Too Large", ""),
        (many, "431 Request Header Fields Too Large", ""),
        ("no request\r\n\r\n".to_owned(), "400 Bad Request", ""),
    ] {
        let answer = ask(server.address(), request.clone(), AT_ONCE * 10)
            .await
            .unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request:.60}: {answer}"
        );
        assert!(answer.contains(words), "{request:.60}: {answer}");
    }
}

#[tokio::test]
async fn head_gets_the_length_and_no_page() {
    let server = pages().await;
    let answer = ask(
        server.address(),
        get("/metrics").replace("GET", "HEAD"),
        AT_ONCE * 10,
    );
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("content-length: 6"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn one_connection_more_than_there_are_places_waits_for_one() {
    let server = pages().await;
    let address = server.address();
    let silent: Vec<TcpStream> = (0..PLACES)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let waiting = spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(get("/metrics").as_bytes()).unwrap();
        stream.set_read_timeout(Some(AT_ONCE)).unwrap();
        let early = stream.read(&mut [0; 64]);
        drop(silent);
        stream.set_read_timeout(Some(AFTER_THE_HEADS_TIME)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (early.map_err(|error| error.kind()), answer)
    });
    let (early, answer) = waiting.await.unwrap();
    assert_eq!(early, Err(io::ErrorKind::WouldBlock), "it had no place");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn who_sends_its_head_byte_by_byte_is_let_go_and_holds_up_nobody_for_longer() {
    let server = pages().await;
    let address = server.address();
    let slow: Vec<JoinHandle<()>> = (0..PLACES)
        .map(|_| {
            spawn_blocking(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                let begun = Instant::now();
                for byte in get("/metrics").repeat(100).into_bytes() {
                    if stream.write_all(&[byte]).is_err() {
                        assert!(begun.elapsed() < AFTER_THE_HEADS_TIME);
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(250));
                }
                panic!("nobody minded");
            })
        })
        .collect();
    let answer = ask(address, get("/metrics"), AFTER_THE_HEADS_TIME)
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    for client in slow {
        client.await.unwrap();
    }
}

struct Control {
    _folder: tempfile::TempDir,
    path: PathBuf,
    cancel: CancellationToken,
    served: JoinHandle<()>,
}

/// A control socket that echoes its questions; `before` prepares the place.
fn control(before: impl FnOnce(&Path)) -> Control {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/control.sock");
    fs::create_dir(folder.path().join("run")).unwrap();
    before(&path);
    let cancel = CancellationToken::new();
    let echo: Answerer = Arc::new(|question| match question.text {
        "later" => Answer::Later(Box::pin(async { json!("late") })),
        "never" => Answer::Later(Box::pin(std::future::pending())),
        "lines" => {
            let (sender, lines) = tokio::sync::mpsc::channel(2);
            sender.try_send(json!(1)).unwrap();
            sender.try_send(json!(2)).unwrap();
            Answer::Lines(lines)
        }
        text => json!({ "asked": text }).into(),
    });
    let served = tokio::spawn(control::serve(path.clone(), echo, cancel.clone()));
    Control {
        _folder: folder,
        path,
        cancel,
        served,
    }
}

/// Asks until somebody listens.
async fn answer(path: &Path, question: &str) -> serde_json::Value {
    let (path, question) = (path.to_owned(), question.to_owned());
    let asked = spawn_blocking(move || {
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            match control::ask(&path, &question) {
                Ok(answer) => return answer,
                Err(error) if Instant::now() > give_up => panic!("{error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    });
    asked.await.unwrap()
}

#[tokio::test]
async fn the_control_socket_replaces_a_dead_one_is_closed_to_others_and_goes_with_its_service() {
    let left = |path: &Path| drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    let control = control(left);
    assert_eq!(
        answer(&control.path, "status").await,
        json!({ "asked": "status" })
    );
    let mode = fs::metadata(&control.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    control.cancel.cancel();
    control.served.await.unwrap();
    assert!(!control.path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_stays_where_it_is() {
    let control = control(|path| fs::write(path, "precious").unwrap());
    control.served.await.unwrap();
    assert_eq!(fs::read_to_string(&control.path).unwrap(), "precious");
}

#[tokio::test]
async fn a_question_without_end_is_cut_and_silent_askers_leave_room() {
    let control = control(|_| {});
    let cut = answer(&control.path, &"x".repeat(100_000)).await;
    assert_eq!(cut["asked"].as_str().map(str::len), Some(16 * 1024));
    let silent: Vec<UnixStream> = (0..7)
        .map(|_| UnixStream::connect(&control.path).unwrap())
        .collect();
    assert_eq!(
        answer(&control.path, "status").await,
        json!({ "asked": "status" })
    );
    drop(silent);
}

#[tokio::test]
async fn an_answer_comes_late_or_line_by_line_and_long_ones_keep_nobody_from_asking() {
    let control = control(|_| {});
    assert_eq!(answer(&control.path, "later").await, json!("late"));
    let mut lines = Answers::ask(&control.path, "lines").await.unwrap();
    let mut told = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        told.push(line);
    }
    assert_eq!(told, [json!(1), json!(2)]);
    let mut waiting = Vec::new();
    for _ in 0..16 {
        waiting.push(Answers::ask(&control.path, "never").await.unwrap());
    }
    let busy = answer(&control.path, "never").await;
    assert!(
        busy["error"].as_str().unwrap().contains("try again"),
        "{busy}"
    );
    assert_eq!(
        answer(&control.path, "status").await,
        json!({ "asked": "status" })
    );
}
