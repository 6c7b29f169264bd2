//! The pages and examples that an operator reads are what the program understands.

use std::path::PathBuf;

use super::super::schema::markdown;
use super::super::schema::{Built, Default as KeyDefault, reference};
use super::super::*;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn configuration_reference_is_the_table_of_keys() {
    let path = root().join("docs/configuration.md");
    if std::env::var_os("FOREBAY_BLESS").is_some() {
        std::fs::write(&path, markdown()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == markdown(),
        "docs/configuration.md is not what the table of keys gives. Make it with: FOREBAY_BLESS=1 cargo test --bin forebay configuration_reference"
    );
}

#[test]
fn every_key_is_documented_once_with_a_default_that_is_allowed() {
    for (index, key) in reference().iter().enumerate() {
        assert!(
            reference()[index + 1..].iter().all(|other| other.path != key.path),
            "{} stands twice",
            key.path
        );
        assert!(!key.doc.is_empty(), "{}", key.path);
        let parent = key.parent().trim_end_matches("[]");
        assert!(
            parent.is_empty() || reference().iter().any(|other| other.path == parent),
            "{} has no parent",
            key.path
        );
        if let (KeyDefault::Value(value), Built::Yes) = (key.default, key.built) {
            let node = Node::parse_override(value, &"the default".into()).unwrap();
            assert_eq!(key.kind.check(&node), Ok(()), "{}: {value}", key.path);
        }
    }
}

#[test]
fn the_examples_are_valid() {
    for name in ["minimal.yaml", "forebay.yaml"] {
        load(
            &root().join("config").join(name),
            &Overrides {
                skip_files: true,
                ..Overrides::default()
            },
        )
        .unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_full_example_shows_every_key_of_this_version() {
    let text = std::fs::read_to_string(root().join("config/forebay.yaml")).unwrap();
    for key in reference().iter().filter(|key| key.built == Built::Yes) {
        assert!(
            text.contains(&format!("{}:", key.name())),
            "{} is missing in config/forebay.yaml",
            key.path
        );
    }
}

#[test]
fn the_minimal_example_works_with_the_files_it_expects() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(root().join("config/minimal.yaml"), folder.path().join("forebay.yaml")).unwrap();
    std::fs::create_dir(folder.path().join("certs")).unwrap();
    for name in [
        "server.pem",
        "server.key",
        "devices-ca.pem",
        "devices.crl",
        "cloud.pem",
        "cloud.key",
    ] {
        std::fs::write(folder.path().join("certs").join(name), "").unwrap();
    }
    let config = load(&folder.path().join("forebay.yaml"), &Overrides::default()).unwrap();
    assert_eq!(
        config.listeners[0].tls.as_ref().unwrap().crl,
        Some(folder.path().join("certs/devices.crl"))
    );
}

#[test]
fn the_unit_file_starts_what_this_version_is() {
    let unit = std::fs::read_to_string(root().join("config/forebay.service")).unwrap();
    for line in [
        "Type=exec",
        "Restart=always",
        "StateDirectory=forebay",
        "NoNewPrivileges=yes",
        "RestartPreventExitStatus=78",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    assert!(unit.contains("forebay run -c"));
    let scrape = std::fs::read_to_string(root().join("dashboards/prometheus.yml")).unwrap();
    let admin = load(
        &root().join("config/minimal.yaml"),
        &Overrides {
            skip_files: true,
            ..Overrides::default()
        },
    )
    .unwrap()
    .admin;
    assert!(scrape.contains(&admin.bind.to_string()));
    assert!(serde_yaml::from_str::<serde_yaml::Value>(&scrape).is_ok());
}
