// SPDX-License-Identifier: MPL-2.0

/// Method by which clients prove that they know the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Adobe,
    Llnw,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Adobe => "adobe",
            Method::Llnw => "llnw",
        }
    }
}

/// Credentials of a publisher.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub method: Method,
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    /// Leaves out the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}
