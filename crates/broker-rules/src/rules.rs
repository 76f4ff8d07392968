//! Which subscriptions the ACL file grants.

use std::collections::HashMap;

/// Prefix of a shared subscription, `$share/GROUP/FILTER`.
const SHARED: &str = "$share/";
/// What `pattern` lines write for the name of the user.
const USER: &str = "%u";

/// What users may read, from the file that the broker's `acl_file` names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The filters of `pattern` lines, for every device, in two parts around the user name.
    patterns: Vec<(String, String)>,
    /// The filters of `topic` lines by user.
    topics: HashMap<String, Vec<String>>,
}

impl Rules {
    /// Reads an ACL file in Mosquitto's form. Lines that allow only writing are left out.
    ///
    /// # Errors
    /// Line and fault of the first line that has no meaning here.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Self::default();
        let mut user = None;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fault = |text: &str| format!("line {}: {text}: {line:?}", index + 1);
            match line.split_once(' ') {
                Some(("user", name)) => user = Some(name.trim().to_owned()),
                Some(("topic", rest)) => {
                    let user = user.clone().ok_or_else(|| fault("a topic line must follow a user line"))?;
                    let filter = readable(rest).map_err(|text| fault(&text))?;
                    rules.topics.entry(user).or_default().extend(filter.map(str::to_owned));
                }
                Some(("pattern", rest)) => {
                    let Some(filter) = readable(rest).map_err(|text| fault(&text))? else { continue };
                    let (before, after) = filter.split_once(USER).ok_or_else(|| fault("a pattern needs %u"))?;
                    rules.patterns.push((before.to_owned(), after.to_owned()));
                }
                _ => return Err(fault("a line must begin with user, topic or pattern")),
            }
        }
        Ok(rules)
    }

    /// Whether a user may subscribe to a filter. It must be written as in the file: a wildcard that
    /// matches a readable topic is not enough. Devices and gateways, whose names have slashes, may
    /// not share a subscription: a member of a group takes its part of the messages from the
    /// others.
    pub fn grants(&self, user: &str, filter: &str) -> bool {
        let filter = match filter.strip_prefix(SHARED) {
            Some(_) if user.contains('/') => return false,
            Some(shared) => shared.split_once('/').map_or("", |(_, filter)| filter),
            None => filter,
        };
        self.topics.get(user).is_some_and(|filters| filters.iter().any(|known| known == filter))
            || is_device(user) && self.patterns.iter().any(|(before, after)| is_between(filter, before, user, after))
    }
}

/// The filter of a line behind `topic` or `pattern`, if it may be read.
fn readable(line: &str) -> Result<Option<&str>, String> {
    let (access, filter) = line.trim().split_once(' ').unwrap_or(("readwrite", line));
    let filter = filter.trim();
    match access {
        "read" | "readwrite" if !filter.is_empty() => Ok(Some(filter)),
        "write" => Ok(None),
        _ => Err("the access must be read, write or readwrite".to_owned()),
    }
}

/// Whether a name has the form `TENANT/SITE/DEVICE`. A name with a wildcard has not.
fn is_device(user: &str) -> bool {
    let is_id = |id: &str| {
        let mut bytes = id.bytes();
        bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    user.split('/').count() == 3 && user.split('/').all(is_id)
}

fn is_between(filter: &str, before: &str, user: &str, after: &str) -> bool {
    let middle = filter.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    middle.is_some_and(|middle| middle == user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = "\nuser acme/berlin-1/G-1\ntopic write doseline/v1/acme/berlin-1/D-7/report\n\
                           topic read doseline/v1/acme/berlin-1/D-7/receipt\n";

    fn deployed() -> Rules {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/mosquitto/acl");
        Rules::parse(&(std::fs::read_to_string(file).unwrap() + GATEWAY)).unwrap()
    }

    #[test]
    fn a_device_subscribes_to_its_own_receipts_and_to_nothing_else() {
        let rules = deployed();
        let device = "acme/berlin-1/D-1";
        for own in ["receipt", "receipt/json"] {
            assert!(rules.grants(device, &format!("doseline/v1/acme/berlin-1/D-1/{own}")));
        }
        for other in [
            "#",
            "+/#",
            "$SYS/#",
            "doseline/v1/#",
            "doseline/v1/acme/berlin-1/D-1/#",
            "doseline/v1/acme/berlin-1/D-1/+",
            "doseline/v1/acme/berlin-1/+/receipt",
            "doseline/v1/+/+/+/report",
            "doseline/v1/acme/berlin-1/D-1/report",
            "doseline/v1/acme/berlin-1/D-1/status",
            "doseline/v1/acme/berlin-1/D-2/receipt",
            "doseline/v1/acme/berlin-2/D-1/receipt",
            "doseline/v1/beta/berlin-1/D-1/receipt",
            "doseline/v1/acme/berlin-1/D-1/receipt/",
            "doseline/v1/",
            "$share/doseline/doseline/v1/+/+/+/report",
            "$share/x/doseline/v1/acme/berlin-1/D-1/receipt",
            "$share/x",
            "",
        ] {
            assert!(!rules.grants(device, other), "{other}");
        }
    }

    #[test]
    fn a_gateway_also_subscribes_to_receipts_of_its_devices() {
        let rules = deployed();
        let gateway = "acme/berlin-1/G-1";
        assert!(rules.grants(gateway, "doseline/v1/acme/berlin-1/G-1/receipt"));
        assert!(rules.grants(gateway, "doseline/v1/acme/berlin-1/D-7/receipt"));
        assert!(!rules.grants(gateway, "doseline/v1/acme/berlin-1/D-7/report"));
        assert!(!rules.grants(gateway, "doseline/v1/acme/berlin-1/D-1/receipt"));
    }

    #[test]
    fn the_bridge_reads_what_devices_send_alone_or_shared() {
        let rules = deployed();
        for filter in ["doseline/v1/+/+/+/report", "doseline/v1/+/+/+/report/json", "doseline/v1/+/+/+/status"] {
            assert!(rules.grants("doseline-bridge", filter));
            assert!(rules.grants("doseline-bridge", &format!("$share/any/{filter}")));
            assert!(!rules.grants("doseline-other", filter));
        }
        for filter in ["#", "doseline/v1/+/+/+/receipt", "$share/any/#", "$share/any"] {
            assert!(!rules.grants("doseline-bridge", filter), "{filter}");
        }
    }

    #[test]
    fn a_name_with_a_wildcard_is_no_device() {
        let rules = deployed();
        for name in ["acme/+/D-1", "acme/#/D-1", "+/+/+", "acme/berlin-1", "acme/berlin-1/", "a/b/c/d", "a/-b/c", ""] {
            assert!(!rules.grants(name, &format!("doseline/v1/{name}/receipt")), "{name}");
        }
    }

    #[test]
    fn a_line_that_it_does_not_know_is_named() {
        for (text, expected) in [
            ("topic read a", "line 1: a topic line must follow a user line: \"topic read a\""),
            ("user a\n\ntopic deny b", "line 3: the access must be read, write or readwrite"),
            ("pattern read a/%c", "line 1: a pattern needs %u"),
            ("# a\nuse a", "line 2: a line must begin with user, topic or pattern"),
        ] {
            let fault = Rules::parse(text).unwrap_err();
            assert!(fault.starts_with(expected), "{fault}");
        }
        let both = Rules::parse("user a\ntopic b/c\ntopic readwrite d e\n").unwrap();
        assert!(both.grants("a", "b/c") && both.grants("a", "d e") && !both.grants("a", "e"));
    }
}
