//! The registry of devices: what a CSV file adds to it, and enrolment of devices that were seen.
//!
//! History is kept: an import adds rows and changes none. The views `*_latest` show what holds now.

use async_recursion::async_recursion as boxed;
use std::{
    collections::{HashMap, HashSet},
    io::Read,
};

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use telemetry::{commands, limits::UNIX_US_MAX, topic::is_id};

use crate::{client::Warehouse, error::Error};

pub use telemetry::command::DEVICE_KINDS as KINDS;

/// Longest free text, bytes.
pub(crate) const TEXT_LEN_MAX: usize = 128;

/// Columns of the file: the required ones, then the optional ones.
const REQUIRED: [&str; 4] = ["tenant", "site", "device", "kind"];
const OPTIONAL: [&str; 6] = ["model", "manufacturer", "serial", "udi", "gateway", "valid_from"];

/// What a file adds to the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Novel {
    /// Lines of the file.
    pub read: u64,
    /// Devices to be registered, with their tenants, in the order of the file. The other lines say
    /// what the registry already says.
    pub devices: Vec<(String, commands::Device)>,
}

/// A row of the table `devices` that a person imported.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Row, Deserialize)]
struct DeviceRow {
    tenant: String,
    device: String,
    site: String,
    kind: String,
    model: String,
    manufacturer: String,
    serial: String,
    udi: String,
    gateway: String,
    valid_from: i64,
}

impl DeviceRow {
    fn registered(self) -> (String, commands::Device) {
        let Self { tenant, device, site, kind, model, manufacturer, serial, udi, gateway, valid_from } = self;
        let valid_from_us = valid_from;
        (tenant, commands::Device { device, site, kind, model, manufacturer, serial, udi, gateway, valid_from_us })
    }
}

/// A device, as the registry describes it now.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct Device {
    pub tenant: String,
    pub device: String,
    pub site: String,
    /// One of [`KINDS`]; empty = not known.
    pub kind: String,
    /// Model; empty = not known.
    pub model: String,
    /// Manufacturer; empty = none.
    pub manufacturer: String,
    /// Serial number; empty = not known.
    pub serial: String,
    /// UDI; empty = not known.
    pub udi: String,
    /// Device that may publish for it; empty = none.
    pub gateway: String,
    /// `IMPORTED` by a person, or `ENROLLED` after it was seen.
    pub origin: String,
    /// Start of the time for which this holds, us since 1970.
    pub valid_from: i64,
}

/// The devices that the registry knows now; an empty `tenant` selects all tenants.
///
/// # Errors
/// As [`Warehouse::fetch`].
pub async fn devices(warehouse: &Warehouse, tenant: &str) -> Result<Vec<Device>, Error> {
    let sql = "SELECT toString(known.tenant) AS tenant, toString(known.device) AS device, toString(known.site) AS site, \
               toString(known.kind) AS kind, toString(known.model) AS model, toString(known.manufacturer) AS manufacturer, \
               known.serial AS serial, known.udi AS udi, toString(known.gateway) AS gateway, \
               toString(known.origin) AS origin, toUnixTimestamp64Micro(known.valid_from) AS valid_from \
               FROM devices_latest AS known WHERE ? IN ('', known.tenant) ORDER BY known.tenant, known.device";
    warehouse.fetch(warehouse.query(sql).bind(tenant)).await
}

/// Reads devices from CSV with a header line, and leaves out what the registry already says.
/// `now_us` is the present time, us since 1970; it is also the `valid_from` of lines without one.
///
/// Columns, in any order: `tenant, site, device, kind` and optionally `model, manufacturer, serial,
/// udi, gateway, valid_from` (`YYYY-MM-DD` or `YYYY-MM-DDTHH:MM:SSZ`).
///
/// # Errors
/// [`Error::Row`] with line and column for the first fault, [`Error::Csv`] for a file that is not
/// CSV. As [`Warehouse::fetch`] otherwise.
pub async fn novel_devices(warehouse: &Warehouse, csv: impl Read, now_us: i64) -> Result<Novel, Error> {
    let lines = parse(csv, now_us)?;
    let sql = "SELECT tenant, device, site, kind, model, manufacturer, serial, udi, gateway, \
               toUnixTimestamp64Micro(valid_from) AS valid_from FROM devices WHERE origin = 'IMPORTED'";
    let mut known: HashMap<(String, String), Vec<DeviceRow>> = HashMap::new();
    for row in warehouse.rows::<DeviceRow>(sql).await? {
        known.entry((row.tenant.clone(), row.device.clone())).or_default().push(row);
    }
    let read = lines.len() as u64;
    let none = Vec::new();
    let novel = lines.into_iter().filter(|line| {
        let history = known.get(&(line.row.tenant.clone(), line.row.device.clone())).unwrap_or(&none);
        !says_already(history, line)
    });
    Ok(Novel { read, devices: novel.map(|line| line.row.registered()).collect() })
}

