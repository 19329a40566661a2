//! A front door that answers as a script says, and remembers what it was asked.

use crate::{Client, Error};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Longer than any test waits.
const FOR_EVER: Duration = Duration::from_secs(600);

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// This status, with this line more in its head, and this body.
    Answer(u16, &'static str, String),
    /// The head says 202, and the connection ends in the middle of the body.
    Cut,
    /// No answer, and the connection stays.
    Silence,
}

impl Step {
    /// An answer without a body.
    pub(super) fn status(status: u16, header: &'static str) -> Self {
        Self::Answer(status, header, String::new())
    }

    fn play(&self, mut stream: &TcpStream) -> io::Result<()> {
        match self {
            Self::Answer(status, header, body) => {
                let more = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} \r\n{more}Connection: close\r\nContent-Length: {length}\r\n\r\n"
                );
                stream.write_all((head + body).as_bytes())
            }
            Self::Cut => stream.write_all(b"HTTP/1.1 202 \r\nContent-Length: 100\r\n\r\n{\"id\":"),
            Self::Silence => {
                std::thread::sleep(FOR_EVER);
                Ok(())
            }
        }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) at: Instant,
    /// Its method and where it goes.
    pub(super) what: String,
    /// By their names in small letters.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Asked {
    fn read(stream: &TcpStream) -> io::Result<Self> {
        let mut reader = BufReader::new(stream);
        let first = line(&mut reader)?;
        let mut headers = BTreeMap::new();
        while let Some((name, value)) = line(&mut reader)?.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let what = first.trim_end_matches(" HTTP/1.1").to_owned();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Self { at: Instant::now(), what, headers, body })
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    match reader.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

/// The front door. It is there until the process ends.
pub(super) struct Door {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Door {
    /// Answers each request with its step of the script, and those behind the last with the last.
    pub(super) fn new(script: &[Step]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::default();
        let door = Self { url, asked: Arc::clone(&asked) };
        let script = script.to_vec();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, script) = (Arc::clone(&asked), script.clone());
                // Each of its own: a client may open a connection and send nothing.
                std::thread::spawn(move || serve(&stream, &asked, &script));
            }
        });
        door
    }

    pub(super) fn client(&self) -> Result<Client, Error> {
        Client::new(&self.url)
    }

    /// Every request so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: &TcpStream, asked: &Mutex<Vec<Asked>>, script: &[Step]) {
    let Ok(request) = Asked::read(stream) else { return };
    let before = {
        let mut asked = asked.lock().unwrap();
        asked.push(request);
        asked.len() - 1
    };
    // The client may have gone.
    let _ = script[before.min(script.len() - 1)].play(stream);
}
