//! Computes the aggregates again from the base rows, to the last digit.

/// Name of an integer column, with its expression over a base row.
type Column = (&'static str, &'static str);

const DOSE: &str = "(isNotNull(target_nl) AND isNotNull(delivered_nl) AND dose_source != 'SETTING')";
const DEPTH: &str = "(isNotNull(target_um) AND isNotNull(measured_um) AND depth_source != 'SETTING')";

const ACCURACY: [Column; 16] = [
    ("injections", "1"),
    ("dose_n", "{dose}"),
    ("dose_target_nl", "if({dose}, ifNull(target_nl, 0), 0)"),
    ("dose_delivered_nl", "if({dose}, ifNull(delivered_nl, 0), 0)"),
    ("dose_error_nl", "if({dose}, ifNull(toInt64(delivered_nl) - toInt64(target_nl), 0), 0)"),
    ("dose_error_sq", "if({dose}, ifNull(square(toInt64(delivered_nl) - toInt64(target_nl)), 0), 0)"),
    ("depth_n", "{depth}"),
    ("depth_target_um", "if({depth}, ifNull(target_um, 0), 0)"),
    ("depth_measured_um", "if({depth}, ifNull(measured_um, 0), 0)"),
    ("depth_error_um", "if({depth}, ifNull(toInt64(measured_um) - toInt64(target_um), 0), 0)"),
    ("depth_error_sq", "if({depth}, ifNull(square(toInt64(measured_um) - toInt64(target_um)), 0), 0)"),
    ("ok", "outcome = 'OK'"),
    ("partial", "outcome = 'PARTIAL'"),
    ("aborted", "outcome = 'ABORTED'"),
    ("occluded", "outcome = 'OCCLUDED'"),
    ("no_contact", "outcome = 'NO_CONTACT'"),
];
const LEAST: [Column; 3] = [
    ("dose_error_min", "if({dose}, toInt64(delivered_nl) - toInt64(target_nl), NULL)"),
    ("depth_error_min", "if({depth}, toInt64(measured_um) - toInt64(target_um), NULL)"),
    ("first_at", "at"),
];
const GREATEST: [Column; 3] = [
    ("dose_error_max", "if({dose}, toInt64(delivered_nl) - toInt64(target_nl), NULL)"),
    ("depth_error_max", "if({depth}, toInt64(measured_um) - toInt64(target_um), NULL)"),
    ("last_at", "at"),
];
const USES: [Column; 5] = [
    ("injections", "1"),
    ("punctures", "ifNull(punctures, 1)"),
    ("delivered_nl", "ifNull(delivered_nl, 0)"),
    ("delivered_n", "isNotNull(delivered_nl)"),
    ("undated", "time_source != 'DEVICE'"),
];
const DEVICE: &str = "tenant, site, device, model, firmware";
const VISIT: &str = "session_id, dose_calibration_id, depth_calibration_id, target_nl, target_um, outcome";