/// Adds the devices that sent something but are not in the registry, with the site that they sent
/// from. They are marked `ENROLLED` and get no kind, model or manufacturer. The registry decides
/// what a manufacturer may see, so a device's own message must not fill it.
///
/// # Errors
/// As [`Warehouse::execute`].
#[boxed]
pub async fn enrol(warehouse: &Warehouse) -> Result<(), Error> {
    // Two enrolments at once add a device twice. The views show it once.
    let sql = "INSERT INTO devices (tenant, device, site, origin, valid_from, recorded_at) \
               SELECT tenant, device, argMax(heard.site, heard.at), 'ENROLLED', min(heard.at), now64(6) \
               FROM ( \
                   SELECT tenant, site, device, last_arrival AS at FROM loader_commits WHERE kind = 'ledger' \
                   UNION ALL SELECT tenant, site, device, received_at FROM device_status \
               ) AS heard \
               WHERE device != '' AND (tenant, device) NOT IN (SELECT tenant, device FROM devices) \
               GROUP BY tenant, device";
    warehouse.command(sql).await
}

struct ImportedLine {
    row: DeviceRow,
    dated: bool,
}

/// Whether the registry already says what the line says. A line with a date is compared with the
/// row of that date, another line with the row that holds now.
fn says_already(history: &[DeviceRow], line: &ImportedLine) -> bool {
    let candidate = if line.dated {
        history.iter().filter(|row| row.valid_from == line.row.valid_from).collect()
    } else {
        let latest =
            history.iter().filter(|row| row.valid_from <= line.row.valid_from).max_by_key(|row| row.valid_from);
        Vec::from_iter(latest)
    };
    let same = |row: &&DeviceRow| DeviceRow { valid_from: line.row.valid_from, ..(**row).clone() } == line.row;
    candidate.iter().any(same)
}

/// Largest file, bytes. It allows some million lines and stops reading a file that is none.
const FILE_BYTES_MAX: u64 = 256 << 20;

fn parse(csv: impl Read, now_us: i64) -> Result<Vec<ImportedLine>, Error> {
    let mut bytes = Vec::new();
    csv.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(csv::Error::from)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fault(1, "tenant", format!("the file has more than {FILE_BYTES_MAX} bytes; import it in parts")));
    }
    let header = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    // Spreadsheets write semicolons where the comma is the decimal sign. No column name contains a
    // comma or a semicolon.
    let delimiter = if header.contains(&b';') && !header.contains(&b',') { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .delimiter(delimiter)
        .flexible(true)
        .from_reader(bytes.as_slice());
    let headers = reader.headers()?.clone();
    let places = places(&headers)?;
    let (mut lines, mut seen) = (Vec::new(), HashSet::new());
    let mut numbers = LineNumbers { bytes: &bytes, at: 0, line: 1 };
    for record in reader.records() {
        let record = record?;
        let at = numbers.of(record.position().map_or(0, csv::Position::byte));
        if record.len() != headers.len() {
            let column = headers.get(record.len()).or_else(|| headers.iter().next_back()).unwrap_or_default();
            let fault_text = format!("{} values, the header line has {}", record.len(), headers.len());
            return Err(fault(at, column, fault_text));
        }
        let line = line(&record, &places, at, now_us)?;
        let DeviceRow { tenant, device, valid_from, .. } = &line.row;
        if !seen.insert((tenant.clone(), device.clone(), *valid_from)) {
            return Err(fault(at, "device", format!("{tenant}/{device} stands twice with the same valid_from")));
        }
        lines.push(line);
    }
    Ok(lines)
}

/// Finds line numbers as an editor counts them: CR LF, LF and CR each end a line.
struct LineNumbers<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl LineNumbers<'_> {
    /// The line of the first text at or after a position. Positions must ascend. The CSV reader's
    /// own line count cannot be used: it places a record at the LF of the preceding CR LF, one line
    /// too early.
    fn of(&mut self, position: u64) -> u64 {
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        while let Some(byte) = self.bytes.get(self.at) {
            let ends = matches!(byte, b'\r' | b'\n');
            if self.at >= position && !ends {
                break;
            }
            self.at += 1;
            self.line += u64::from(*byte == b'\n' || *byte == b'\r' && self.bytes.get(self.at) != Some(&b'\n'));
        }
        self.line
    }
}

