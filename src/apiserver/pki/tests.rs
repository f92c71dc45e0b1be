use super::*;
use jiff::SignedDuration;

#[track_caller]
fn user_of(pem: &str) -> User {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    User::of_certificate(&der).unwrap()
}

#[tokio::test]
async fn a_client_certificate_names_its_user() {
    let pki = Pki::load_or_create(None, Clock::real()).unwrap();
    for user in [User::admin(), User::node("n1"), User::component("kube-scheduler")] {
        assert_eq!(user_of(&pki.client(&user).0), user);
    }
    assert_eq!(pki.client(&User::admin()), pki.client(&User::admin()));
    assert_eq!(User::of_certificate(b"no certificate"), None);
}

#[tokio::test]
async fn certificates_are_kept_until_they_expire_soon() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("pki");
    let start: Timestamp = "2024-05-01T00:00:00Z".parse().unwrap();
    let at = |days: i64| {
        let clock = Clock::starting_at(start + SignedDuration::from_hours(24 * days));
        Pki::load_or_create(Some(&dir), clock).unwrap()
    };
    let first = at(0);
    let second = at(300);
    assert_eq!((&second.ca, &second.server, &second.admin), (&first.ca, &first.server, &first.admin));
    let third = at(400);
    assert_eq!(third.ca, first.ca);
    assert!(third.server != first.server && third.admin != first.admin);
    let last = at(20 * 365);
    assert!(last.ca != first.ca && is_issued_by(&last.server, &last.ca));
}

#[tokio::test]
async fn half_written_pairs_are_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, clock) = (folder.path(), Clock::real());
    let first = Pki::load_or_create(Some(dir), clock).unwrap();
    let other = Pki::load_or_create(None, clock).unwrap();
    std::fs::write(dir.join("apiserver.key"), &other.server.key).unwrap();
    std::fs::remove_file(dir.join("admin.key")).unwrap();
    let second = Pki::load_or_create(Some(dir), clock).unwrap();
    assert_eq!(second.ca, first.ca);
    assert!(is_issued_by(&second.server, &first.ca) && is_issued_by(&second.admin, &first.ca));
    std::fs::write(dir.join("ca.key"), &other.ca.key).unwrap();
    let third = Pki::load_or_create(Some(dir), clock).unwrap();
    assert!(third.ca != first.ca && is_issued_by(&third.server, &third.ca));
}

#[tokio::test]
async fn a_new_name_makes_a_new_server_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, clock) = (folder.path(), Clock::real());
    let first = Pki::load_or_create(Some(dir), clock).unwrap();
    assert!(has_names(&first.server, &server_names(&[])));
    let more = ["192.0.2.7".to_owned(), "boat.example".to_owned()];
    let second = Pki::load_or_create_for(Some(dir), clock, &more).unwrap();
    assert!(has_names(&second.server, &server_names(&more)));
    assert_eq!((&second.ca, &second.admin), (&first.ca, &first.admin));
}

#[tokio::test]
async fn a_damaged_certificate_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["ca.crt", "ca.key"] {
        std::fs::write(folder.path().join(file), "no certificate").unwrap();
    }
    let error = Pki::load_or_create(Some(folder.path()), Clock::real()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("ca.crt") && text.contains("remove the folder"), "{text}");
}

#[cfg(unix)]
#[tokio::test]
async fn keys_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    Pki::load_or_create(Some(folder.path()), Clock::real()).unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let metadata = entry.unwrap().metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
}
