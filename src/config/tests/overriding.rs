//! The environment over the file, flags over both.

use std::path::Path;

use super::super::*;
use super::MINIMAL;

fn with(env: &[(&str, &str)], set: &[&str]) -> Result<Config, ConfigError> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let set = set.iter().map(|entry| (*entry).to_owned()).collect();
    parse(
        MINIMAL,
        Path::new("/etc/forebay"),
        &Overrides {
            env,
            set,
            skip_files: true,
        },
    )
}

#[track_caller]
fn the_fault(env: &[(&str, &str)], set: &[&str]) -> String {
    let error = with(env, set).expect_err("a fault was expected");
    assert_eq!(error.faults.len(), 1, "{error}");
    error.faults[0].to_string()
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let env = [
        ("FOREBAY__GATEWAY__ID", "from-env"),
        ("FOREBAY__CLOUD__IN_FLIGHT", "7"),
        ("PATH", "/bin"),
        ("FOREBAY_LOG", "debug"),
    ];
    let config = with(&env, &["gateway.id=from-flag"]).unwrap();
    assert_eq!(config.gateway.id.as_str(), "from-flag");
    assert_eq!(config.cloud.unwrap().in_flight, 7);
    assert_eq!(with(&env, &[]).unwrap().gateway.id.as_str(), "from-env");
}

#[test]
fn items_of_lists_are_reached_by_number_and_appended_at_the_end() {
    let env = [
        ("FOREBAY__LISTENERS__1__BIND", "127.0.0.1:2883"),
        ("FOREBAY__LISTENERS__0__BIND", "127.0.0.1:3883"),
    ];
    let config = with(&env, &["listeners[2].bind=127.0.0.1:4883", "listeners.2.identity=node-red"]).unwrap();
    let ports: Vec<_> = config.listeners.iter().map(|listener| listener.bind.port()).collect();
    assert_eq!(ports, [3883, 2883, 4883]);
    assert_eq!(config.listeners[2].identity.to_string(), "node-red");
}

#[test]
fn values_are_yaml_and_numbers_are_text_where_text_is_wanted() {
    let config = with(
        &[("FOREBAY__ACCESS", "[{who: \"*\", publish: [\"#\"]}]")],
        &["gateway.id=007", "limits={max_topics: 200}", "listeners.0.identity={client_id}"],
    )
    .unwrap();
    assert_eq!(config.listeners[0].identity, Identity::ClientId);
    assert_eq!(
        (config.gateway.id.as_str(), config.access.len(), config.limits.max_topics),
        ("007", 1, 200)
    );
}

#[test]
fn faults_name_the_variable_or_the_flag() {
    let shown = the_fault(&[("FOREBAY__GATEWAY__MAX_DISC", "1GiB")], &[]);
    assert!(
        shown.starts_with("gateway.max_disc (from FOREBAY__GATEWAY__MAX_DISC)\n    value:  1GiB\n"),
        "{shown}"
    );
    assert!(shown.ends_with("did you mean `max_disk`?"), "{shown}");
    assert!(
        the_fault(&[], &["limits.max_topics=1"])
            .starts_with("limits.max_topics (from --set limits.max_topics)\n    value:  1\n    reason: must be a whole number from 100")
    );
    assert!(the_fault(&[], &["nonsense"]).contains("a setting is key.path=value"));
    assert!(the_fault(&[], &["gateway..id=x"]).contains("the name of a key is empty"));
    assert!(the_fault(&[], &["listeners.5.bind=127.0.0.1:1"]).contains("listeners has 1 items: the next one is number 1"));
    assert!(the_fault(&[], &["listeners.bind=127.0.0.1:1"]).contains("listeners is a list: give the number of an item, not `bind`"));
    assert!(the_fault(&[], &["gateway.0=x"]).contains("gateway is a map: give the name of a key, not 0"));
    assert!(the_fault(&[], &["gateway.id.x=y"]).contains("gateway.id is a single value and has no keys"));
    assert!(the_fault(&[("FOREBAY__ACCESS__0__WHO", "*")], &[]).contains("quote it, as in \"*\""));
}

#[test]
fn an_override_shows_no_values_when_printed() {
    let overrides = Overrides {
        set: vec!["admin.token_file=secret-place".to_owned()],
        ..Overrides::default()
    };
    assert!(!format!("{overrides:?}").contains("secret-place"));
}
