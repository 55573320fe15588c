// SPDX-License-Identifier: MPL-2.0

//! A port in front of a server that can be closed and opened again, and stays the same.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

#[derive(Debug)]
pub struct Gate {
    pub port: u16,
    state: Arc<Mutex<GateState>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct GateState {
    target: u16,
    is_open: bool,
    is_over: bool,
    connections: Vec<TcpStream>,
}

impl Gate {
    /// Opens a gate in front of a server on this port.
    pub fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(GateState {
            target,
            is_open: true,
            is_over: false,
            connections: Vec::new(),
        }));
        let shared = state.clone();
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                let mut state = shared.lock().unwrap();
                if state.is_over {
                    return;
                }
                // While the gate is closed, a new connection is closed at once.
                if let (Ok(client), true) = (client, state.is_open) {
                    state.connect(client);
                }
            }
        });
        Gate {
            port,
            state,
            thread: Some(thread),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("rtmp://127.0.0.1:{}/{path}", self.port)
    }

    /// Cuts off all connections, and accepts no more.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_open = false;
        state.cut_off();
    }

    pub fn open(&self) {
        self.state.lock().unwrap().is_open = true;
    }
}

impl GateState {
    fn connect(&mut self, client: TcpStream) {
        let server = TcpStream::connect(("127.0.0.1", self.target)).unwrap();
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
        self.connections.extend([client, server]);
    }

    fn cut_off(&mut self) {
        for connection in self.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap();
        state.is_over = true;
        state.cut_off();
        drop(state);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
