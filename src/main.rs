//! Forebay: an edge gateway for IoT devices that never acks what it could lose.
#![forbid(unsafe_code)]

mod admin;
mod certs;
mod check;
mod cli;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod gateway;
mod http;
mod inspect;
mod json;
mod logging;
mod monitor;
mod telemetry;
mod traces;
mod words;

fn main() -> std::process::ExitCode {
    cli::main()
}
