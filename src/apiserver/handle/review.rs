//! Questions about identity, answered and not stored: TokenReview and SelfSubjectReview
//! (BEHAVIOURS 18.2).

use k8s_openapi::Resource;
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Inner, Target, dry_run, warned};
use crate::apiserver::authn::User;
use crate::apiserver::decode::{self, Decoded, FieldValidation};
use crate::apiserver::request::{Body, Options, Response};
use crate::apiserver::status::Error;
use crate::apiserver::token;
use crate::kind::Kind;

const OPTIONS: &str = "CreateOptions";

/// Whether creating such an object asks something.
pub(super) fn is_review(kind: &Kind) -> bool {
    kind.group == TokenReview::GROUP && matches!(kind.kind, TokenReview::KIND | SelfSubjectReview::KIND)
}

impl Inner {
    /// Answers with the question, and the answer in its status.
    pub(super) fn review(&self, target: &Target, options: &Options, body: Body) -> Result<Response, Error> {
        dry_run(&options.dry_run, OPTIONS)?;
        let validation = FieldValidation::parse(options.field_validation.as_deref(), OPTIONS)?;
        let Decoded { mut object, warnings } = decode::decode(target.kind, body, validation)?;
        let namespace = object.metadata().namespace.as_deref().unwrap_or_default();
        if !namespace.is_empty() {
            return Err(Error::bad_request(format!("namespace is not allowed on this type: {namespace}")));
        }
        if let Some(review) = object.as_any_mut().downcast_mut::<TokenReview>() {
            self.review_token(review)?;
        } else if let Some(review) = object.as_any_mut().downcast_mut::<SelfSubjectReview>() {
            review.metadata.creation_timestamp = Some(Time(self.now()));
            review.status = Some(SelfSubjectReviewStatus { user_info: Some(told(&target.user)) });
        }
        Ok(warned(warnings, Response::Object { object, created: true }))
    }

    fn review_token(&self, review: &mut TokenReview) -> Result<(), Error> {
        let token = review.spec.token.as_deref().unwrap_or_default();
        if token.is_empty() {
            return Err(Error::bad_request("token is required for TokenReview in authentication"));
        }
        let own = [token::ISSUER.to_owned()];
        let asked = review.spec.audiences.as_deref().filter(|asked| !asked.is_empty()).unwrap_or(&own);
        review.status = Some(match self.check_token(token, asked) {
            Ok(account) => TokenReviewStatus {
                authenticated: Some(true),
                user: Some(told(&account.user)),
                audiences: Some(account.audiences),
                error: None,
            },
            Err(why) => TokenReviewStatus { error: Some(why.to_string()), ..TokenReviewStatus::default() },
        });
        Ok(())
    }
}

fn told(user: &User) -> UserInfo {
    UserInfo {
        username: Some(user.name.clone()),
        uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
        groups: Some(user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    }
}
