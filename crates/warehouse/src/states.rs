//! States as tables and messages spell them.
//!
//! Each type is stored and sent as text. The texts are public and never change.
//!
//! The state of a verdict or an alert must be known: only the monitor writes it. A fact may carry a
//! value that this version does not know, since a device may be newer than the server; it is read
//! as `Other`.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};

/// Reads a text as a state of one type.
struct Text<T> {
    read: fn(&str) -> Option<T>,
    /// The type, as an error names it.
    name: &'static str,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a {} as text", self.name)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| {
            E::custom(format!(
                "{} {text:?} is not known to this version; a newer version may have written it",
                self.name
            ))
        })
    }
}

macro_rules! states {
    ($(
        $(#[$about:meta])*
        $name:ident $(or $other:ident)? { $($(#[$note:meta])* $variant:ident = $text:literal,)+ }
    )+) => {
        $(
            $(#[$about])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
            #[allow(missing_docs, reason = "a variant without a comment means what its name says")]
            pub enum $name { $($(#[$note])* $variant,)+ }

            impl $name {
                /// Its text in tables and messages.
                pub const fn as_str(self) -> &'static str {
                    match self { $(Self::$variant => $text,)+ }
                }

                fn read(text: &str) -> Option<Self> {
                    let known = match text { $($text => Some(Self::$variant),)+ _ => None };
                    $(let known = known.or(Some(Self::$other));)?
                    known
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                    formatter.pad(self.as_str())
                }
            }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str(self.as_str())
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    deserializer.deserialize_string(Text { read: Self::read, name: stringify!($name) })
                }
            }
        )+

        /// What every text of every type is read as, and written as again.
        #[cfg(test)]
        const ROUND_TRIPS: &[fn() -> Vec<(&'static str, Option<&'static str>)>] = &[
            $(|| vec![$(($text, $name::read($text).map($name::as_str)),)+],)+
        ];
    };
}

states! {
    /// How urgent a finding is; the greatest is last.
    Severity or Unrated {
        /// The verdict on a cycle has no severity.
        #[default]
        Unrated = "",
        Low = "low",
        Medium = "medium",
        High = "high",
        /// Latched: see [`AlertState`].
        Critical = "critical",
    }

    /// State of a row of `sterility_verdicts`.
    VerdictState {
        Confirmed = "CONFIRMED",
        /// The facts can neither show nor exclude it. Also of a cycle.
        Indeterminate = "INDETERMINATE",
        /// A fact is awaited. Also of a cycle.
        #[default]
        Pending = "PENDING",
        /// It held once; later data says otherwise.
        Cleared = "CLEARED",
        /// Of a cycle.
        Passed = "PASSED",
        /// Of a cycle.
        Failed = "FAILED",
    }

    /// Outcome of a sterilization cycle.
    Outcome {
        /// The cycle met every requirement.
        Passed = "PASSED",
        /// The cycle missed a requirement.
        Failed = "FAILED",
        /// The facts cannot decide it, and more facts of this cycle are not expected.
        Indeterminate = "INDETERMINATE",
        /// Some of its facts have not arrived.
        #[default]
        Pending = "PENDING",
    }

    /// State of an alert. A critical alert stays open until a person has acknowledged it.
    AlertState {
        #[default]
        Open = "OPEN",
        Cleared = "CLEARED",
    }

    /// What happened to an alert.
    AlertChange {
        #[default]
        Raised = "RAISED",
        Changed = "CHANGED",
        /// The condition of a critical alert holds no longer; the alert stays open.
        Retracted = "RETRACTED",
        Cleared = "CLEARED",
        /// A person acknowledged it.
        Acknowledged = "ACKNOWLEDGED",
    }

    /// What a target was sent about an alert.
    DeliveryStatus {
        #[default]
        Firing = "firing",
        Resolved = "resolved",
    }

    /// State of a row of `accuracy_verdicts`.
    ToleranceState {
        Pass = "PASS",
        Fail = "FAIL",
        #[default]
        Undecided = "UNDECIDED",
        Cleared = "CLEARED",
    }

    /// State of a row of `drift`.
    ChartState {
        /// Too few sessions to estimate centre and scale.
        #[default]
        Learning = "LEARNING",
        InControl = "IN_CONTROL",
        Drift = "DRIFT",
        Cleared = "CLEARED",
    }

    /// Direction of a drift.
    Side {
        #[default]
        None = "",
        Upper = "UPPER",
        Lower = "LOWER",
    }

    /// What a chart forecasts.
    Forecast {
        #[default]
        None = "",
        /// No tolerance is registered.
        NoTolerance = "NO_TOLERANCE",
        /// The trend leaves the tolerance.
        Crossing = "CROSSING",
        /// There is no significant trend.
        NoSlope = "NO_SLOPE",
        /// Too few sessions since the drift began.
        TooShort = "TOO_SHORT",
        /// The chart shows no drift.
        NotSignalled = "NOT_SIGNALLED",
    }

    /// What a device controls.
    Channel {
        #[default]
        Dose = "DOSE",
        Depth = "DEPTH",
    }

    /// Where an item is mounted.
    Slot or Other {
        #[default]
        Unknown = "",
        Cartridge = "CARTRIDGE",
        Handpiece = "HANDPIECE",
        Needle = "NEEDLE",
        Syringe = "SYRINGE",
        Tubing = "TUBING",
        Other = "OTHER",
    }

    /// What an item id identifies.
    IdKind or Other {
        #[default]
        Unknown = "",
        LotOnly = "LOT_ONLY",
        None = "NONE",
        Serial = "SERIAL",
        Other = "OTHER",
    }

    /// What a cycle was for.
    Purpose or Other {
        #[default]
        Unknown = "",
        /// A biological indicator.
        Biological = "BI",
        BowieDick = "BOWIE_DICK",
        Leak = "LEAK",
        Load = "LOAD",
        Other = "OTHER",
    }

    /// Kind of an indicator.
    IndicatorKind or Other {
        #[default]
        Unknown = "",
        Biological = "BIOLOGICAL",
        BowieDick = "BOWIE_DICK",
        Chemical = "CHEMICAL",
        Other = "OTHER",
    }

    /// Reading of an indicator.
    IndicatorResult or Other {
        #[default]
        Unknown = "",
        /// It could not be read.
        Invalid = "INVALID",
        Negative = "NEGATIVE",
        Positive = "POSITIVE",
        Other = "OTHER",
    }

    /// Decision on a load. Of two at the same time the greater one counts.
    Decision or Other {
        #[default]
        None = "",
        Rejected = "REJECTED",
        Released = "RELEASED",
        Other = "OTHER",
    }

    /// Water that an item was rinsed with.
    RinseWater or Other {
        #[default]
        Unknown = "",
        Demineralised = "DEMINERALISED",
        Sterile = "STERILE",
        Tap = "TAP",
        Other = "OTHER",
    }
}

impl Severity {
    /// The next lower severity.
    pub const fn lower(self) -> Self {
        match self {
            Self::Critical => Self::High,
            Self::High => Self::Medium,
            Self::Medium | Self::Low | Self::Unrated => Self::Low,
        }
    }
}

impl From<Outcome> for VerdictState {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Passed => Self::Passed,
            Outcome::Failed => Self::Failed,
            Outcome::Indeterminate => Self::Indeterminate,
            Outcome::Pending => Self::Pending,
        }
    }
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 2] = [Self::Dose, Self::Depth];

    /// Its name in keys, columns and titles.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dose => "dose",
            Self::Depth => "depth",
        }
    }

    /// Unit of its values.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Dose => "nl",
            Self::Depth => "um",
        }
    }
}

