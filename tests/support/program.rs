//! Programs that we did not write and some tests need: Debian's Mosquitto, libfaketime, mount.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::DEADLINE;

/// A program's path; the test fails if the machine does not have it.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = path
        .split(':')
        .map(|folder| PathBuf::from(folder).join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("this test needs `{name}`: apt-get install -y {package}"))
}

/// Runs a program to its end.
pub async fn run(program: &PathBuf, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(DEADLINE, command.output())
        .await
        .unwrap_or_else(|_| panic!("{program:?} {arguments:?} did not end"))
        .unwrap()
}

/// A program that goes on; killed when dropped.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The lines read so far.
    pub said: Vec<String>,
}

impl Running {
    /// Starts it; what it says on stdout is read, stderr is the test's.
    pub fn start(program: &PathBuf, arguments: &[&str]) -> Self {
        // A line is said when it is complete, not when a buffer is full.
        let mut command = Command::new("stdbuf");
        let mut child = command
            .arg("-oL")
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            lines,
            said: Vec::new(),
        }
    }

    /// Reads on until the lines said so far fulfil a condition.
    pub async fn says(&mut self, what: &str, condition: impl Fn(&[String]) -> bool) {
        let reading = async {
            while !condition(&self.said) {
                match self.lines.next_line().await.unwrap() {
                    Some(line) => self.said.push(line),
                    None => return false,
                }
            }
            true
        };
        let ended = tokio::time::timeout(DEADLINE, reading).await;
        assert!(
            matches!(ended, Ok(true)),
            "{what} did not come ({ended:?}); it said {} lines, the last {:?}",
            self.said.len(),
            self.said.iter().rev().take(5).collect::<Vec<_>>()
        );
    }

    /// Ends it.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}
