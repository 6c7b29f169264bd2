//! The gateway's certificate for the cloud: key and request are made here, the certificate by AWS IoT or by the CA of another broker.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};

use super::make;
use super::store::{self, NewFile};

/// The policy with `GATEWAY`, `REGION` and `ACCOUNT` to fill in; the same file is documented in `certs/README.md`.
const POLICY: &str = include_str!("../../certs/aws-policy.json");
const KEY: &str = "cloud.key";
const REQUEST: &str = "cloud.csr";
const CERTIFICATE: &str = "cloud.pem";
const POLICY_FILE: &str = "cloud-policy.json";

#[derive(Debug, Args)]
pub(super) struct CloudArgs {
    /// The gateway's id, `gateway.id` of the configuration
    #[arg(long, value_name = "ID")]
    gateway: String,
    /// Who signs the request, `cloud.profile` of the configuration
    #[arg(long, value_enum, value_name = "PROFILE", default_value_t = Signer::AwsIot)]
    profile: Signer,
    /// For the policy of AWS: a topic the routes map to, `*` for any tail; repeat it for each [default: devices/*, ID/*, dt/ID/*]
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Replace cloud.key, cloud.csr and cloud-policy.json
    #[arg(long)]
    force: bool,
}

/// Who makes the certificate from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Signer {
    /// AWS IoT Core
    AwsIot,
    /// The CA that another broker trusts
    Mqtt,
}

/// Writes key, request and policy and prints the commands that are left to run.
pub(super) fn run(args: &CloudArgs, folder: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let gateway = args.gateway.as_str();
    check_gateway(gateway)?;
    let (key, request) = make::request(gateway)?;
    let file = |name: &str, content: String, secret| NewFile {
        path: folder.join(name),
        content,
        secret,
    };
    let mut files = vec![file(KEY, key.serialize_pem(), true), file(REQUEST, request, false)];
    let left = match args.profile {
        Signer::AwsIot => {
            files.push(file(POLICY_FILE, policy(gateway, &args.topics)?, false));
            commands(gateway, folder)
        }
        Signer::Mqtt => {
            ensure!(
                args.topics.is_empty(),
                "--topic is for the policy of AWS; with --profile mqtt the broker's own rules say what {gateway} may publish"
            );
            commands_of_a_ca(gateway, folder)
        }
    };
    store::write_all(&files, args.force)?;
    out.write_all(left.as_bytes())?;
    Ok(())
}

fn commands_of_a_ca(gateway: &str, folder: &Path) -> String {
    let path = |name: &str| shell_word(&folder.join(name).display().to_string());
    let (key, request, certificate) = (path(KEY), path(REQUEST), path(CERTIFICATE));
    format!(
        "# wrote {key} (secret) and {request}. Now, where the key of the CA is that the broker trusts for its clients:\n\
         openssl x509 -req -in {request} -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -out {certificate}\n\
         # then, here: forebay certs show {certificate}\n\
         # in forebay.yaml:\n\
         # cloud:\n\
         #   profile: mqtt\n\
         #   endpoint: the name in the broker's certificate\n\
         #   tls: {{certificate: {certificate}, key: {key}, ca: the CA of the broker's certificate}}\n\
         # and let the broker allow its clients {gateway} what the routes map to and {canary}\n",
        canary = crate::config::canary_topic(gateway),
    )
}

fn commands(gateway: &str, folder: &Path) -> String {
    let path = |name: &str| shell_word(&folder.join(name).display().to_string());
    let (key, request, certificate, policy) = (path(KEY), path(REQUEST), path(CERTIFICATE), path(POLICY_FILE));
    let mut text = String::new();
    let lines = [
        format!("# wrote {key} (secret), {request} and {policy}. Now, with the AWS CLI and your credentials:"),
        "REGION=$(aws configure get region)".into(),
        "ACCOUNT=$(aws sts get-caller-identity --query Account --output text)".into(),
        format!(
            "aws iot create-policy --policy-name forebay-{gateway} --policy-document \"$(sed \"s/REGION/$REGION/; s/ACCOUNT/$ACCOUNT/\" {policy})\""
        ),
        format!(
            "ARN=$(aws iot create-certificate-from-csr --set-as-active --certificate-signing-request file://{request} \
             --certificate-pem-outfile {certificate} --query certificateArn --output text)"
        ),
        format!("aws iot attach-policy --policy-name forebay-{gateway} --target \"$ARN\""),
        "aws iot describe-endpoint --endpoint-type iot:Data-ATS --query endpointAddress --output text    # cloud.endpoint".into(),
        format!("# then: forebay certs show {certificate}"),
    ];
    for line in lines {
        // Writing to a String cannot fail.
        writeln!(text, "{line}").ok();
    }
    text
}

