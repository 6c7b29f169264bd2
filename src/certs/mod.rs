//! `forebay certs`: the gateway's own small CA, its certificates, and what is wrong with the ones it has.
//!
//! * [`make`] creates the device CA, the server's certificate and the devices' (also for the demo and tests).
//! * [`cloud`] makes the key and the request for AWS IoT or another broker's CA, and prints the commands that turn it into a certificate.
//! * [`inspect`] reads a chain and lists what is wrong with it, for `show` and for `forebay check`.
//!
//! Keys are ECDSA P-256, mode 0600, written once: nothing is overwritten without `--force`, and a file is either old or new, never half.

mod cloud;
pub(crate) mod inspect;
pub(crate) mod make;
mod show;
mod store;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};

use make::{Made, Terms};

/// Make and examine certificates.
#[derive(Debug, Args)]
#[command(
    after_help = "A first set for a gateway and one device:\n  forebay certs ca\n  forebay certs server --name plant-7.local --name 192.168.10.2\n  \
                  forebay certs device board-1\n  forebay certs show certs/server.pem"
)]
pub(crate) struct CertsCommand {
    /// The folder the files are in
    #[arg(long, global = true, value_name = "FOLDER", default_value = "certs")]
    dir: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the CA that signs the server's and the devices' certificates
    #[command(
        after_help = "Writes devices-ca.pem (give it to every device) and devices-ca.key (keep it off the gateway if you can).\n\n\
                      Example:\n  forebay certs ca"
    )]
    Ca {
        #[command(flatten)]
        terms: TermArgs,
    },
    /// Make the gateway's certificate, for the names that devices dial
    #[command(
        after_help = "Writes server.pem and server.key. A device that dials an address needs that address among the names.\n\n\
                      Example:\n  forebay certs server --name plant-7.local --name 192.168.10.2"
    )]
    Server {
        /// A DNS name or an IP address that devices dial; repeat it for each
        #[arg(long = "name", value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        terms: TermArgs,
    },
    /// Make certificates for devices; the name becomes the identity
    #[command(
        after_help = "Writes NAME.pem and NAME.key for each. The name is the device's identity: one topic level, without / + #.\n\n\
                      Examples:\n  forebay certs device board-1\n  forebay certs device board-{1..20} --days 730"
    )]
    Device {
        /// The devices' names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        terms: TermArgs,
    },
    /// Make the key and the request for the cloud's certificate, and print the commands to run; contacts nobody
    #[command(
        after_help = "Writes cloud.key, cloud.csr and cloud-policy.json; the first printed commands yield cloud.pem. AWS does not know the gateway's CA, so AWS signs this certificate. With --profile mqtt the CA signs it that your broker trusts; there is no policy then.\n\nExamples:\n  forebay certs cloud --gateway plant-7\n  forebay certs cloud --gateway plant-7 --profile mqtt"
    )]
    Cloud(cloud::CloudArgs),
    /// Show certificates as a ladder from leaf to root, and the first thing wrong in plain words
    #[command(
        after_help = "Exit code 1 if anything is wrong. A key of the same name beside the file (server.key) is checked by itself.\n\nExamples:\n  \
                      forebay certs show certs/server.pem --ca certs/devices-ca.pem --names plant-7.local,192.168.10.2\n  \
                      forebay certs show certs/*.pem --json"
    )]
    Show(show::ShowArgs),
}

#[derive(Debug, Args)]
struct TermArgs {
    /// How long it is valid, in days from now [default: 20 years for the CA, else 5]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: Option<u32>,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

impl CertsCommand {
    /// Does it, printing to stdout.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        self.run_to(&mut std::io::stdout().lock(), forebay_wal::wall_clock())
    }

    fn run_to(&self, out: &mut dyn Write, now: SystemTime) -> anyhow::Result<ExitCode> {
        let folder = self.dir.as_path();
        match &self.action {
            Action::Ca { terms } => {
                let made = make::ca(folder, &terms.at(now))?;
                report(out, &[made])?;
                writeln!(out, "next: forebay certs server --name NAME-THAT-DEVICES-DIAL")?;
                if terms.force {
                    writeln!(
                        out,
                        "note: certificates of an earlier CA are refused from now on; certs/README.md says how to rotate without that"
                    )?;
                }
            }
            Action::Server { names, terms } => {
                let made = make::server(folder, names, &terms.at(now))?;
                report(out, &[made])?;
                writeln!(out, "for: {}", names.join(", "))?;
                writeln!(
                    out,
                    "next: list the same names under `names` of the listener; forebay certs device NAME"
                )?;
            }
            Action::Device { names, terms } => {
                report(out, &make::devices(folder, names, &terms.at(now))?)?;
                device_hint(out, folder, &names[0])?;
            }
            Action::Cloud(args) => cloud::run(args, folder, out)?,
            Action::Show(args) => return show::run(args, out, now),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl TermArgs {
    fn at(&self, now: SystemTime) -> Terms {
        Terms {
            days: self.days,
            force: self.force,
            ..Terms::from_now(now)
        }
    }
}

fn report(out: &mut dyn Write, made: &[Made]) -> std::io::Result<()> {
    for Made {
        certificate,
        key,
        not_after,
    } in made
    {
        writeln!(
            out,
            "wrote {} and {} (secret), valid until {}",
            certificate.display(),
            key.display(),
            not_after.date()
        )?;
    }
    Ok(())
}

fn device_hint(out: &mut dyn Write, folder: &Path, name: &str) -> std::io::Result<()> {
    let path = |file: &str| folder.join(file).display().to_string();
    writeln!(
        out,
        "try: mosquitto_pub -h GATEWAY -p 8883 --cafile {} --cert {} --key {} -q 1 -t devices/{name}/telemetry -m hello",
        path(make::CA_CERTIFICATE),
        path(&format!("{name}.pem")),
        path(&format!("{name}.key")),
    )
}
