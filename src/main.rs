//! Forebay: an edge gateway for IoT devices that never acks what it could lose.
#![forbid(unsafe_code)]

mod admin;
mod canary;
mod certs;
mod check;
mod cli;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod gateway;
mod log;
mod logging;
mod screen;
mod self_check;
mod telemetry;
mod traces;
mod watch;

fn main() -> std::process::ExitCode {
    cli::main()
}
