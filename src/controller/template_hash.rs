//! A short name for a pod template: part of the names and labels of what is made from it.
//!
//! Upstream hashes Go's print of the template (`ComputeHash`), which nobody else can; ours is of its JSON.
//! The alphabet is upstream's, in which no word can be written.

use k8s_openapi::api::core::v1::PodTemplateSpec;

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash; `collisions` makes another one for when the name is taken by something else.
#[must_use]
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut bytes = serde_json::to_vec(template).expect("API types have string keys only");
    if let Some(count) = collisions {
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    // FNV-1a
    let hash =
        bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_and_collisions_differ() {
        let template = |image: &str| -> PodTemplateSpec {
            serde_json::from_value(json!({ "spec": { "containers": [{ "name": "c", "image": image }] } }))
                .unwrap()
        };
        let one = template_hash(&template("a"), None);
        assert_eq!(one, template_hash(&template("a"), None));
        assert!(!one.is_empty() && one.bytes().all(|byte| ALPHABET.contains(&byte)), "{one}");
        assert_ne!(one, template_hash(&template("b"), None));
        assert_ne!(one, template_hash(&template("a"), Some(0)));
        assert_ne!(template_hash(&template("a"), Some(1)), template_hash(&template("a"), Some(0)));
    }
}