impl Slot {
    /// The item that is mounted there, in words.
    pub const fn item(self) -> &'static str {
        match self {
            Self::Needle => "needle",
            Self::Syringe => "syringe",
            Self::Handpiece => "handpiece",
            Self::Cartridge => "cartridge",
            Self::Tubing => "tubing",
            Self::Unknown | Self::Other => "item",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_read_as_itself() {
        for (text, read) in ROUND_TRIPS.iter().flat_map(|texts| texts()) {
            assert_eq!(read, Some(text));
        }
        assert_eq!(serde_json::to_string(&ChartState::InControl).unwrap(), "\"IN_CONTROL\"");
        assert_eq!(serde_json::from_str::<Side>("\"\"").unwrap(), Side::None);
    }

    #[test]
    fn an_unknown_value_of_a_fact_is_another_and_an_unknown_state_is_an_error() {
        assert_eq!(serde_json::from_str::<Purpose>("\"9\"").unwrap(), Purpose::Other);
        assert_eq!(serde_json::from_str::<Severity>("\"fatal\"").unwrap(), Severity::Unrated);
        let error = serde_json::from_str::<AlertState>("\"SNOOZED\"").unwrap_err().to_string();
        assert!(error.starts_with("AlertState \"SNOOZED\" is not known to this version"), "{error}");
    }

    #[test]
    fn severities_are_ordered() {
        let ascending = [Severity::Unrated, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
        assert!(ascending.is_sorted());
        assert_eq!(ascending.map(Severity::lower).map(Severity::as_str), ["low", "low", "low", "medium", "high"]);
    }
}
