//! Application identifiers (GS1 General Specifications, section 3) for identification, dates,
//! measures, references and health care. Transport (43nn), coupons and payment slips are not
//! supported.

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Digits: least and greatest number.
    Digits(usize, usize),
    /// Characters of GS1's set 82: least and greatest number.
    Text(usize, usize),
    /// Six digits, YYMMDD; day 00 stands for the last one of the month.
    Date,
    /// Six digits, YYMMDD with a day that exists, then two-digit parts of a time (hour, minute,
    /// second): at least the first number of them, at most the second.
    Time(usize, usize),
    /// One such date, or the first and the last one of a range.
    Dates,
    /// A key whose last digit is a check digit, followed by up to `tail` characters.
    Keyed {
        /// Number of digits of the key, check digit included.
        key: usize,
        /// Greatest number of characters after the key.
        tail: usize,
    },
}

impl Form {
    /// The length, if all values have the same.
    pub(super) fn fixed_length(self) -> Option<usize> {
        match self {
            Self::Digits(least, most) | Self::Text(least, most) => (least == most).then_some(least),
            Self::Date => Some(6),
            Self::Time(least, most) => (least == most).then_some(6 + 2 * least),
            Self::Dates => None,
            Self::Keyed { key, tail } => (tail == 0).then_some(key),
        }
    }

    /// Checks a value. The error text says what would be right.
    pub(super) fn check(self, value: &str) -> Result<(), String> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::Date | Self::Time(..) | Self::Dates => self.check_dates(value),
            Self::Digits(least, most) if (least..=most).contains(&value.len()) && digits(value) => Ok(()),
            Self::Digits(least, most) => Err(format!("{} digits", range(least, most))),
            Self::Text(least, most) => text(value, least, most),
            Self::Keyed { key, tail: 0 } if value.len() == key && digits(value) => Ok(()),
            Self::Keyed { key, tail: 0 } => Err(format!("{key} digits")),
            Self::Keyed { key, tail } => match value.get(..key) {
                Some(head) if digits(head) => text(&value[key..], 0, tail),
                _ => Err(format!("{key} digits and up to {tail} characters")),
            },
        }
    }
}

impl Form {
    /// What a value of a date must be.
    pub(super) fn right(self) -> String {
        let time = |parts: usize| ["", "HH", "HHMM", "HHMMSS"].get(parts).copied().unwrap_or_default();
        match self {
            Self::Time(least, most) => {
                let forms: Vec<_> = (least..=most)
                    .filter(|parts| (least, most, *parts) != (0, 2, 1))
                    .map(|parts| format!("YYMMDD{}", time(parts)))
                    .collect();
                format!("a date and a time that exist, {}", forms.join(" or "))
            }
            Self::Dates => "a date that exists, YYMMDD, or a range of two, the earlier one first".into(),
            _ => "a date, YYMMDD".into(),
        }
    }

    fn check_dates(self, value: &str) -> Result<(), String> {
        let fits = match self {
            // A test-by date has no time or hour and minute.
            Self::Time(0, 2) => matches!(value.len(), 6 | 10),
            Self::Time(least, most) => (least..=most).any(|parts| value.len() == 6 + 2 * parts),
            Self::Dates => matches!(value.len(), 6 | 12),
            _ => value.len() == 6,
        };
        if fits && value.bytes().all(|byte| byte.is_ascii_digit()) { Ok(()) } else { Err(self.right()) }
    }
}

fn range(least: usize, most: usize) -> String {
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}

fn text(value: &str, least: usize, most: usize) -> Result<(), String> {
    let allowed = |char: char| char.is_ascii_alphanumeric() || "!\"%&'()*+,-./_:;<=>?".contains(char);
    if let Some(other) = value.chars().find(|char| !allowed(*char)) {
        return Err(format!("without {other:?}, which GS1 does not allow in a value"));
    }
    if (least..=most).contains(&value.len()) { Ok(()) } else { Err(format!("{} characters", range(least, most))) }
}

/// One row of the table.
#[derive(Debug)]
pub(super) struct Identifier {
    /// Digits of the identifier; `n` stands for any digit.
    pattern: &'static str,
    /// Data title in the GS1 specification.
    pub(super) title: &'static str,
    /// Form of its value.
    pub(super) form: Form,
}

