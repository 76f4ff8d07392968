//! Compares two contents of one event.

use serde_json::Value;

/// Paths that differ, with both values, of two reports in JSON that hold one event each.
pub fn difference(left: &str, right: &str) -> String {
    let parse = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let mut differences = Vec::new();
    walk("", &parse(left), &parse(right), &mut differences);
    differences.join(", ")
}

fn walk(path: &str, left: &Value, right: &Value, differences: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (left, right) {
        _ if left == right => {}
        (Value::Object(left), Value::Object(right)) => {
            let more = right.keys().filter(|name| !left.contains_key(*name));
            for name in left.keys().chain(more) {
                let value = |object: &serde_json::Map<String, Value>| object.get(name).cloned().unwrap_or(Value::Null);
                walk(&below(name), &value(left), &value(right), differences);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                // A report here has one event, so its index is left out of the path.
                let path = if path == "events" { String::new() } else { below(&index.to_string()) };
                walk(&path, left, right, differences);
            }
        }
        _ => differences.push(format!("{path} {left} and {right}")),
    }
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn names_what_differs() {
        let left = r#"{"events":[{"injection":{"targetNl":"20","deliveredNl":"19"}}],"context":{"model":"a"}}"#;
        let right =
            r#"{"events":[{"injection":{"targetNl":"20","deliveredNl":"18","shot":1}}],"context":{"model":"a"}}"#;
        assert_eq!(difference(left, right), r#"injection.deliveredNl "19" and "18", injection.shot null and 1"#);
        assert_eq!(difference(left, left), "");
        assert!(difference("", left).starts_with(" null and"));
    }
}
