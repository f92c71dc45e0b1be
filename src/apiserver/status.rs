//! Errors as clients see them: a `Status` object and its HTTP code (BEHAVIOURS 5).
//!
//! The only place that knows which failure has which code, reason and wording. Texts are those of
//! apimachinery's `pkg/api/errors`, which kubectl and client libraries take apart.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

use crate::kind::Kind;
use crate::kind::field::Errors;

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

    /// Something was to be created in a namespace that is going away (BEHAVIOURS 11.2).
    #[must_use]
    pub fn is_namespace_terminating(&self) -> bool {
        let causes = self.0.details.iter().flat_map(|details| details.causes.iter().flatten());
        causes.into_iter().any(|cause| cause.reason.as_deref() == Some("NamespaceTerminating"))
    }

    /// The watch or list asked for a revision before the history; list again.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.reason() == "Expired" || self.reason() == "Gone"
    }

    /// Any failure, without details.
    #[must_use]
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Status {
            status: Some("Failure".into()),
            message: Some(message.into()),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            code: Some(i32::from(code)),
            ..Status::default()
        }))
    }

    fn details(mut self, details: StatusDetails) -> Self {
        self.0.details = Some(details);
        self
    }

    fn about(self, kind: &Kind, name: &str) -> Self {
        self.details(details(kind.group, kind.plural, name))
    }

    /// With one more cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = StatusCause { reason: some(reason), message: some(message), field: some(field) };
        self.0.details.get_or_insert_default().causes.get_or_insert_default().push(cause);
        self
    }

    /// With the seconds after which the client may try again.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: i32) -> Self {
        self.0.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// 404 `pods "a" not found`
    #[must_use]
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", kind.resource())).about(kind, name)
    }

    /// 404 `namespaces "n" not found`
    #[must_use]
    pub fn namespace_not_found(name: &str) -> Self {
        Self::new(404, "NotFound", format!("namespaces {name:?} not found")).details(details(
            "",
            "namespaces",
            name,
        ))
    }

    /// 404 for an unknown resource.
    #[must_use]
    pub fn unknown_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
            .details(StatusDetails::default())
    }

    /// 409 `pods "a" already exists`
    #[must_use]
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.resource()))
            .about(kind, name)
    }

    /// 409 when `generateName` found no free name.
    #[must_use]
    pub fn generate_name_taken(kind: &Kind, name: &str) -> Self {
        let message = format!(
            "{} {name:?} already exists, the server was not able to generate a unique name for the object",
            kind.resource()
        );
        Self::new(409, "AlreadyExists", message).about(kind, name)
    }

    /// 409 `Operation cannot be fulfilled on configmaps "a": why`
    #[must_use]
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.resource());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// 409 on a stale `resourceVersion`.
    #[must_use]
    pub fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 `Operation cannot be fulfilled on pods/binding "a": why`
    #[must_use]
    pub fn subresource_conflict(kind: &Kind, subresource: &str, name: &str, why: &str) -> Self {
        let resource = format!("{}/{subresource}", kind.plural);
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(409, "Conflict", message).details(details(kind.group, &resource, name))
    }

    /// 422 with a cause for each error; `kind` is the Kind, as 5.1 wants it.
    #[must_use]
    pub fn invalid(kind: &Kind, name: &str, errors: &Errors) -> Self {
        let full = if kind.group.is_empty() {
            kind.kind.to_owned()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        Self::invalid_named(&full, kind.group, kind.kind, name, errors)
    }

    /// 422 about a request's options: `DeleteOptions.meta.k8s.io "" is invalid: …`.
    #[must_use]
    pub fn invalid_options(kind: &str, errors: &Errors) -> Self {
        Self::invalid_named(&format!("{kind}.meta.k8s.io"), "meta.k8s.io", kind, "", errors)
    }

    /// 422 about a patch whose result is not an object of the kind: ` "" is invalid: patch: …`.
    #[must_use]
    pub fn invalid_patch(patched: &str, why: &str) -> Self {
        let mut errors = Errors::default();
        errors.invalid(&crate::kind::field::Path::new("patch"), patched, why);
        Self::invalid_named("", "", "", "", &errors)
    }

    fn invalid_named(full: &str, group: &str, kind: &str, name: &str, errors: &Errors) -> Self {
        let mut texts: Vec<String> = Vec::with_capacity(errors.0.len());
        for error in &errors.0 {
            let text = if error.field.is_empty() {
                error.message.clone()
            } else {
                format!("{}: {}", error.field, error.message)
            };
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
        let mut status = Self::new(422, "Invalid", format!("{full} {name:?} is invalid: {list}"))
            .details(details(group, kind, name));
        for error in &errors.0 {
            status = status.with_cause(error.reason, &error.message, &error.field);
        }
        status
    }

    /// 422 when the operations of a JSON patch cannot be applied.
    #[must_use]
    pub fn patch_failed(why: &str) -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(422, "Invalid", message).details(StatusDetails::default()).with_cause(
            "UnexpectedServerResponse",
            why,
            "",
        )
    }

    /// 403 `pods "a" is forbidden: why`; without the name if it is empty.
    #[must_use]
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let resource = kind.resource();
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} {name:?} is forbidden: {why}")
        };
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    /// 403 `forbidden: User "u" cannot get path "/x"`
    #[must_use]
    pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        Self::new(403, "Forbidden", format!("forbidden: User {user:?} cannot {verb} path {path:?}"))
            .details(StatusDetails::default())
    }

    /// 401
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 400
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 405
    #[must_use]
    pub fn method_not_allowed(kind: &Kind) -> Self {
        Self::new(405, "MethodNotAllowed", "Method not allowed").about(kind, "")
    }

    /// 406
    #[must_use]
    pub fn not_acceptable(accepted: &str) -> Self {
        let message = format!("only the following media types are accepted: {accepted}");
        Self::new(406, "NotAcceptable", message)
    }

    /// 415
    #[must_use]
    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 413
    #[must_use]
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 410: list again.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410, as a watch of a revision before the history gets it (BEHAVIOURS 1.9).
    #[must_use]
    pub fn too_old(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// 504 when a revision has not happened within the wait (BEHAVIOURS 1.2).
    #[must_use]
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        Self::new(504, "Timeout", message)
            .with_cause("ResourceVersionTooLarge", "Too large resource version", "")
            .with_retry_after(1)
    }

    /// 500
    #[must_use]
    pub fn internal(why: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {why}"))
            .details(StatusDetails::default())
            .with_cause("", &why.to_string(), "")
    }
}

