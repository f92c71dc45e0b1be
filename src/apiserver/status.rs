//! Errors as clients see them: a `Status` object and its HTTP code (BEHAVIOURS 5).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// A failed request: the `Status` that the client receives.
#[derive(Clone, Debug, PartialEq)]
pub struct Error(pub Box<Status>);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.message.as_deref().unwrap_or("unknown error"))
    }
}

impl std::error::Error for Error {}

impl Error {
    /// HTTP code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.0.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500)
    }

    /// `NotFound`, `AlreadyExists`, `Conflict`, …
    #[must_use]
    pub fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or("")
    }

    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }
}
