//! ServiceAccount: whom a pod acts as.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, ServiceAccount};

use super::table::{self, Cell};
use super::{Kind, Strategy, Subresource};

pub static KIND: Kind = Kind {
    short_names: &["sa"],
    subresources: &[Subresource::Token],
    columns: &[
        table::NAME,
        table::described(
            "Secrets",
            "string",
            0,
            "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are allowed to use. Pods are only limited to this list if this service account has a \"kubernetes.io/enforce-mountable-secrets\" annotation set to \"true\". The \"kubernetes.io/enforce-mountable-secrets\" annotation is deprecated since v1.32. Prefer separate namespaces to isolate access to mounted secrets. This field should not be used to find auto-generated service account token secrets for use outside of pods. Instead, tokens can be requested directly using the TokenRequest API, or service account token secrets can be manually created. More info: https://kubernetes.io/docs/concepts/configuration/secret",
        ),
        table::AGE,
    ],
    ..Kind::namespaced(&Rules, "serviceaccount")
};

struct Rules;

impl Strategy for Rules {
    type Object = ServiceAccount;

    fn prepare_create(&self, account: &mut ServiceAccount) {
        keep_names(account);
    }

    fn prepare_update(&self, new: &mut ServiceAccount, _old: &ServiceAccount) {
        keep_names(new);
    }

    fn cells(&self, account: &ServiceAccount, now: Timestamp) -> Vec<Cell> {
        let secrets = account.secrets.iter().flatten().count();
        vec![table::name(account), table::count(secrets), table::age(account, now)]
    }
}

/// Of references to secrets only the name means something.
fn keep_names(account: &mut ServiceAccount) {
    for secret in account.secrets.iter_mut().flatten() {
        *secret = ObjectReference { name: secret.name.take(), ..ObjectReference::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::fixture::Fixture;
    use serde_json::json;

    const ACCOUNT: Fixture =
        Fixture { kind: &KIND, base: || json!({"metadata": {"name": "a", "namespace": "n"}}) };

    #[test]
    fn references_keep_only_names() {
        let account =
            ACCOUNT.created(json!({"secrets": [{"name": "s", "namespace": "other", "kind": "Secret"}]}));
        assert_eq!(account.to_value()["secrets"], json!([{"name": "s"}]));
    }

    #[test]
    fn tables_count_secrets() {
        ACCOUNT.cells(json!({"secrets": [{"name": "s"}]}), &["a", "1", "<unknown>"]);
    }
}