/// Queries, by name. Their rows are the keys at which an aggregate differs from the sum of the base
/// rows; `of` is the condition that selects the batches.
pub fn comparisons(of: &str) -> [(&'static str, String); 4] {
    let device: Vec<_> = DEVICE.split(", ").map(|name| (name, name)).collect();
    let minute: Vec<_> = device.iter().copied().chain([("minute", "toStartOfMinute(toDateTime(at, 'UTC'))")]).collect();
    let visit: Vec<_> = device.iter().copied().chain(VISIT.split(", ").map(|name| (name, name))).collect();
    let base = format!("doseline.injections WHERE {of}");
    let accuracy = |table: &str, keys: &[Column]| {
        let aggregate = format!("doseline.{table} WHERE {of}");
        compare(keys, &aggregate, &base, &ACCURACY, &LEAST, &GREATEST)
    };
    let slots = "('NEEDLE', 'SYRINGE', 'HANDPIECE')";
    let mounts = "[('NEEDLE', needle_mount_id, needle_item_id), ('SYRINGE', syringe_mount_id, syringe_item_id), \
                  ('HANDPIECE', handpiece_mount_id, handpiece_item_id)]";
    let uses = compare(
        &[
            ("tenant", "tenant"),
            ("site", "site"),
            ("device", "device"),
            ("session_id", "session_id"),
            ("slot", "m.1"),
            ("mount_id", "m.2"),
            ("item_id", "m.3"),
        ],
        &format!("doseline.item_uses WHERE slot IN {slots} AND {of}"),
        &format!("doseline.injections ARRAY JOIN {mounts} AS m WHERE (m.2 != '' OR m.3 != '') AND {of}"),
        &USES,
        &LEAST[2..],
        &GREATEST[2..],
    );
    [
        ("accuracy_minute", accuracy("accuracy_minute", &minute)),
        ("accuracy_session", accuracy("accuracy_session", &visit)),
        ("histogram", histogram(of)),
        ("item_uses", uses),
    ]
}

fn compare(
    keys: &[Column],
    aggregate: &str,
    base: &str,
    sums: &[Column],
    least: &[Column],
    greatest: &[Column],
) -> String {
    let of_rows = |text: &str| squared(&text.replace("{dose}", DOSE).replace("{depth}", DEPTH));
    let integer = |name: &str, text: &str| match name.ends_with("_at") {
        true => format!("toUnixTimestamp64Micro({text})"),
        false => format!("toInt64({text})"),
    };
    let columns = || sums.iter().chain(least).chain(greatest);
    let side = |src: u8, from: &str, value: &dyn Fn(&Column) -> String| {
        let keys = keys.iter().map(|key @ (name, _)| format!("{} AS k_{name}", value(key)));
        let columns = columns().map(|column @ (name, _)| {
            let text = integer(name, &value(column));
            // A value that was never measured has no minimum. Both sides then have the same
            // impossible value.
            format!("ifNull({text}, {}) AS c_{name}", absent(name))
        });
        let all: Vec<_> = keys.chain(columns).collect();
        format!("SELECT toUInt8({src}) AS src, {} FROM {from}", all.join(", "))
    };
    let aggregated = side(1, aggregate, &|(name, _)| (*name).to_owned());
    let computed = side(0, base, &|(_, text)| of_rows(text));
    let equal = |fold: &str, (name, _): &Column| format!("{fold}If(c_{name}, src = 1) = {fold}If(c_{name}, src = 0)");
    let conditions: Vec<_> = sums
        .iter()
        .map(|column| equal("sum", column))
        .chain(least.iter().map(|column| equal("min", column)))
        .chain(greatest.iter().map(|column| equal("max", column)))
        .collect();
    let names: Vec<_> = keys.iter().map(|(name, _)| format!("k_{name}")).collect();
    let names = names.join(", ");
    format!(
        "SELECT {names}, sumIf(c_injections, src = 1) AS aggregated, sumIf(c_injections, src = 0) AS counted FROM ( \
         {aggregated} UNION ALL {computed}) GROUP BY {names} HAVING NOT ({})",
        conditions.join(" AND ")
    )
}

/// ClickHouse has no function for the square of an integer.
fn squared(text: &str) -> String {
    let Some(at) = text.find("square(") else { return text.to_owned() };
    let inner = &text[at + 7..];
    let mut depth = 1;
    let end = inner.char_indices().find_map(|(index, letter)| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        (depth == 0).then_some(index)
    });
    let end = end.expect("a closed bracket");
    format!("{}(({inner}) * ({inner})){}", &text[..at], &inner[end + 1..], inner = &inner[..end])
}

fn absent(name: &str) -> &'static str {
    match name {
        name if name.ends_with("_min") => "9223372036854775807",
        name if name.ends_with("_max") => "-9223372036854775807",
        _ => "0",
    }
}

fn histogram(of: &str) -> String {
    let keys: Vec<_> = DEVICE.split(", ").chain(VISIT.split(", ")).collect();
    let named: Vec<_> = keys.iter().map(|key| format!("{key} AS k_{key}")).collect();
    let names: Vec<_> = keys.iter().map(|key| format!("k_{key}")).collect();
    let (named, names) = (named.join(", "), names.join(", "));
    format!(
        "SELECT {names}, bin, sumIf(n, src = 1) AS aggregated, sumIf(n, src = 0) AS counted FROM ( \
         SELECT toUInt8(1) AS src, {named}, b AS bin, toInt64(c) AS n FROM doseline.accuracy_session \
         ARRAY JOIN dose_error_bins AS b, dose_error_counts AS c WHERE {of} \
         UNION ALL SELECT toUInt8(0), {named}, \
         toInt32(floor(100 * (toInt64(assumeNotNull(delivered_nl)) - toInt64(assumeNotNull(target_nl))) / assumeNotNull(target_nl))), \
         toInt64(1) FROM doseline.injections WHERE {DOSE} AND target_nl > 0 AND {of}) \
         GROUP BY {names}, bin HAVING aggregated != counted"
    )
}

#[cfg(test)]
mod tests {
    use super::{comparisons, squared};

    #[test]
    fn squares_are_written_out() {
        assert_eq!(squared("if(a, ifNull(square(f(b) - c), 0), 0)"), "if(a, ifNull(((f(b) - c) * (f(b) - c)), 0), 0)");
        for (name, sql) in comparisons("batch IN (1, 2)") {
            assert!(!sql.contains("square(") && !sql.contains('{'), "{name}: {sql}");
        }
    }
}