fn places(headers: &csv::StringRecord) -> Result<HashMap<&'static str, usize>, Error> {
    let mut places = HashMap::new();
    for (place, header) in headers.iter().enumerate() {
        // Spreadsheets put a byte order mark at the start.
        let name = header.trim_start_matches('\u{feff}');
        let Some(known) = REQUIRED.iter().chain(&OPTIONAL).find(|known| **known == name) else {
            let all = [REQUIRED.as_slice(), OPTIONAL.as_slice()].concat().join(", ");
            return Err(fault(1, name, format!("unknown column; known are {all}")));
        };
        if places.insert(*known, place).is_some() {
            return Err(fault(1, name, "stands twice".to_owned()));
        }
    }
    match REQUIRED.iter().find(|name| !places.contains_key(*name)) {
        Some(absent) => Err(fault(1, absent, "column is absent".to_owned())),
        None => Ok(places),
    }
}

fn line(
    record: &csv::StringRecord,
    places: &HashMap<&'static str, usize>,
    at: u64,
    now_us: i64,
) -> Result<ImportedLine, Error> {
    let value = |name: &str| places.get(name).and_then(|place| record.get(*place)).unwrap_or_default().to_owned();
    let id = |name: &'static str| {
        let text = value(name);
        if is_id(&text) {
            return Ok(text);
        }
        Err(fault(at, name, format!("{text:?} must match [A-Za-z0-9][A-Za-z0-9_-]{{0,63}}")))
    };
    let text = |name: &'static str| {
        let text = value(name);
        // A scanned UDI has the separator FNC1.
        let is_wrong = |letter: char| letter.is_control() && (name, letter) != ("udi", '\u{1d}');
        if text.len() <= TEXT_LEN_MAX && !text.chars().any(is_wrong) {
            return Ok(text);
        }
        Err(fault(at, name, format!("at most {TEXT_LEN_MAX} bytes without control characters, not {text:?}")))
    };
    let kind = value("kind");
    if !KINDS.contains(&kind.as_str()) {
        return Err(fault(at, "kind", format!("{kind:?} must be one of {}", KINDS.join(", "))));
    }
    let gateway = if value("gateway").is_empty() { String::new() } else { id("gateway")? };
    let valid_from = value("valid_from");
    let parsed = if valid_from.is_empty() { Some(now_us) } else { unix_us(&valid_from) };
    let Some(valid_from_us) = parsed else {
        let text = format!("{valid_from:?} must be YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ, 1970..2100");
        return Err(fault(at, "valid_from", text));
    };
    let row = DeviceRow {
        tenant: id("tenant")?,
        device: id("device")?,
        site: id("site")?,
        kind,
        model: text("model")?,
        manufacturer: text("manufacturer")?,
        serial: text("serial")?,
        udi: text("udi")?,
        gateway,
        valid_from: valid_from_us,
    };
    Ok(ImportedLine { row, dated: !valid_from.is_empty() })
}

fn fault(line: u64, column: &str, fault: String) -> Error {
    Error::Row { line, column: column.to_owned(), fault }
}

