// SPDX-License-Identifier: MPL-2.0

//! Access for publishers: options that become properties of the relay's elements.

// Documentation of fields is the text of --help, which has no markup.
#![allow(rustdoc::bare_urls)]

use std::fs;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gst::prelude::*;
use url::Url;

/// A key that is shorter can be guessed.
const MIN_KEY: usize = 16;

/// Methods by which publishers prove that they know the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    Adobe,
    Llnw,
}

/// Options about the access of publishers.
#[derive(Debug, Args)]
pub struct AccessOptions {
    /// PEM file with the certificate and its chain: publishers connect to rtmps://
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key; by default it is in the file of --certificate
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub private_key: Option<PathBuf>,
    /// Accept rtmp:// beside rtmps:// on the same port
    #[arg(long, requires = "certificate")]
    pub allow_plain: bool,
    /// User name that publishers authenticate with
    #[arg(long, value_name = "NAME", requires = "publish_password_file")]
    pub publish_user: Option<String>,
    /// File with the password that publishers authenticate with
    #[arg(long, value_name = "FILE", requires = "publish_user")]
    pub publish_password_file: Option<PathBuf>,
    /// Method of the authentication, as the encoders know it
    #[arg(
        long,
        value_name = "METHOD",
        default_value = "adobe",
        requires = "publish_user"
    )]
    pub publish_method: Method,
    /// http:// or https:// URL of a server that is asked, by POST in the format of MediaMTX, who may
    /// publish; only an answer with status 20x lets in
    #[arg(long, value_name = "URL", value_parser = parse_auth_url)]
    pub auth_url: Option<Url>,
    /// Time for an answer of --auth-url, after which a publisher is refused
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub auth_timeout: u32,
    /// File with a key: publish URLs have to be signed with it, and expire
    #[arg(long, value_name = "FILE")]
    pub signing_key_file: Option<PathBuf>,
}

impl AccessOptions {
    /// Sets the properties of an element that publishers connect to.
    pub fn apply(&self, source: &gst::Element) -> Result<(), String> {
        if let Some(certificate) = &self.certificate {
            source.set_property("certificate-file", certificate);
        }
        if let Some(key) = &self.private_key {
            source.set_property("private-key-file", key);
        }
        if self.allow_plain {
            source.set_property_from_str("encryption", "optional");
        }
        if let (Some(user), Some(file)) = (&self.publish_user, &self.publish_password_file) {
            let method = match self.publish_method {
                Method::Adobe => "adobe",
                Method::Llnw => "llnw",
            };
            source.set_property_from_str("authmod", method);
            source.set_property("username", user);
            source.set_property("password", secret("--publish-password-file", file)?);
        }
        if let Some(url) = &self.auth_url {
            source.set_property("auth-url", url.as_str());
            source.set_property("auth-timeout", self.auth_timeout);
        }
        if let Some(file) = &self.signing_key_file {
            let key = secret("--signing-key-file", file)?;
            if key.len() < MIN_KEY {
                return Err(format!(
                    "--signing-key-file {}: the key has {} bytes, and fewer than {MIN_KEY} can be \
                     guessed: create one with openssl rand -hex 32",
                    file.display(),
                    key.len()
                ));
            }
            source.set_property("signing-key", key);
        }
        Ok(())
    }

    /// Returns the scheme of the URL that publishers connect to.
    pub fn scheme(&self) -> &'static str {
        match self.certificate {
            Some(_) => "rtmps",
            None => "rtmp",
        }
    }
}

/// Returns the first line of a file with a secret.
fn secret(option: &str, file: &PathBuf) -> Result<String, String> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("{option} {}: {error}", file.display()))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(format!(
            "{option} {}: its first line is empty",
            file.display()
        ));
    }
    Ok(line.to_owned())
}

fn parse_auth_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err("use http:// or https://".to_owned()),
    }
}