impl Identifier {
    /// The identifier with exactly these digits.
    pub(super) fn exactly(ai: &str) -> Option<&'static Self> {
        let digit = |byte: u8| byte.is_ascii_digit();
        TABLE.iter().find(|row| {
            row.pattern.len() == ai.len()
                && row
                    .pattern
                    .bytes()
                    .zip(ai.bytes())
                    .all(|(mine, theirs)| mine == theirs || mine == b'n' && digit(theirs))
        })
    }

    /// Whether the first two digits fix the length, so that no FNC1 follows.
    pub(super) fn predefined(&self, ai: &str) -> bool {
        matches!(ai.get(..2), Some("00" | "01" | "02" | "03" | "04" | "31" | "32" | "33" | "34" | "35" | "36" | "41"))
            || matches!(ai, "11" | "12" | "13" | "14" | "15" | "16" | "17" | "18" | "19" | "20")
    }
}

const fn row(pattern: &'static str, title: &'static str, form: Form) -> Identifier {
    Identifier { pattern, title, form }
}

const fn key(key: usize) -> Form {
    Form::Keyed { key, tail: 0 }
}

const fn up_to(most: usize) -> Form {
    Form::Text(1, most)
}

const TABLE: &[Identifier] = &[
    row("00", "SSCC", key(18)),
    row("01", "GTIN", key(14)),
    row("02", "CONTENT", key(14)),
    row("03", "MTO GTIN", key(14)),
    row("10", "BATCH/LOT", up_to(20)),
    row("11", "PROD DATE", Form::Date),
    row("12", "DUE DATE", Form::Date),
    row("13", "PACK DATE", Form::Date),
    row("15", "BEST BEFORE", Form::Date),
    row("16", "SELL BY", Form::Date),
    row("17", "USE BY OR EXPIRY", Form::Date),
    row("20", "VARIANT", Form::Digits(2, 2)),
    row("21", "SERIAL", up_to(20)),
    row("22", "CPV", up_to(20)),
    row("235", "TPX", up_to(28)),
    row("240", "ADDITIONAL ID", up_to(30)),
    row("241", "CUST. PART No.", up_to(30)),
    row("242", "MTO VARIANT", Form::Digits(1, 6)),
    row("243", "PCN", up_to(20)),
    row("250", "SECONDARY SERIAL", up_to(30)),
    row("251", "REF. TO SOURCE", up_to(30)),
    row("253", "GDTI", Form::Keyed { key: 13, tail: 17 }),
    row("254", "GLN EXTENSION COMPONENT", up_to(20)),
    row("255", "GCN", Form::Keyed { key: 13, tail: 12 }),
    row("30", "VAR. COUNT", Form::Digits(1, 8)),
    row("310n", "NET WEIGHT (kg)", Form::Digits(6, 6)),
    row("315n", "NET VOLUME (l)", Form::Digits(6, 6)),
    row("316n", "NET VOLUME (m3)", Form::Digits(6, 6)),
    row("31nn", "MEASURE", Form::Digits(6, 6)),
    row("32nn", "MEASURE", Form::Digits(6, 6)),
    row("33nn", "MEASURE", Form::Digits(6, 6)),
    row("34nn", "MEASURE", Form::Digits(6, 6)),
    row("35nn", "MEASURE", Form::Digits(6, 6)),
    row("36nn", "MEASURE", Form::Digits(6, 6)),
    row("37", "COUNT", Form::Digits(1, 8)),
    row("390n", "AMOUNT", Form::Digits(1, 15)),
    row("391n", "AMOUNT", Form::Digits(4, 18)),
    row("392n", "PRICE", Form::Digits(1, 15)),
    row("393n", "PRICE", Form::Digits(4, 18)),
    row("394n", "PRCNT OFF", Form::Digits(4, 4)),
    row("395n", "PRICE/UoM", Form::Digits(6, 6)),
    row("400", "ORDER NUMBER", up_to(30)),
    row("401", "GINC", up_to(30)),
    row("402", "GSIN", key(17)),
    row("403", "ROUTE", up_to(30)),
    row("410", "SHIP TO LOC", key(13)),
    row("411", "BILL TO", key(13)),
    row("412", "PURCHASE FROM", key(13)),
    row("413", "SHIP FOR LOC", key(13)),
    row("414", "LOC No.", key(13)),
    row("415", "PAY TO", key(13)),
    row("416", "PROD/SERV LOC", key(13)),
    row("417", "PARTY", key(13)),
    row("420", "SHIP TO POST", up_to(20)),
    row("421", "SHIP TO POST", Form::Text(4, 12)),
    row("422", "ORIGIN", Form::Digits(3, 3)),
    row("423", "COUNTRY - INITIAL PROCESS", Form::Digits(3, 15)),
    row("424", "COUNTRY - PROCESS", Form::Digits(3, 3)),
    row("425", "COUNTRY - DISASSEMBLY", Form::Digits(3, 15)),
    row("426", "COUNTRY - FULL PROCESS", Form::Digits(3, 3)),
    row("427", "ORIGIN SUBDIVISION", up_to(3)),
    row("7001", "NSN", Form::Digits(13, 13)),
    row("7002", "MEAT CUT", up_to(30)),
    row("7003", "EXPIRY TIME", Form::Time(2, 2)),
    row("7004", "ACTIVE POTENCY", Form::Digits(1, 4)),
    row("7005", "CATCH AREA", up_to(12)),
    row("7006", "FIRST FREEZE DATE", Form::Time(0, 0)),
    row("7007", "HARVEST DATE", Form::Dates),
    row("7008", "AQUATIC SPECIES", up_to(3)),
    row("7009", "FISHING GEAR TYPE", up_to(10)),
    row("7010", "PROD METHOD", up_to(2)),
    row("7011", "TEST BY DATE", Form::Time(0, 2)),
    row("7020", "REFURB LOT", up_to(20)),
    row("7021", "FUNC STAT", up_to(20)),
    row("7022", "REV STAT", up_to(20)),
    row("7023", "GIAI - ASSEMBLY", up_to(30)),
    row("703n", "PROCESSOR", Form::Text(4, 30)),
    row("7040", "UIC+EXT", Form::Text(4, 4)),
    row("710", "NHRN PZN", up_to(20)),
    row("711", "NHRN CIP", up_to(20)),
    row("712", "NHRN CN", up_to(20)),
    row("713", "NHRN DRN", up_to(20)),
    row("714", "NHRN AIM", up_to(20)),
    row("715", "NHRN NDC", up_to(20)),
    row("716", "NHRN AIC", up_to(20)),
    row("723n", "CERT", Form::Text(3, 30)),
    row("7240", "PROTOCOL", up_to(20)),
    row("7241", "AIDC MEDIA TYPE", Form::Digits(2, 2)),
    row("7242", "VCN", up_to(25)),
    row("8001", "DIMENSIONS", Form::Digits(14, 14)),
    row("8002", "CMT No.", up_to(20)),
    row("8003", "GRAI", Form::Keyed { key: 14, tail: 16 }),
    row("8004", "GIAI", up_to(30)),
    row("8005", "PRICE PER UNIT", Form::Digits(6, 6)),
    row("8006", "ITIP", Form::Digits(18, 18)),
    row("8007", "IBAN", up_to(34)),
    row("8008", "PROD TIME", Form::Time(1, 3)),
    row("8009", "OPTSEN", up_to(50)),
    row("8010", "CPID", up_to(30)),
    row("8011", "CPID SERIAL", Form::Digits(1, 12)),
    row("8012", "VERSION", up_to(20)),
    row("8013", "GMN", up_to(25)),
    row("8014", "MUDI", up_to(25)),
    row("8017", "GSRN - PROVIDER", key(18)),
    row("8018", "GSRN - RECIPIENT", key(18)),
    row("8019", "SRIN", Form::Digits(1, 10)),
    row("8020", "REF No.", up_to(25)),
    row("8026", "ITIP CONTENT", Form::Digits(18, 18)),
    row("8030", "DIGSIG", up_to(90)),
    row("8200", "PRODUCT URL", up_to(70)),
    row("90", "INTERNAL", up_to(30)),
    row("9n", "INTERNAL", up_to(90)),
];