/// `Success`, as a deletion and a binding answer; `uid` may be empty.
#[must_use]
pub fn success(kind: &Kind, name: &str, uid: &str) -> Status {
    let mut details = details(kind.group, kind.plural, name);
    details.uid = some(uid);
    Status { status: Some("Success".into()), details: Some(details), ..Status::default() }
}

fn details(group: &str, kind: &str, name: &str) -> StatusDetails {
    StatusDetails { name: some(name), group: some(group), kind: some(kind), ..StatusDetails::default() }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::config_map::KIND;
    use crate::kind::field::Path;

    #[test]
    fn texts_are_those_that_clients_take_apart() {
        let mut one = Errors::default();
        one.required(&Path::new("spec").child("x"), "");
        let mut two = one.clone();
        two.forbidden(&Path::new("data"), "why");
        for (error, code, reason, message) in [
            (Error::not_found(&KIND, "a"), 404, "NotFound", r#"configmaps "a" not found"#),
            (Error::already_exists(&KIND, "a"), 409, "AlreadyExists", r#"configmaps "a" already exists"#),
            (
                Error::invalid(&KIND, "a", &one),
                422,
                "Invalid",
                r#"ConfigMap "a" is invalid: spec.x: Required value"#,
            ),
            (
                Error::invalid(&KIND, "a", &two),
                422,
                "Invalid",
                r#"ConfigMap "a" is invalid: [spec.x: Required value, data: Forbidden: why]"#,
            ),
            (Error::forbidden(&KIND, "", "no"), 403, "Forbidden", "configmaps is forbidden: no"),
            (
                Error::forbidden_path("u", "get", "/x"),
                403,
                "Forbidden",
                r#"forbidden: User "u" cannot get path "/x""#,
            ),
            (Error::too_old(3, 9), 410, "Expired", "too old resource version: 3 (9)"),
        ] {
            assert_eq!((error.code(), error.reason(), error.to_string().as_str()), (code, reason, message));
        }
        let details = Error::invalid(&KIND, "a", &two).0.details.unwrap();
        assert_eq!(details.kind.as_deref(), Some("ConfigMap"));
        let cause = &details.causes.unwrap()[1];
        assert_eq!(cause.field.as_deref(), Some("data"));
        assert_eq!(cause.message.as_deref(), Some("Forbidden: why"));
        assert_eq!(Error::not_found(&KIND, "a").0.details.unwrap().kind.as_deref(), Some("configmaps"));
    }
}