/// The policy document with the gateway filled in; region and account are left for the printed command.
fn policy(gateway: &str, topics: &[String]) -> anyhow::Result<String> {
    let text = POLICY.replace("GATEWAY", gateway);
    if topics.is_empty() {
        return Ok(text);
    }
    let mut document: serde_json::Value = serde_json::from_str(&text)?;
    if !topics.is_empty() {
        let resources = topics
            .iter()
            .map(|topic| topic_resource(topic))
            // Always, or the canary would be denied.
            .chain([topic_resource(&crate::config::canary_topic(gateway))])
            .collect::<anyhow::Result<Vec<_>>>()?;
        document["Statement"][1]["Resource"] = resources.into();
    }
    Ok(format!("{document:#}\n"))
}

fn topic_resource(topic: &str) -> anyhow::Result<String> {
    ensure!(
        !topic.is_empty(),
        "--topic is empty; give what a route's `to` yields, for example dt/plant-7/*"
    );
    if let Some(found) = topic.chars().find(|c| matches!(c, '+' | '#' | '{' | '$' | '"') || c.is_control()) {
        bail!(
            "--topic \"{}\" contains {found:?}; AWS policies know only * and ?: write dt/plant-7/*",
            topic.escape_debug()
        );
    }
    ensure!(
        !topic.trim_matches(['*', '/']).is_empty(),
        "--topic {topic} would allow every topic of the account; name the first level"
    );
    Ok(format!("arn:aws:iot:REGION:ACCOUNT:topic/{topic}"))
}

/// Narrower than an MQTT client id: in a policy `*` and `?` would be wildcards, and the words REGION and ACCOUNT placeholders.
fn check_gateway(gateway: &str) -> anyhow::Result<()> {
    let fits = (1..=64).contains(&gateway.len()) && gateway.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    ensure!(
        fits,
        "--gateway \"{}\" must be 1 to 64 letters, digits, _ . - to be part of a client id and of a policy",
        gateway.escape_debug()
    );
    let placeholder = ["REGION", "ACCOUNT", "GATEWAY"].into_iter().find(|word| gateway.contains(word));
    ensure!(
        placeholder.is_none(),
        "--gateway \"{gateway}\" contains {}, a placeholder of the policy; use lower case",
        placeholder.unwrap_or_default()
    );
    Ok(())
}

fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_policy_allows_this_gateway_and_not_one_whose_name_begins_like_it() {
        let text = policy("plant-7", &[]).unwrap();
        assert!(
            text.contains("client/plant-7\"") && text.contains("client/plant-7-*") && !text.contains("client/plant-7*"),
            "{text}"
        );
        assert!(text.contains("topic/dt/plant-7/*") && !text.contains("GATEWAY"), "{text}");
        for beyond_need in ["topic/*", "client/*", "iot:*"] {
            assert!(!text.contains(beyond_need), "{beyond_need}");
        }
    }

    #[test]
    fn with_another_broker_nothing_of_aws_is_made_or_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut args = CloudArgs {
            gateway: "plant-7".into(),
            profile: Signer::Mqtt,
            topics: vec![],
            force: false,
        };
        let mut out = Vec::new();
        run(&args, folder.path(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("openssl x509 -req") && text.contains("profile: mqtt") && text.contains("plant-7/canary"),
            "{text}"
        );
        assert!(!text.to_lowercase().contains("aws"), "{text}");
        assert!(folder.path().join(REQUEST).exists() && !folder.path().join(POLICY_FILE).exists());
        args.topics = vec!["dt/*".into()];
        args.force = true;
        let error = run(&args, folder.path(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("--profile mqtt"), "{error}");
    }

    #[test]
    fn own_topics_replace_the_default_ones() {
        let text = policy("plant-7", &["a/b/*".into()]).unwrap();
        assert!(text.contains("topic/a/b/*") && !text.contains("topic/devices"), "{text}");
        assert!(text.contains("topic/plant-7/canary\""), "the canary is allowed too: {text}");
        for bad in ["", "*", "/*", "a/#", "a/+/b", "a\"b", "${iot:ClientId}"] {
            policy("plant-7", &[bad.into()]).unwrap_err();
        }
    }

    #[test]
    fn a_gateway_id_that_would_widen_the_policy_is_refused() {
        for bad in ["", "plant*", "a/b", "a b", "REGION-1", "a\"", &"x".repeat(65)] {
            check_gateway(bad).unwrap_err();
        }
        check_gateway("plant-7.west_2").unwrap();
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(shell_word("certs/cloud.pem"), "certs/cloud.pem");
        assert_eq!(shell_word("my certs/it's.pem"), r"'my certs/it'\''s.pem'");
    }
}
