#!/usr/bin/env python3
"""Writes the dashboards (dashboards/*.json) and the alert rules (provisioning/alerting/doseline.json).

Run it after a change; a test compares. The queries are here, and what all dashboards share.

Rules for the queries (tests/tests/grafana.rs checks what it can):

- Every time of doseline is a DateTime64 in UTC, so filters use $__timeFilter_ms; `minute` is a
  DateTime and uses $__timeFilter. Columns of days use $__dateFilter.
- An alias never has the name of a column: ClickHouse would take the alias in WHERE, and an
  expression in the place of a column finds no index. The time of a series is called `time`.
- Big tables are read by tenant (the first column of their order) and by `ingest_day` (their
  partition). A row is stored on the day it happened or later; a device's clock may be ahead of the
  server's by minutes, hence the `- 1`.
"""

import json
import os

SOURCE = {"type": "grafana-clickhouse-datasource", "uid": "${datasource}"}
PLUGIN = "4.10.1"
# Without a host: put the address under which your people read the documentation before it.
RUNBOOK = "docs/runbook.md"
SINCE = "ingest_day >= toDate($__fromTime) - 1"
TENANT = "$__conditionalAll(tenant IN (${tenant:sqlstring}), $tenant)"
SITE = "$__conditionalAll(site IN (${site:sqlstring}), $site)"
HERE = f"{TENANT} AND {SITE}"
ONE = "tenant = ${tenant:sqlstring} AND device = ${device:sqlstring}"

DEVICE = ("device", "/devices/${__data.fields.tenant:percentencode}/${__data.fields.device:percentencode}")
ALERT = ("alert_key", "/alerts/${__data.fields.tenant:percentencode}/${__data.fields.alert_key:percentencode}")
SESSION = ("session_id", "/sessions/${__data.fields.tenant:percentencode}/${__data.fields.session_id:percentencode}")
CYCLE = ("cycle_uid", "/cycles/${__data.fields.tenant:percentencode}/${__data.fields.cycle_uid:percentencode}")


def write(file, whole):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), file), "w", encoding="utf-8") as out:
        json.dump(whole, out, indent=1)
        out.write("\n")


def variable(name, label, query, multi=False):
    """A variable whose values a query finds."""
    everything = {"text": ["All"], "value": ["$__all"]}
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "query": query, "definition": query,
        "refresh": 2, "sort": 1, "multi": multi, "includeAll": multi, "hide": 0, "skipUrlSync": False, "regex": "",
        "options": [], "current": everything if multi else {},
    }


def choice(name, label, values):
    """A variable with fixed values."""
    options = [{"text": value, "value": value, "selected": value == values[0]} for value in values]
    return {"name": name, "label": label, "type": "custom", "query": ",".join(values), "options": options,
            "current": {"text": values[0], "value": values[0]}, "hide": 0, "multi": False, "includeAll": False,
            "skipUrlSync": False}


TENANTS = variable(
    "tenant", "Tenant",
    "SELECT tenant FROM (SELECT tenant FROM devices_latest"
    " UNION DISTINCT SELECT tenant FROM loader_commits WHERE kind = 'ledger') ORDER BY tenant", multi=True)
SITES = variable(
    "site", "Site", f"SELECT DISTINCT site FROM fleet WHERE site != '' AND {TENANT} ORDER BY site", multi=True)


def panel(kind, title, sql, width, height, unit=None, links=(), text=None, hidden=(), options=None, custom=None):
    """One panel with one query."""
    series = kind in ("timeseries", "barchart")
    defaults = {}
    if unit:
        defaults["unit"] = unit
    if custom:
        defaults["custom"] = custom
    overrides = [
        {"matcher": {"id": "byName", "options": field},
         "properties": [{"id": "links", "value": [{"title": "Open in doseline", "url": "${page}" + url,
                                                   "targetBlank": True}]}]}
        for field, url in links
    ]
    overrides += [{"matcher": {"id": "byName", "options": field},
                   "properties": [{"id": "custom.hidden", "value": True}]} for field in hidden]
    return {
        "type": kind, "title": title, "description": text or "", "datasource": SOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": options or {},
        "targets": [{
            "refId": "A", "datasource": SOURCE, "editorType": "sql", "pluginVersion": PLUGIN,
            "format": 0 if series else 1, "queryType": "timeseries" if series else "table", "rawSql": sql,
        }],
    }


