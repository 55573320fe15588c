// SPDX-License-Identifier: MPL-2.0

//! The options that all programs have, and the operator's token.

// Documentation of fields is the text of --help, which has no markup.
#![allow(rustdoc::bare_urls, rustdoc::broken_intra_doc_links)]

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use common::journal::{self, LogFormat};
use subtle::ConstantTimeEq;

/// Shorter tokens can be guessed.
const MIN_TOKEN: usize = 16;
/// The folder that `npm ci` leaves in the source tree.
const UPLOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/page/node_modules/uplot/dist");

#[derive(Debug, Clone, Args)]
pub struct Options {
    /// File with the token of operators, 16 bytes or more (openssl rand -hex 32 > token). With it
    /// the page has buttons to disconnect publishers, to ask them to reconnect, and to drain the
    /// program; without it, it only shows
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Folder dist of the npm package uplot, for the plots of the page
    #[arg(long, value_name = "FOLDER", default_value = UPLOT, hide_default_value = true)]
    pub uplot: PathBuf,
    /// Form of the log: text, or a JSON object on each line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

impl Options {
    /// Reads the token, where there is one.
    pub fn token(&self) -> Result<Option<Token>, String> {
        self.token_file.as_deref().map(Token::read).transpose()
    }

    /// Gives the log the chosen form.
    pub fn start_log(&self) {
        journal::set_format(self.log_format);
    }
}

/// The secret of operators, which is never printed.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl Token {
    fn read(path: &Path) -> Result<Self, String> {
        let named = |problem: String| format!("--token-file {}: {problem}", path.display());
        let bytes = std::fs::read(path).map_err(|error| named(error.to_string()))?;
        Token::new(&bytes).map_err(named)
    }

    /// Accepts the content of a file without the space around it.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.trim_ascii();
        if bytes.len() < MIN_TOKEN {
            return Err(format!(
                "the token has {} bytes, and fewer than {MIN_TOKEN} can be guessed: create one with openssl rand -hex 32",
                bytes.len()
            ));
        }
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err("the token has characters that a header cannot have: create one with openssl rand -hex 32".to_owned());
        }
        Ok(Token(bytes.to_owned()))
    }

    /// Compares in constant time.
    pub fn is(&self, other: &[u8]) -> bool {
        self.0.ct_eq(other).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_never_printed() {
        let token = Token::new(b"0123456789abcdef\n").unwrap();
        assert!(token.is(b"0123456789abcdef") && !token.is(b"0123456789abcdef\n"));
        assert!(!token.is(b"") && !token.is(b"0123456789abcdeg"));
        assert_eq!(format!("{token:?}"), "Token");
        let problem = |bytes: &[u8]| Token::new(bytes).unwrap_err();
        assert!(problem(b"short").contains("5 bytes"));
        assert!(problem("0123456789abcdefé".as_bytes()).contains("header"));
        let missing = Token::read(Path::new("/nowhere")).unwrap_err();
        assert!(missing.starts_with("--token-file /nowhere: "), "{missing}");
    }
}
