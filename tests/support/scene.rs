//! One builder for the configurations of the end-to-end tests. What a test does not say is as here: one listener on a free
//! port of loopback that takes any client id, no space kept free, and, with a cloud, one stream and one route to it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::gateway::Gateway;
use super::plant::Plant;

/// The configuration of a gateway under test. Values are YAML.
#[derive(Clone)]
pub struct Scene {
    sections: Vec<(&'static str, Vec<(&'static str, String)>)>,
    listeners: Vec<String>,
    streams: Vec<String>,
    routes: Vec<String>,
    cloud: bool,
    more: String,
}

impl Scene {
    /// A gateway of this id.
    pub fn new(id: &str) -> Self {
        let scene = Self {
            sections: Vec::new(),
            listeners: Vec::new(),
            streams: Vec::new(),
            routes: Vec::new(),
            cloud: false,
            more: String::new(),
        };
        scene
            .set("gateway", "id", id)
            .set("gateway", "max_disk", "256MiB")
            .set("gateway", "keep_free", "0B")
            .set("admin", "bind", "\"127.0.0.1:0\"")
    }

    /// Sets a key of a section, in place of what it was.
    pub fn set(mut self, section: &'static str, key: &'static str, value: impl ToString) -> Self {
        if !self.sections.iter().any(|(name, _)| *name == section) {
            self.sections.push((section, Vec::new()));
        }
        let keys = self.sections.iter_mut().find(|(name, _)| *name == section);
        let (_, keys) = keys.unwrap();
        keys.retain(|(name, _)| *name != key);
        keys.push((key, value.to_string()));
        self
    }

    /// One more listener on a free port; these keys beside `bind`.
    pub fn listener(mut self, keys: &str) -> Self {
        self.listeners.push(format!("bind: \"127.0.0.1:0\", {keys}"));
        self
    }

    /// One more listener, with TLS and the identity from a device's certificate.
    pub fn tls_listener(self, plant: &Plant) -> Self {
        self.listener(&format!("names: [localhost], tls: {}, identity: \"{{cn}}\"", plant.listener_tls()))
    }

    /// One more stream; the first takes the place of the usual one.
    pub fn stream(mut self, keys: &str) -> Self {
        self.streams.push(keys.to_owned());
        self
    }

    /// One more route; the first takes the place of the usual one.
    pub fn route(mut self, keys: &str) -> Self {
        self.routes.push(keys.to_owned());
        self
    }

    /// A cloud without TLS on this machine.
    pub fn cloud(self, address: SocketAddr) -> Self {
        self.cloud_on(address.port())
    }

    /// As [`Scene::cloud`], by its port alone.
    pub fn cloud_on(mut self, port: u16) -> Self {
        self.cloud = true;
        self.set("cloud", "profile", "mqtt")
            .set("cloud", "endpoint", "127.0.0.1")
            .set("cloud", "port", port)
    }

    /// Further lines of the file.
    pub fn more(mut self, lines: &str) -> Self {
        self.more += lines;
        self
    }

    /// The file's text.
    pub fn config(&self) -> String {
        let usual = |given: &[String], usual: &str| match given {
            [] if self.cloud => vec![usual.to_owned()],
            given => given.to_vec(),
        };
        let listeners = match self.listeners.as_slice() {
            [] => vec!["bind: \"127.0.0.1:0\", identity: \"{client_id}\"".to_owned()],
            listeners => listeners.to_vec(),
        };
        let mut text = String::new();
        for (section, keys) in &self.sections {
            let keys: Vec<_> = keys.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            writeln!(text, "{section}: {{{}}}", keys.join(", ")).unwrap();
        }
        for (section, items) in [
            ("listeners", listeners),
            (
                "streams",
                usual(&self.streams, "name: telemetry, max_bytes: 128MiB, when_full: refuse"),
            ),
            (
                "routes",
                usual(
                    &self.routes,
                    "from: \"devices/+/telemetry\", to: \"dt/{device}\", stream: telemetry",
                ),
            ),
        ] {
            if !items.is_empty() {
                writeln!(text, "{section}:").unwrap();
                items.iter().for_each(|item| writeln!(text, "  - {{{item}}}").unwrap());
            }
        }
        text + &self.more
    }

    /// The gateway in a folder of its own, not started.
    pub fn gateway(&self) -> Gateway {
        Gateway::new(&self.config())
    }
}