def stat(title, sql, width=24, height=4, **rest):
    """Each column of the one row is a figure."""
    options = {"reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": "/.*/"}, "colorMode": "none",
               "textMode": "value_and_name", "orientation": "vertical"}
    return panel("stat", title, sql, width, height, options=options, **rest)


def lines(title, sql, width=12, height=8, **rest):
    options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, sql, width, height, options=options, **rest)


def points(title, sql, **rest):
    return lines(title, sql, custom={"drawStyle": "points", "pointSize": 4}, **rest)


def bars(title, sql, **rest):
    stacked = {"drawStyle": "bars", "fillOpacity": 80, "lineWidth": 0, "stacking": {"mode": "normal", "group": "A"}}
    return lines(title, sql, custom=stacked, **rest)


def table(title, sql, width=24, height=9, **rest):
    return panel("table", title, sql, width, height, options={"showHeader": True, "cellHeight": "sm"}, **rest)


def dashboard(name, title, text, since, path, variables, panels):
    """Places the panels from left to right, numbers them, and writes the file."""
    x, y, tallest = 0, 0, 0
    for number, each in enumerate(panels, 1):
        width, height = each["gridPos"]["w"], each["gridPos"]["h"]
        if x + width > 24:
            x, y, tallest = 0, y + tallest, 0
        each["id"], each["gridPos"] = number, {"x": x, "y": y, "w": width, "h": height}
        x, tallest = x + width, max(tallest, height)
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": SOURCE["type"],
              "refresh": 1, "regex": "", "hide": 0, "multi": False, "includeAll": False, "options": [], "current": {},
              "skipUrlSync": False}
    page = {"name": "page", "label": "Address of doseline", "type": "textbox", "query": "http://127.0.0.1:9600",
            "current": {"text": "http://127.0.0.1:9600", "value": "http://127.0.0.1:9600"}, "hide": 0, "options": [],
            "skipUrlSync": False}
    whole = {
        "uid": f"doseline-{name}", "title": f"doseline: {title}", "description": text, "tags": ["doseline"],
        "schemaVersion": 39, "version": 1, "editable": False, "graphTooltip": 1, "timezone": "utc", "refresh": "1m",
        "fiscalYearStartMonth": 0, "liveNow": False, "weekStart": "",
        "time": {"from": since, "to": "now"}, "timepicker": {},
        "annotations": {"list": []},
        "links": [
            {"type": "dashboards", "title": "Other dashboards", "tags": ["doseline"], "asDropdown": True, "icon":
             "external link", "includeVars": False, "keepTime": True, "targetBlank": False, "tooltip": "", "url": ""},
            {"type": "link", "title": "Open doseline", "url": "${page}" + path, "icon": "external link", "tags": [],
             "asDropdown": False, "includeVars": False, "keepTime": False, "targetBlank": True, "tooltip": ""},
        ],
        "templating": {"list": [source, page, *variables]},
        "panels": panels,
    }
    write(os.path.join("dashboards", f"{name}.json"), whole)


