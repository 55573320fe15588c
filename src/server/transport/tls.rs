// SPDX-License-Identifier: MPL-2.0

//! The certificate of a port, read again when it is renewed.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, crypto};

use crate::server::config::TlsFiles;
use crate::server::error::TlsError;
use crate::server::log::CAT;

/// Identity of a file's content. Times alone may be copied along with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<[i64; 4]>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).ok();
        let numbers =
            |m: fs::Metadata| [m.ino() as i64, m.ctime(), m.ctime_nsec(), m.size() as i64];
        Stamp(metadata.map(numbers))
    }
}

/// Opens a file for reading.
type OpenFile = fn(&Path) -> io::Result<File>;

/// The certificate of a port for new connections.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    open: OpenFile,
    current: RwLock<Arc<ServerConfig>>,
    /// Stamps of the files in use. Locked while they are read, which may take long where they are
    /// far away: other connections do not wait for that.
    stamps: Mutex<[Stamp; 2]>,
}

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        Self::load_with(files, |path| File::open(path))
    }

    fn load_with(files: TlsFiles, open: OpenFile) -> Result<Self, TlsError> {
        let stamps = Mutex::new(stamps(&files));
        let current = RwLock::new(load(&files, open)?);
        Ok(Tls {
            files,
            open,
            current,
            stamps,
        })
    }

    /// Returns the certificate, read again if the files have changed. While they can't be used, as
    /// in the middle of a renewal, the former certificate stays, and the next connection tries
    /// again.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        if let Some(mut known) = self.stamps.try_lock() {
            let stamps = stamps(&self.files);
            if *known != stamps && self.reload() {
                *known = stamps;
            }
        }
        self.current.read().clone()
    }

    /// Returns true if the files could be used.
    fn reload(&self) -> bool {
        match load(&self.files, self.open) {
            Ok(config) => {
                let path = self.files.certificate.display();
                gst::info!(CAT, "Read the renewed certificate {path}");
                *self.current.write() = config;
                true
            }
            Err(error) => {
                gst::warning!(CAT, "Kept the former certificate: {error}");
                false
            }
        }
    }
}

fn stamps(files: &TlsFiles) -> [Stamp; 2] {
    [Stamp::of(&files.certificate), Stamp::of(&files.private_key)]
}

fn load(files: &TlsFiles, open: OpenFile) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |error: rustls::Error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch(files.clone()),
        other => TlsError::Unusable {
            files: files.clone(),
            reason: other.to_string(),
        },
    };
    let certificates = certificates(&files.certificate, open)?;
    let key = private_key(&files.private_key, open)?;
    // Named, since a program may have several and no default.
    let provider = Arc::new(crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            let builder = builder.with_no_client_auth();
            builder.with_single_cert(certificates, key)
        })
        .map_err(unusable)?;
    // Publishers stay, so resuming a session is worth nothing to them, and librtmp takes a ticket
    // for an error.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(path: &Path, open: OpenFile) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let sections = CertificateDer::pem_reader_iter(reader(path, open)?);
    let certificates: Result<Vec<_>, _> = sections.collect();
    let certificates = certificates.map_err(|error| invalid_pem(path, error))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

fn private_key(path: &Path, open: OpenFile) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_reader(reader(path, open)?).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoPrivateKey(path.to_owned()),
        other => invalid_pem(path, other),
    })
}

fn reader(path: &Path, open: OpenFile) -> Result<BufReader<File>, TlsError> {
    let file = open(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(BufReader::new(file))
}

fn invalid_pem(path: &Path, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TlsError::Read { path, source },
        other => TlsError::NotPem {
            path,
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
