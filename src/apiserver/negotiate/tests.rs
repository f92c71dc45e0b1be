use super::*;

#[track_caller]
fn check(header: &str, watch: bool, expected: Result<(Encoding, Form), &str>) {
    let found = resource(Some(header), watch).map(|accepted| (accepted.encoding, accepted.form));
    let found = found.map_err(|error| error.to_string());
    assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|text| *text), "{header}");
}

#[test]
fn the_first_that_can_be_served_wins() {
    let json = Ok((Encoding::Json, Form::AsIs));
    let table = Ok((Encoding::Json, Form::Table("meta.k8s.io/v1")));
    let nothing = Err("only the following media types are accepted: application/json, application/yaml");
    for (header, expected) in [
        ("", json),
        ("*/*", json),
        ("application/json, */*", json),
        ("application/yaml", Ok((Encoding::Yaml, Form::AsIs))),
        ("application/yaml;q=0.5, application/json", json),
        ("application/vnd.kubernetes.protobuf,application/json", json),
        ("application/vnd.kubernetes.protobuf", nothing),
        ("text/html", nothing),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            table,
        ),
        ("application/json;as=Table;v=v7;g=meta.k8s.io,application/json", json),
        ("application/json;as=Table;v=v7;g=meta.k8s.io", nothing),
        (
            "application/json;as=Table;g=meta.k8s.io;v=v1beta1",
            Ok((Encoding::Json, Form::Table("meta.k8s.io/v1beta1"))),
        ),
        (
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
             application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
            Ok((Encoding::Json, Form::MetadataList("meta.k8s.io/v1"))),
        ),
    ] {
        check(header, false, expected);
    }
    assert_eq!(resource(None, false), Ok(Accepted::DEFAULT));
}

#[test]
fn a_watch_has_no_yaml() {
    check("application/json;stream=watch", true, Ok((Encoding::Json, Form::AsIs)));
    check(
        "application/yaml",
        true,
        Err("only the following media types are accepted: application/json;stream=watch"),
    );
}

#[test]
fn discovery_comes_in_the_order_of_preference() {
    let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                   application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    for (header, expected) in [
        (kubectl, Discovery::Aggregated("v2")),
        (
            "application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io,application/json",
            Discovery::Aggregated("v2beta1"),
        ),
        (
            "application/json;as=APIGroupDiscoveryList;v=v9;g=apidiscovery.k8s.io,*/*",
            Discovery::Legacy(Encoding::Json),
        ),
        ("application/yaml", Discovery::Legacy(Encoding::Yaml)),
    ] {
        assert_eq!(discovery(Some(header)), Ok(expected), "{header}");
    }
    assert_eq!(discovery(Some("application/vnd.kubernetes.protobuf")).unwrap_err().code(), 406);
}

#[test]
fn openapi_v2_has_the_form_that_old_clients_name() {
    assert_eq!(openapi(Some(OPENAPI_V2_PROTOBUF), true), Ok(OpenApi::ProtobufV2));
    assert_eq!(openapi(Some(OPENAPI_V2_PROTOBUF), false).unwrap_err().code(), 406);
    assert_eq!(openapi(Some("application/json"), true), Ok(OpenApi::Json));
    assert_eq!(openapi(None, true), Ok(OpenApi::Json));
}

#[test]
fn gzip_is_taken_unless_refused() {
    for (header, expected) in
        [("gzip", true), ("deflate, gzip;q=0.5", true), ("gzip;q=0", false), ("br", false)]
    {
        assert_eq!(accepts_gzip(Some(header)), expected, "{header}");
    }
    assert!(!accepts_gzip(None));
}
