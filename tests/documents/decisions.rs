//! Each decision has its status and date, and a row in the index.

use super::tree::{files, read};

#[test]
fn each_decision_has_a_status_and_a_date_and_stands_in_the_index() {
    let index = read("docs/decisions/README.md");
    let rows = index.lines().filter(|line| line.starts_with("| [")).count();
    let mut decisions = 0;
    for path in files("docs/decisions", &[".md"]) {
        let file = path.trim_start_matches("docs/decisions/").to_owned();
        if file == "README.md" {
            continue;
        }
        decisions += 1;
        let text = read(&path);
        let mut lines = text.lines();
        let title = lines.next().and_then(|line| line.strip_prefix("# "));
        let title = title.unwrap_or_else(|| panic!("{file} does not begin with a title"));
        assert_eq!(
            title.get(..6),
            Some(format!("{}: ", &file[..4]).as_str()),
            "{file}: number of the title"
        );
        let mut field = |name: &str| {
            let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
            let value = line.strip_prefix(&format!("- {name}: "));
            value
                .unwrap_or_else(|| panic!("{file}: `- {name}: ` is missing under the title"))
                .to_owned()
        };
        let (status, date) = (field("Status"), field("Date"));
        let known = ["accepted", "superseded by ", "withdrawn"];
        assert!(known.iter().any(|word| status.starts_with(word)), "{file}: status `{status}`");
        let format = time::macros::format_description!("[year]-[month]-[day]");
        assert!(time::Date::parse(&date, &format).is_ok(), "{file}: date `{date}`");
        let row = format!("| [{title}]({file}) | {status} | {date} |");
        assert!(index.contains(&row), "docs/decisions/README.md lacks the row\n{row}");
    }
    assert_eq!(rows, decisions, "docs/decisions/README.md has rows of files that do not exist");
}
