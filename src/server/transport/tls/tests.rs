// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// Writes a certificate and its key into a folder.
fn renew(folder: &Path) -> TlsFiles {
    let key = KeyPair::generate().unwrap();
    let parameters = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let replace = |name: &str, text: String| -> PathBuf {
        let (path, new) = (folder.join(name), folder.join("new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, &path).unwrap();
        path
    };
    TlsFiles {
        certificate: replace("certificate.pem", certificate.pem()),
        private_key: replace("key.pem", key.serialize_pem()),
    }
}

/// The files do not change again, so that nothing else would cause another try.
#[test]
fn renewed_certificate_that_could_not_be_opened_stays_due() {
    static IS_EXHAUSTED: AtomicBool = AtomicBool::new(false);
    fn open(path: &Path) -> io::Result<File> {
        if IS_EXHAUSTED.load(Ordering::SeqCst) {
            return Err(rustix::io::Errno::MFILE.into());
        }
        File::open(path)
    }

    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::load_with(renew(folder.path()), open).unwrap();
    let first = tls.config();
    renew(folder.path());
    IS_EXHAUSTED.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert!(Arc::ptr_eq(&tls.config(), &first));
    }
    IS_EXHAUSTED.store(false, Ordering::SeqCst);
    let second = tls.config();
    assert!(!Arc::ptr_eq(&second, &first));
    // It is not due any more.
    assert!(Arc::ptr_eq(&tls.config(), &second));
}
