// SPDX-License-Identifier: MPL-2.0
//! Floors: the cost of receiving without a protocol, and with one copy of each payload byte.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::push;
use crate::chunk::{ChunkReader, Header, SET_CHUNK_SIZE};

const READ_SIZE: usize = 64 * 1024;

pub fn read_loop(count: usize) -> Result<()> {
    let listener = listen()?;
    if count == 1 {
        let (mut socket, _) = listener.accept()?;
        let mut buffer = vec![0; READ_SIZE];
        while socket.read(&mut buffer)? > 0 {}
    } else {
        read_many(&listener, count)?;
    }
    println!("done");
    Ok(())
}

/// Reads each publisher in a thread: the least that a streaming thread for each element costs.
pub fn read_threads(count: usize) -> Result<()> {
    in_threads(count, || Ok(|_: &[u8]| {}))
}

/// The same, and pushes what each read brings into a fakesink as one buffer: the least that a pipeline
/// costs whose source has a thread for each publisher and no protocol.
pub fn push_threads(count: usize) -> Result<()> {
    crate::subject::init_gstreamer()?;
    in_threads(count, || {
        let sink = push::start("fakesink")?;
        Ok(move |bytes: &[u8]| sink.push(bytes))
    })
}

/// Reads each publisher in a thread, with a handler of its own for what a read brings.
fn in_threads<H: Fn(&[u8]) + Send>(count: usize, handler: impl Fn() -> Result<H>) -> Result<()> {
    let listener = listen()?;
    thread::scope(|scope| {
        for _ in 0..count {
            let (mut socket, _) = listener.accept()?;
            let handle = handler()?;
            let mut buffer = vec![0; READ_SIZE];
            scope.spawn(move || {
                while let Ok(size @ 1..) = socket.read(&mut buffer) {
                    handle(&buffer[..size]);
                }
            });
        }
        Ok(())
    })
}

/// Reads all publishers from one thread, woken for those that have sent something.
fn read_many(listener: &TcpListener, count: usize) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut sockets: Vec<TcpStream> = Vec::with_capacity(count);
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX))?;

    let mut buffer = vec![0; READ_SIZE];
    let mut events = [EpollEvent::empty(); 64];
    let mut open = count;
    while open > 0 {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..ready] {
            let Some(socket) = sockets.get_mut(event.data() as usize) else {
                let (socket, _) = listener.accept()?;
                epoll.add(
                    &socket,
                    EpollEvent::new(EpollFlags::EPOLLIN, sockets.len() as u64),
                )?;
                sockets.push(socket);
                continue;
            };
            if socket.read(&mut buffer)? == 0 {
                epoll.delete(&*socket)?;
                socket.shutdown(std::net::Shutdown::Both)?;
                open -= 1;
            }
        }
    }
    Ok(())
}

pub fn one_copy(record: Option<PathBuf>) -> Result<()> {
    let mut recorder = record.map(Recorder::create).transpose()?;
    let (mut socket, _) = listen()?.accept()?;
    let mut chunks = ChunkReader::new();
    let mut buffer = vec![0; READ_SIZE];
    let mut filled = 0;
    loop {
        let size = socket.read(&mut buffer[filled..])?;
        if size == 0 {
            break;
        }
        filled += size;
        let mut result = Ok(());
        let used = chunks.read(&buffer[..filled], |header, payload| {
            if let Some(recorder) = &mut recorder {
                result = recorder.write(header, &payload);
            }
        });
        result?;
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
    println!("done");
    Ok(())
}

/// Writes tags unchanged, with a system call each.
struct Recorder {
    file: File,
    tag: Vec<u8>,
}

impl Recorder {
    fn create(path: PathBuf) -> Result<Self> {
        let mut file = File::create(path)?;
        file.write_all(b"FLV\x01\x05\0\0\0\x09\0\0\0\0")?;
        Ok(Self {
            file,
            tag: Vec::new(),
        })
    }

    fn write(&mut self, header: &Header, payload: &[u8]) -> Result<()> {
        if header.type_id == SET_CHUNK_SIZE {
            return Ok(());
        }
        let length = header.length as u32;
        let [high, low @ ..] = header.timestamp.to_be_bytes();
        self.tag.clear();
        self.tag.push(header.type_id);
        self.tag.extend_from_slice(&length.to_be_bytes()[1..]);
        self.tag.extend_from_slice(&low);
        self.tag.extend_from_slice(&[high, 0, 0, 0]);
        let trailer = (length + 11).to_be_bytes();
        let slices = &mut [&self.tag[..], payload, &trailer].map(std::io::IoSlice::new)[..];
        // A file accepts all of it, or is full.
        let written = self.file.write_vectored(slices)?;
        anyhow::ensure!(written == self.tag.len() + payload.len() + 4, "disk full");
        Ok(())
    }
}

fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    super::print_ports(&[listener.local_addr()?.port()]);
    Ok(listener)
}