def fleet():
    dashboard("fleet", "fleet", "All devices: what they do, how exact they are, what needs attention.", "now-24h",
              "/fleet", [TENANTS, SITES], [
        stat("Devices", "SELECT count() AS devices, countIf(state = 'ONLINE') AS online,"
             " countIf(registration = 'UNKNOWN') AS unknown, sum(missing_events) AS missing, sum(lost_events) AS lost"
             f" FROM fleet WHERE {HERE}",
             text="Missing: events that a device made and that have not arrived. Lost: events that it declared lost."),
        bars("Injections by outcome",
             "SELECT $__timeInterval(minute) AS time, sum(ok) AS \"OK\", sum(partial) AS \"PARTIAL\","
             " sum(aborted) AS \"ABORTED\", sum(occluded) AS \"OCCLUDED\", sum(no_contact) AS \"NO_CONTACT\""
             f" FROM accuracy_minute WHERE $__timeFilter(minute) AND {HERE} GROUP BY time ORDER BY time"),
        lines("Dose error by model",
              "SELECT $__timeInterval(minute) AS time, model,"
              " 100 * sum(dose_error_nl) / sum(dose_target_nl) AS error_pct"
              f" FROM accuracy_minute WHERE $__timeFilter(minute) AND {HERE} GROUP BY time, model"
              " HAVING sum(dose_target_nl) > 0 ORDER BY time", unit="percent",
              text="Measured minus target, in percent of the target, of all injections of the interval together."),
        table("Open alerts",
              "SELECT raised_at, severity, tenant, site, device, title, length(sessions) AS session_count, alert_key"
              f" FROM open_alerts WHERE {HERE}"
              " ORDER BY indexOf(['critical', 'high', 'medium', 'low'], severity), raised_at DESC LIMIT 500",
              links=[ALERT, DEVICE]),
        table("Devices",
              "SELECT tenant, site, device, kind, model, firmware, state, battery_pct, last_seen, missing_events,"
              f" lost_events FROM fleet WHERE {HERE} ORDER BY missing_events > 0 DESC, tenant, device LIMIT 10000",
              links=[DEVICE], height=12),
        table("Calibrations that are due",
              "SELECT tenant, device, channel, state, due_at, days_left, calibration_id FROM calibrations_due"
              f" WHERE state IN ('OVERDUE', 'DUE', 'NEVER') AND {TENANT} ORDER BY days_left NULLS FIRST LIMIT 1000",
              links=[DEVICE]),
    ])


def device():
    tenant = variable("tenant", "Tenant", TENANTS["query"])
    which = variable("device", "Device",
                     "SELECT device FROM devices_latest WHERE tenant = ${tenant:sqlstring} UNION DISTINCT SELECT device"
                     " FROM loader_commits WHERE kind = 'ledger' AND tenant = ${tenant:sqlstring}")
    dashboard("device", "device", "One device: errors, drift, faults, sessions and completeness.", "now-7d",
              "/devices/${tenant:percentencode}/${device:percentencode}", [tenant, which], [
        stat("Now", "SELECT state, battery_pct, temperature_mc / 1000 AS temperature_celsius, firmware, last_seen,"
             f" missing_events, lost_events FROM fleet WHERE {ONE}"),
        points("Dose error of each injection",
               "SELECT at AS time, 100 * (toInt64(delivered_nl) - toInt64(target_nl)) / target_nl AS error_pct"
               f" FROM injections WHERE {ONE} AND {SINCE} AND $__timeFilter_ms(at)"
               " AND target_nl > 0 AND delivered_nl IS NOT NULL ORDER BY at LIMIT 20000", unit="percent"),
        points("Depth error of each injection",
               "SELECT at AS time, toInt64(measured_um) - toInt64(target_um) AS error_um"
               f" FROM injections WHERE {ONE} AND {SINCE} AND $__timeFilter_ms(at)"
               " AND target_um > 0 AND measured_um IS NOT NULL ORDER BY at LIMIT 20000", unit="µm"),
        bars("Injections by outcome",
             "SELECT $__timeInterval(minute) AS time, sum(ok) AS \"OK\", sum(partial) AS \"PARTIAL\","
             " sum(aborted) AS \"ABORTED\", sum(occluded) AS \"OCCLUDED\", sum(no_contact) AS \"NO_CONTACT\""
             f" FROM accuracy_minute WHERE {ONE} AND $__timeFilter(minute) GROUP BY time ORDER BY time"),
        lines("Battery",
              "SELECT received_at AS time, battery_pct FROM device_status"
              f" WHERE {ONE} AND {SINCE} AND $__timeFilter_ms(received_at) AND battery_pct IS NOT NULL"
              " ORDER BY received_at LIMIT 20000", unit="percent"),
        table("Open alerts",
              f"SELECT raised_at, severity, tenant, title, alert_key FROM open_alerts WHERE {ONE}"
              " ORDER BY raised_at DESC LIMIT 500", links=[ALERT], hidden=["tenant"], width=12, height=8),
        table("Verdicts on accuracy",
              "SELECT channel, target, calibration_id, state, reason, sessions, n, mean_error, sd_error, computed_at"
              f" FROM accuracy_verdicts FINAL WHERE {ONE} AND current ORDER BY channel, target", width=12),
        table("Drift",
              "SELECT channel, band, calibration_id, state, side, sessions, last_error_pct, ewma, ewma_limit,"
              f" crossing_at, last_at FROM calibration_drift WHERE {ONE} ORDER BY channel, band", width=12),
        table("Sessions",
              "SELECT tenant, session_id, min(first_at) AS begun_at, max(last_at) AS ended_at,"
              " sum(injections) AS shots, 100 * sum(dose_error_nl) / nullIf(sum(dose_target_nl), 0) AS dose_error_pct"
              f" FROM accuracy_session WHERE {ONE} AND {SINCE} AND $__timeFilter_ms(last_at)"
              " GROUP BY tenant, session_id ORDER BY begun_at DESC LIMIT 1000", links=[SESSION], hidden=["tenant"],
              width=12),
        table("Faults",
              "SELECT at, code, state, detail, firmware FROM faults"
              f" WHERE {ONE} AND {SINCE} AND $__timeFilter_ms(at) ORDER BY at DESC LIMIT 1000", width=12),
        table("Completeness of each boot",
              "SELECT toString(boot_id) AS boot, made, stored, quarantined, lost, missing, tail_known = 1 AS end_known,"
              f" last_arrival FROM delivery_completeness WHERE {ONE} ORDER BY last_arrival DESC LIMIT 200",
              text="stored + quarantined + lost + missing = made."),
    ])


