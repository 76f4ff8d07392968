//! Sections of the configuration: [`settings!`](crate::settings!) declares each key once, with its
//! type, default, bounds and description. Reading, checking and the reference
//! `docs/configuration.md` all follow from that.

use std::{
    fmt::Display,
    ops::{RangeFrom, RangeInclusive, RangeToInclusive},
};

/// One key of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    /// What changes when it is turned.
    pub about: String,
    /// The values that it may have; none if its type alone bounds them.
    pub bounds: Option<String>,
}

/// A section of the configuration.
pub trait Section {
    /// Its keys, in the order of the reference.
    fn keys() -> Vec<Key>;

    /// Values outside of their bounds, as (key, what is wrong and what would be right).
    fn faults(&self) -> Vec<(String, String)>;
}

/// The values that a key of type `T` may have.
pub trait Bounds<T> {
    /// What is wrong with a value.
    fn fault(&self, value: &T) -> Option<String>;

    /// The bounds, for the reference.
    fn text(&self) -> String;
}

impl<T: PartialOrd + Display> Bounds<T> for RangeInclusive<T> {
    fn fault(&self, value: &T) -> Option<String> {
        (!self.contains(value)).then(|| format!("{value} must be {}..{}", self.start(), self.end()))
    }

    fn text(&self) -> String {
        format!("{} to {}", self.start(), self.end())
    }
}

impl<T: PartialOrd + Display> Bounds<T> for RangeFrom<T> {
    fn fault(&self, value: &T) -> Option<String> {
        (!self.contains(value)).then(|| format!("{value} must be at least {}", self.start))
    }

    fn text(&self) -> String {
        format!("at least {}", self.start)
    }
}

impl<T: PartialOrd + Display> Bounds<T> for RangeToInclusive<T> {
    fn fault(&self, value: &T) -> Option<String> {
        (!self.contains(value)).then(|| format!("{value} must be at most {}", self.end))
    }

    fn text(&self) -> String {
        format!("at most {}", self.end)
    }
}

/// A rule for texts.
#[derive(Clone, Copy)]
pub struct Text {
    /// What the text must do or be, after the word "must".
    pub must: &'static str,
    pub holds: fn(&str) -> bool,
}

/// A text that is not empty.
pub const NOT_EMPTY: Text = Text { must: "not be empty", holds: |text| !text.is_empty() };
/// An HTTP address.
pub const HTTP_URL: Text = Text {
    must: "begin with http:// or https://",
    holds: |text| text.starts_with("http://") || text.starts_with("https://"),
};

impl Bounds<String> for Text {
    fn fault(&self, value: &String) -> Option<String> {
        (!(self.holds)(value)).then(|| format!("{:?} must {}", without_user(value), self.must))
    }

    fn text(&self) -> String {
        format!("must {}", self.must)
    }
}

impl Bounds<Option<String>> for Text {
    fn fault(&self, value: &Option<String>) -> Option<String> {
        value.as_ref().and_then(|value| self.fault(value))
    }

    fn text(&self) -> String {
        Bounds::<String>::text(self)
    }
}

impl Bounds<Vec<String>> for Text {
    fn fault(&self, value: &Vec<String>) -> Option<String> {
        value.iter().find_map(|value| self.fault(value))
    }

    fn text(&self) -> String {
        format!("each must {}", self.must)
    }
}

/// An address without what stands before its `@`, which may be a password.
fn without_user(text: &str) -> String {
    match text.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((_, rest)))) => format!("{scheme}://{rest}"),
        _ => text.to_owned(),
    }
}

/// The lines of a doc comment as one text.
pub fn about(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// Declares a section of the configuration: a struct whose keys can be read from a file, each with
/// a description, a type, a default and, after `in`, bounds ([`Bounds`]).
/// A section that is absent unless it is written has keys without defaults; those that are no
/// `Option` must then be given. The test of this module shows the form.
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $section:literal])*
        pub struct $name:ident {
            $($(#[doc = $about:literal])* $key:ident: $type:ty = $default:expr $(, in $bounds:expr)?;)*
        }
    ) => {
        $(#[doc = $section])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $about])* pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        $crate::settings!(@section $name { $($(#[doc = $about])* $key: $type $(, in $bounds)?;)* });
    };
    (
        $(#[doc = $section:literal])*
        pub struct $name:ident {
            $($(#[doc = $about:literal])* $key:ident: $type:ty $(, in $bounds:expr)?;)*
        }
    ) => {
        $(#[doc = $section])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $about])* pub $key: $type,)*
        }

        $crate::settings!(@section $name { $($(#[doc = $about])* $key: $type $(, in $bounds)?;)* });
    };
    (@section $name:ident {
        $($(#[doc = $about:literal])* $key:ident: $type:ty $(, in $bounds:expr)?;)*
    }) => {
        impl $crate::settings::Section for $name {
            fn keys() -> Vec<$crate::settings::Key> {
                #[allow(unused_mut, unused_assignments)]
                fn all() -> Vec<$crate::settings::Key> {
                    vec![$({
                        let mut bounds = None;
                        $(bounds = Some($crate::settings::Bounds::<$type>::text(&($bounds)));)?
                        let about = $crate::settings::about(&[$($about),*]);
                        $crate::settings::Key { name: stringify!($key), about, bounds }
                    },)*]
                }
                all()
            }

            fn faults(&self) -> Vec<(String, String)> {
                let found: Vec<Option<(String, String)>> = vec![$($(
                    $crate::settings::Bounds::<$type>::fault(&($bounds), &self.$key)
                        .map(|fault| (stringify!($key).to_owned(), fault)),
                )?)*];
                found.into_iter().flatten().collect()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    settings! {
        /// A section.
        pub struct Example {
            /// How far it is open,
            /// percent
            open_pct: f64 = 50.0, in 0.0..=100.0;
            /// Where it is
            url: Option<String> = None, in HTTP_URL;
            names: Vec<String> = vec!["a".to_owned()], in NOT_EMPTY;
            delay_s: u32 = 7, in ..=9;
            count: u32 = 7, in 1..;
            free: bool = true;
        }
    }

    #[test]
    fn a_section_knows_its_keys_defaults_and_bounds() {
        let keys = Example::keys();
        let texts: Vec<_> = keys.iter().map(|key| (key.name, key.bounds.as_deref().unwrap_or_default())).collect();
        assert_eq!(
            texts,
            [
                ("open_pct", "0 to 100"),
                ("url", "must begin with http:// or https://"),
                ("names", "each must not be empty"),
                ("delay_s", "at most 9"),
                ("count", "at least 1"),
                ("free", "")
            ]
        );
        assert_eq!(keys[0].about, "How far it is open, percent");
        assert!(Example::default().faults().is_empty());
        let read: Example =
            serde_json::from_str(r#"{"open_pct":101,"url":"ftp://me:hunter2@host/","count":0}"#).unwrap();
        let faults: Vec<_> = read.faults().into_iter().map(|(key, text)| format!("{key}: {text}")).collect();
        assert_eq!(
            faults,
            [
                "open_pct: 101 must be 0..100",
                "url: \"ftp://host/\" must begin with http:// or https://",
                "count: 0 must be at least 1"
            ]
        );
        assert!(serde_json::from_str::<Example>(r#"{"closed":1}"#).is_err());
    }
}
