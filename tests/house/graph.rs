//! Which places of a crate need which. A place is a folder of its `src`, or a file that stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::imports::{self, Imports};

/// The crate's front page: what it re-exports is found where it is defined.
const FRONT: &str = "lib";

#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// From a place to those it needs, with one example of each: the file and the path.
    arrows: BTreeMap<String, BTreeMap<String, String>>,
}

/// A source file: its module, from the crate on, and what it names.
struct Source {
    module: Vec<String>,
    imports: Imports,
}

/// Reads all sources of a crate.
pub(crate) fn of_crate(src: &Path) -> Graph {
    let mut sources = Vec::new();
    collect(src, &[], &mut sources);
    of_sources(&sources)
}

/// Reads the files of a folder and those in it, except modules for tests.
fn collect(folder: &Path, module: &[String], sources: &mut Vec<Source>) {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let below = |name: &str| [module, &[name.to_owned()]].concat();
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let is_source = |path: &Path| path.extension().is_some_and(|end| end == "rs");
    let mut found = Vec::new();
    for path in paths.iter().filter(|path| is_source(path)) {
        let module = match stem(path).as_str() {
            "lib" | "main" | "mod" => module.to_vec(),
            name => below(name),
        };
        let imports = imports::read(&fs::read_to_string(path).unwrap());
        found.push(Source { module, imports });
    }
    for path in paths.iter().filter(|path| path.is_dir()) {
        collect(path, &below(&stem(path)), &mut found);
    }
    let tests: Vec<Vec<String>> = found
        .iter()
        .flat_map(|source| {
            source
                .imports
                .test_modules
                .iter()
                .map(|name| [source.module.as_slice(), std::slice::from_ref(name)].concat())
        })
        .collect();
    found.retain(|source| !tests.iter().any(|test| source.module.starts_with(test)));
    sources.append(&mut found);
}

fn of_sources(sources: &[Source]) -> Graph {
    let places: BTreeSet<&String> = sources.iter().filter_map(|source| source.module.first()).collect();
    let front = sources.iter().find(|source| source.module.is_empty());
    // What the front page re-exports, and from where.
    let mut exports: BTreeMap<&String, &String> = BTreeMap::new();
    for path in front.iter().flat_map(|front| &front.imports.paths) {
        let path = if path[0] == "self" || path[0] == "crate" {
            &path[1..]
        } else {
            path
        };
        if let [place, .., name] = path
            && places.contains(place)
        {
            exports.insert(name, place);
        }
    }
    let mut graph = Graph::default();
    for source in sources {
        let from = source.module.first().map_or(FRONT, String::as_str);
        for path in &source.imports.paths {
            let Some(target) = resolve(&source.module, path) else {
                continue;
            };
            let to = match target.first() {
                Some(first) if places.contains(first) => first.as_str(),
                Some(first) => exports.get(first).map_or(FRONT, |place| place.as_str()),
                None => continue,
            };
            if from != to {
                let example = format!("{} names {}", source.module.join("::"), path.join("::"));
                graph
                    .arrows
                    .entry(from.to_owned())
                    .or_default()
                    .entry(to.to_owned())
                    .or_insert(example);
            }
        }
    }
    graph
}

/// A path from the crate on; `None` if it is another crate's or within the module.
fn resolve(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut base = match path[0].as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.to_vec(),
        _ if module.is_empty() => return Some(path.to_vec()),
        _ => return None,
    };
    for segment in path {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => drop(base.pop()),
            name => base.push(name.to_owned()),
        }
    }
    Some(base)
}

impl Graph {
    /// Sets of places of which each needs each other, by way of others or not.
    pub(crate) fn knots(&self) -> BTreeSet<BTreeSet<String>> {
        let reached: BTreeMap<&String, BTreeSet<&String>> = self.arrows.keys().map(|place| (place, self.reached(place))).collect();
        let is_there_and_back =
            |one: &String, other: &String| reached[one].contains(other) && reached.get(other).is_some_and(|back| back.contains(one));
        let knots = reached.keys().filter(|place| reached[**place].contains(*place));
        knots
            .map(|place| {
                reached[*place]
                    .iter()
                    .filter(|other| is_there_and_back(place, other))
                    .map(|other| (*other).clone())
                    .collect()
            })
            .collect()
    }

    /// The arrows among some places, each with an example.
    pub(crate) fn arrows_within(&self, places: &BTreeSet<String>) -> Vec<String> {
        let within = self.arrows.iter().filter(|(from, _)| places.contains(*from));
        within
            .flat_map(|(from, to)| {
                let to = to.iter().filter(|(to, _)| places.contains(*to));
                to.map(move |(to, example)| format!("  {from} -> {to}: {example}"))
            })
            .collect()
    }

    /// All that a place needs in the end.
    fn reached<'a>(&'a self, place: &'a String) -> BTreeSet<&'a String> {
        let mut reached = BTreeSet::new();
        let mut next = vec![place];
        while let Some(place) = next.pop() {
            for to in self.arrows.get(place).into_iter().flat_map(BTreeMap::keys) {
                if reached.insert(to) {
                    next.push(to);
                }
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, of_sources};
    use crate::imports;

    fn source(module: &str, text: &str) -> Source {
        Source {
            module: module.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            imports: imports::read(text),
        }
    }

    fn knots(sources: &[(&str, &str)]) -> Vec<Vec<String>> {
        let sources: Vec<Source> = sources.iter().map(|(module, text)| source(module, text)).collect();
        of_sources(&sources)
            .knots()
            .into_iter()
            .map(|knot| knot.into_iter().collect())
            .collect()
    }

    #[test]
    fn a_circle_over_three_folders_is_found() {
        let sources = [
            ("a::x", "use crate::b::y::Y;"),
            ("b::y", "use super::super::c::z;"),
            ("c", "fn f() { crate::a::x::g() }"),
            ("d", "use crate::a;"),
        ];
        assert_eq!(knots(&sources), [["a", "b", "c"]]);
    }

    #[test]
    fn a_circle_within_a_folder_is_its_own_business() {
        assert!(knots(&[("a::x", "use super::y::Y;"), ("a::y", "use crate::a::x::X;")]).is_empty());
    }

    #[test]
    fn what_the_front_page_re_exports_is_needed_from_where_it_is_defined() {
        let sources = [
            ("", "mod a; mod b; pub use a::A;"),
            ("a", "use crate::b::B;"),
            ("b", "use crate::A;"),
        ];
        assert_eq!(knots(&sources), [["a", "b"]]);
    }
}