def sterility():
    dashboard("sterility", "sterility", "Sterilization cycles, and breaches of sterility.", "now-7d", "/sterility",
              [TENANTS, SITES], [
        stat("Breaches", "SELECT countIf(state = 'CONFIRMED') AS confirmed, countIf(state != 'CONFIRMED') AS open,"
             " uniqExactArrayIf(sessions, state = 'CONFIRMED') AS sessions_concerned"
             f" FROM sterility_breaches WHERE {HERE}", width=12,
             text="Open: a breach that cannot be excluded, or that waits for data."),
        stat("Cycles", "SELECT count() AS cycles, countIf(verdict = 'PASSED') AS passed,"
             " countIf(verdict != 'PASSED') AS not_passed"
             f" FROM cycle_verdicts WHERE $__timeFilter_ms(started_at) AND {HERE}", width=12),
        bars("Cycles by verdict", "SELECT $__timeInterval(started_at) AS time, verdict, count() AS cycles"
             f" FROM cycle_verdicts WHERE $__timeFilter_ms(started_at) AND {HERE}"
             " GROUP BY time, verdict ORDER BY time"),
        lines("Hold time by recipe", "SELECT $__timeInterval(started_at) AS time,"
              " JSONExtractString(recipe, 'recipe') AS name, min(hold_ms) / 1000 AS shortest_s"
              f" FROM cycle_verdicts WHERE $__timeFilter_ms(started_at) AND {HERE} AND hold_ms IS NOT NULL"
              " GROUP BY time, name ORDER BY time", unit="s", text="The shortest hold of the interval."),
        table("Breaches",
              "SELECT at, state, severity, rule, tenant, site, device, item_id, cycle_uid,"
              " length(sessions) AS session_count, reason, alert_key FROM sterility_breaches"
              f" WHERE {HERE} ORDER BY state, at DESC LIMIT 1000", links=[ALERT, DEVICE, CYCLE]),
        table("Cycles that did not pass",
              "SELECT started_at, tenant, site, device, cycle_uid,"
              " JSONExtractString(recipe, 'recipe') AS name, verdict, reason, release, hold_ms"
              f" FROM cycle_verdicts WHERE $__timeFilter_ms(started_at) AND {HERE} AND verdict != 'PASSED'"
              " ORDER BY started_at DESC LIMIT 1000", links=[CYCLE, DEVICE]),
        table("Indicators that were positive",
              "SELECT at, tenant, site, device, cycle_uid, kind, result FROM cycle_indicators"
              f" WHERE {HERE} AND {SINCE} AND $__timeFilter_ms(at) AND result = 'POSITIVE' ORDER BY at DESC LIMIT 1000",
              links=[CYCLE]),
    ])


