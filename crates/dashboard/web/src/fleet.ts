/** The fleet in words, and its filter. Ten thousand devices are filtered here, without asking the server. */
import { kindOf, level, subject, type Alert } from "./alert";
import type { FleetDevice } from "./api/rows";
import { count } from "./format";
import { RANK, type Level } from "./level";
import { text } from "./text/en";

/** Days before a calibration is due from which the page says so, and percent of a battery. */
const DUE_DAYS = 14;
const BATTERY_PCT = 15;

export type Use = { level: Level; words: string };
export type Filter = { text: string; state: string; verdict: string; kind: string; attention: boolean };
export type Judged = { row: FleetDevice; use: Use; /** What the text filter looks in. */ haystack: string };

/** Alerts that a column or a figure of the row says already. */
const SAID = ["accuracy-verdict", "calibration-overdue", "drift", "forecast", "sequence-gap"];

/**
 * Whether a device may be used, in words. An alert about an item that was on the device concerns the item: the device
 * is to be looked at, and the start page lists the item.
 */
export function use(row: FleetDevice, alerts: Alert[] = []): Use {
  const words = text.fleet.use;
  const others = alerts.filter(alert => !SAID.includes(alert.kind));
  const kinds = (of: Alert[]) => [...new Set(of.map(kindOf))].map(kind => kind.charAt(0).toLowerCase() + kind.slice(1));
  const grave = others.filter(alert => level(alert) === "stop" && subject(alert).kind === "device");
  const watched = others.filter(alert => level(alert) !== "fine");
  const stop = [
    row.dose_state === "FAIL" && words.dose,
    row.depth_state === "FAIL" && words.depth,
    row.days_left !== null && row.days_left < 0 && words.overdue,
    ...kinds(grave),
  ].filter(part => part !== false);
  if (stop.length > 0) return { level: "stop", words: words.stop(stop.join(", ")) };
  const look = [
    ...kinds(watched.filter(alert => subject(alert).kind === "device")),
    ...kinds(watched.filter(alert => subject(alert).kind !== "device")).map(words.item),
    row.crossing_at !== null ? words.crossing : row.drift_state === "DRIFT" && words.drift,
    row.missing > 0 && words.missing(count(row.missing)),
    row.state === "LOST" && words.lost,
    row.battery_pct !== null && row.battery_pct < BATTERY_PCT && words.battery,
  ].filter(part => part !== false);
  if (look.length > 0) return { level: "look", words: look.join(", ") };
  if (row.days_left !== null && row.days_left <= DUE_DAYS) return { level: "due", words: words.due(row.days_left) };
  return { level: "fine", words: words.fine };
}

/** The devices with their words, what needs somebody first. */
export function judged(rows: FleetDevice[], alerts: Alert[] = []): Judged[] {
  const ofDevice = new Map<string, Alert[]>();
  for (const alert of alerts) {
    const key = `${alert.tenant}/${alert.device}`;
    ofDevice.set(key, [...(ofDevice.get(key) ?? []), alert]);
  }
  const all = rows.map(row => ({
    row,
    use: use(row, ofDevice.get(`${row.tenant}/${row.device}`)),
    haystack: [row.device, row.model, row.serial, row.firmware, row.site, row.tenant].join("\n").toLowerCase(),
  }));
  return all.sort((a, b) => RANK[a.use.level] - RANK[b.use.level]);
}

export function matches({ row, use, haystack }: Judged, filter: Filter): boolean {
  const verdict = (state: string) => (filter.verdict === "NONE" ? state === "" : state === filter.verdict);
  return (
    (!filter.attention || use.level !== "fine") &&
    (!filter.state || row.state === filter.state) &&
    (!filter.kind || row.kind === filter.kind) &&
    (!filter.verdict || (filter.verdict === "NONE" ? verdict(row.dose_state) && verdict(row.depth_state) : verdict(row.dose_state) || verdict(row.depth_state))) &&
    filter.text.toLowerCase().split(/\s+/).every(word => haystack.includes(word))
  );
}