/// `YYYY-MM-DD` or `YYYY-MM-DDTHH:MM:SSZ` as us since 1970.
pub fn unix_us(text: &str) -> Option<i64> {
    let (day, time) = match text.split_once('T') {
        Some((day, time)) => (day, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let number = |text: &str, length: usize| {
        let digits = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse::<i64>().ok() } else { None }
    };
    let (mut date, mut clock) = (day.split('-'), time.split(':'));
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let (hour, minute, second) = (number(clock.next()?, 2)?, number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    if date.next().is_some() || clock.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Days from the civil calendar, with years that begin in March (Hinnant, "chrono-compatible
    // date algorithms").
    let years = year - i64::from(month <= 2);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * years + years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400) + of_year - 719_468;
    let us = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000;
    (0..UNIX_US_MAX).contains(&us).then_some(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000_000;

    #[test]
    fn times_are_parsed_strictly() {
        let check =
            |text: &str, expected: Option<i64>| assert_eq!(unix_us(text).map(|us| us / 1_000_000), expected, "{text}");
        check("1970-01-01", Some(0));
        check("2026-11-22", Some(1_795_305_600));
        check("2024-02-29T23:59:59Z", Some(1_709_251_199));
        check("2000-03-01", Some(951_868_800));
        for bad in ["2023-02-29", "2026-13-01", "2026-1-1", "1969-12-31", "2100-01-01", "2026-11-22T00:00:00", "x", ""]
        {
            check(bad, None);
        }
    }

    #[test]
    fn a_file_is_read_in_any_order_of_columns() {
        let csv = "device,tenant,kind,site,valid_from,model\npen-1,acme,INJECTOR,paris,2026-01-01,MX \npen-2,acme,BENCH,paris,,\n";
        let lines = parse(csv.as_bytes(), NOW).unwrap();
        assert_eq!(lines[0].row.model, "MX");
        assert_eq!(lines[0].row.valid_from, 1_767_225_600_000_000);
        assert_eq!((lines[1].row.valid_from, lines[1].dated), (NOW, false));
    }

    #[test]
    fn faults_name_line_and_column() {
        let check = |csv: &str, expected: &str| {
            let error = parse(csv.as_bytes(), NOW).err().unwrap().to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        let head = "tenant,site,device,kind,gateway,valid_from\n";
        check("tenant,site,device\n", "line 1, column kind: column is absent");
        check("tenant,site,device,kind,colour\n", "line 1, column colour: unknown column");
        check("tenant,tenant,site,device,kind\n", "line 1, column tenant: stands twice");
        check(&format!("{head}a,b,c,INJECTOR,,\na,b c,d,INJECTOR,,\n"), "line 3, column site: \"b c\" must match");
        check(&format!("{head}a,b,c,PEN,,\n"), "line 2, column kind: \"PEN\" must be one of INJECTOR");
        check(&format!("{head}a,b,c,INJECTOR,g/1,\n"), "line 2, column gateway");
        check(&format!("{head}a,b,c,INJECTOR,,yesterday\n"), "line 2, column valid_from");
        check(&format!("{head}a,b,c,BENCH,,\na,x,c,BENCH,,\n"), "line 3, column device: a/c stands twice");
        check(&format!("{head}a,b,c\n"), "line 2, column kind: 3 values, the header line has 6");
        check(&format!("{head}a,b,c,BENCH,,,,\n"), "line 2, column valid_from: 8 values");
        let quoted = format!("{head}a,b,c,BENCH,,\n\n\"a\",\"b\nb\",d,BENCH,,\na,b,e,PEN,,\n").replace("b\nb", "b");
        for end in ["\n", "\r\n", "\r"] {
            check(&quoted.replace('\n', end), "line 5, column kind");
            check(
                &quoted.replace("\"b\"", "\"b\n\"").replace("PEN", "BENCH,").replace('\n', end),
                "line 6, column valid_from",
            );
        }
        let semicolons = format!("{head}a,b,c,BENCH,,\na,b,e,PEN,,\n").replace(',', ";");
        check(&semicolons.replace('\n', "\r\n"), "line 3, column kind: \"PEN\"");
    }

    #[test]
    fn semicolons_are_read_as_commas_are() {
        let csv = "\u{feff}device;tenant;kind;site;model\r\npen-1;acme;INJECTOR;paris;\"MX, long\"\r\n";
        let lines = parse(csv.as_bytes(), NOW).unwrap();
        assert_eq!((lines[0].row.device.as_str(), lines[0].row.model.as_str()), ("pen-1", "MX, long"));
    }

    #[test]
    fn a_scanned_udi_keeps_its_separators() {
        let head = "tenant,site,device,kind,serial,udi\n";
        let lines = parse(format!("{head}a,b,c,BENCH,,010950600013435210L7\u{1d}21S\n").as_bytes(), NOW).unwrap();
        assert_eq!(lines[0].row.udi, "010950600013435210L7\u{1d}21S");
        for bad in ["S\u{1d}1,", ",S\u{1e}1"] {
            assert!(parse(format!("{head}a,b,c,BENCH,{bad}\n").as_bytes(), NOW).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_line_is_known_only_if_the_registry_says_the_same_then() {
        let line = |text: &str| {
            parse(format!("tenant,site,device,kind,valid_from\n{text}").as_bytes(), NOW).unwrap().remove(0)
        };
        let history = [line("a,b,c,BENCH,2026-01-01").row, line("a,x,c,BENCH,2026-02-01").row];
        assert!(says_already(&history, &line("a,b,c,BENCH,2026-01-01")));
        assert!(!says_already(&history, &line("a,b,c,BENCH,2026-03-01")));
        assert!(!says_already(&history, &line("a,b,c,BENCH,")));
        assert!(says_already(&history, &line("a,x,c,BENCH,")));
        assert!(!says_already(&[], &line("a,b,c,BENCH,")));
    }
}