def manufacturer():
    maker = variable("manufacturer", "Manufacturer",
                     "SELECT DISTINCT manufacturer FROM calibration_by_model ORDER BY manufacturer")
    model = variable("model", "Model", "SELECT DISTINCT model FROM calibration_by_model"
                     " WHERE manufacturer = ${manufacturer:sqlstring} ORDER BY model", multi=True)
    which = ("manufacturer = ${manufacturer:sqlstring} AND channel = ${channel:sqlstring}"
             " AND $__conditionalAll(model IN (${model:sqlstring}), $model) AND $__dateFilter(day)")
    dashboard("manufacturer", "manufacturer",
              "Units of one manufacturer over all tenants, under pseudonyms: no clinic, no session, no serial number.",
              "now-90d", "/manufacturer", [maker, model, choice("channel", "Channel", ["DOSE", "DEPTH"])], [
        stat("Units", "SELECT uniqExact(unit_key) AS units, sum(n) AS injections,"
             " 100 * sum(toFloat64(sum_error)) / nullIf(sum(toFloat64(sum_target)), 0) AS error_pct"
             f" FROM calibration_by_unit WHERE {which}"),
        lines("Error by firmware", "SELECT toDateTime(day) AS time, firmware,"
              " 100 * sum(toFloat64(sum_error)) / nullIf(sum(toFloat64(sum_target)), 0) AS error_pct"
              f" FROM calibration_by_unit WHERE {which} GROUP BY time, firmware ORDER BY time", unit="percent"),
        lines("Units in use by model", "SELECT toDateTime(day) AS time, model, uniqExact(unit_key) AS units"
              f" FROM calibration_by_unit WHERE {which} GROUP BY time, model ORDER BY time"),
        table("Model, firmware, lot",
              "SELECT model, firmware, lot, max(units) AS units_a_day, sum(n) AS shots,"
              " sum(error_pct * n) / sum(n) AS mean_error_pct FROM calibration_by_model"
              f" WHERE {which} AND error_pct IS NOT NULL GROUP BY model, firmware, lot"
              " ORDER BY abs(mean_error_pct) DESC LIMIT 1000"),
        table("Units that differ most",
              "SELECT unit_key, model, firmware, lot, sum(n) AS shots,"
              " 100 * sum(toFloat64(sum_error)) / nullIf(sum(toFloat64(sum_target)), 0) AS error_pct"
              f" FROM calibration_by_unit WHERE {which} GROUP BY unit_key, model, firmware, lot"
              " HAVING shots >= 30 ORDER BY abs(error_pct) DESC LIMIT 100"),
    ])


def pipeline():
    dashboard("pipeline", "pipeline",
              "Whether data moves: batches, positions, delays, quarantine, gaps and losses. Needs a user who reads all"
              " tenants.", "now-6h", "/pipeline", [], [
        stat("Now", "SELECT dateDiff('second', max(committed_at), now64(6, 'UTC')) AS since_last_batch_s,"
             " sumIf(rows, committed_at > now64(6, 'UTC') - INTERVAL 1 MINUTE) AS rows_last_minute"
             " FROM loader_commits WHERE kind = 'commit' AND committed_at > now64(6, 'UTC') - INTERVAL 1 DAY", width=8),
        stat("Delivery", "SELECT sum(missing_events) AS missing, sum(lost_events) AS lost, sum(open_gaps) AS gaps"
             " FROM fleet", width=8),
        stat("Delay of the latest report of each device",
             "SELECT quantile(0.5)(dateDiff('millisecond', last_arrival, committed_at)) AS p50,"
             " quantile(0.99)(dateDiff('millisecond', last_arrival, committed_at)) AS p99"
             " FROM loader_commits WHERE kind = 'ledger' AND $__timeFilter_ms(committed_at)", width=8, unit="ms",
             text="From the receipt by the bridge to the commit of the batch."),
        bars("Rows written", "SELECT $__timeInterval(committed_at) AS time, topic, sum(rows) AS written"
             " FROM loader_commits INNER JOIN kafka_topics USING (incarnation)"
             " WHERE kind = 'commit' AND $__timeFilter_ms(committed_at) GROUP BY time, topic ORDER BY time"),
        lines("Batches written", "SELECT $__timeInterval(committed_at) AS time, count() AS batches"
              " FROM loader_commits WHERE kind = 'commit' AND $__timeFilter_ms(committed_at)"
              " GROUP BY time ORDER BY time"),
        bars("Put into quarantine", "SELECT $__timeInterval(received_at) AS time, reason, count() AS refused"
             f" FROM quarantine WHERE {SINCE} AND $__timeFilter_ms(received_at) GROUP BY time, reason ORDER BY time"),
        table("Positions", "SELECT topic, incarnation, kafka_partition, max(batch_end) AS written_up_to,"
              " max(committed_at) AS last_batch_at"
              " FROM loader_commits INNER JOIN kafka_topics USING (incarnation)"
              " WHERE kind = 'commit' GROUP BY topic, incarnation, kafka_partition"
              " ORDER BY topic, incarnation, kafka_partition", width=12, height=8),
        table("Gaps",
              "SELECT since, tenant, site, device, toString(boot_id) AS boot, first_missing, last_missing,"
              " state FROM delivery_gaps WHERE $__timeFilter_ms(since) ORDER BY since DESC LIMIT 1000",
              links=[DEVICE]),
        table("Records that Kafka no longer had",
              "SELECT lost_at, topic, incarnation, kafka_partition, first_offset, last_offset, records, reason"
              " FROM kafka_losses ORDER BY lost_at DESC LIMIT 1000", height=6),
    ])


