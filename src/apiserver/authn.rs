//! Who is speaking.

/// An authenticated user. A client certificate's CN is the name, its O the groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

impl User {
    /// One of the control plane's own parts, such as `system:kube-scheduler`.
    #[must_use]
    pub fn component(name: &str) -> Self {
        Self { name: format!("system:{name}"), groups: vec!["system:authenticated".into()] }
    }

    /// The kubelet of `node`.
    #[must_use]
    pub fn node(node: &str) -> Self {
        Self {
            name: format!("system:node:{node}"),
            groups: vec!["system:nodes".into(), "system:authenticated".into()],
        }
    }

    /// Whoever holds the cluster's kubeconfig.
    #[must_use]
    pub fn admin() -> Self {
        Self {
            name: "kubernetes-admin".into(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
        }
    }

    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()] }
    }
}