def rule(name, title, sql, above, lasting, text, runbook):
    """An alert rule: the one number of a query is above a limit for a time."""
    return {
        "uid": f"doseline-{name}", "title": title, "condition": "B", "for": lasting, "noDataState": "OK",
        "execErrState": "Error", "labels": {"service": "doseline"},
        "annotations": {"summary": text, "runbook_url": f"{RUNBOOK}#{runbook}"},
        "data": [
            {"refId": "A", "datasourceUid": "doseline-clickhouse", "relativeTimeRange": {"from": 600, "to": 0},
             "model": {"refId": "A", "editorType": "sql", "pluginVersion": PLUGIN, "format": 1, "queryType": "table",
                       "rawSql": sql}},
            {"refId": "B", "datasourceUid": "__expr__", "relativeTimeRange": {"from": 600, "to": 0},
             "model": {"refId": "B", "type": "threshold", "expression": "A",
                       "conditions": [{"evaluator": {"type": "gt", "params": [above]}}]}},
        ],
    }


def alerting():
    rules = [
        rule("no-batch", "No batch was written",
             "SELECT dateDiff('second', max(committed_at), now64(6, 'UTC')) AS seconds FROM loader_commits"
             " WHERE kind = 'commit'", 900, "1m", "ClickHouse has got no batch for 15 minutes.", "doselineloaderlate"),
        rule("quarantine", "Much is put into quarantine",
             "SELECT count() AS refused FROM quarantine WHERE ingest_day >= toDate(now('UTC')) - 1"
             " AND received_at > now64(6, 'UTC') - INTERVAL 10 MINUTE", 100, "5m",
             "More than 100 messages or events went into quarantine within 10 minutes.", "doselinequarantinerate"),
        rule("gaps", "Gaps stay open",
             "SELECT count() AS gaps FROM delivery_gaps WHERE state = 'OPEN'"
             " AND since < now64(6, 'UTC') - INTERVAL 1 HOUR", 0, "5m",
             "Events of a device have been missing for an hour while later ones have arrived.", "gaps-that-stay-open"),
        rule("kafka-losses", "Kafka no longer had records",
             "SELECT count() AS ranges FROM kafka_losses WHERE lost_at > now64(6, 'UTC') - INTERVAL 1 DAY", 0, "0s",
             "Records were lost between the bridge and ClickHouse within the last day.", "doselinerecordslost"),
        rule("alerts-waiting", "Critical alerts wait",
             "SELECT count() AS alerts FROM open_alerts WHERE severity = 'critical'"
             " AND raised_at < now64(6, 'UTC') - INTERVAL 1 HOUR", 0, "5m",
             "Nobody has acknowledged a critical alert of the monitor for an hour.", "critical-alerts-that-wait"),
    ]
    whole = {"apiVersion": 1, "groups": [
        {"orgId": 1, "name": "doseline pipeline", "folder": "doseline", "interval": "1m", "rules": rules}]}
    write(os.path.join("provisioning", "alerting", "doseline.json"), whole)


if __name__ == "__main__":
    for each in (fleet, device, sterility, manufacturer, pipeline, alerting):
        each()
