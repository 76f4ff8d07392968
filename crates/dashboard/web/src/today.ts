/** What must not be used and what to look at, from everything that is open: one entry for each device, item or cycle. */
import { alertHref, hrefOf, level, sentence, subject, type Alert, type Subject } from "./alert";
import type { Row } from "./api/client";
import { count } from "./format";
import { RANK, type Level } from "./level";
import { to } from "./router.svelte";
import { text } from "./text/en";

/** One finding: a sentence, and where to look. */
export type Point = { sentence: string; href: string; word: string; at: string; level: Level; acknowledged: boolean };
export type Entry = { key: string; level: Level; subject: Subject; href: string; points: Point[]; /** Device of an item; empty = several or not known. */ on: string };
export type Facts = {
  alerts: Alert[];
  overdue: Row<"Due">[];
  gaps: Row<"Gap">[];
  lost: Pick<Row<"Device">, "tenant" | "site" | "device" | "state_since" | "last_seen">[];
};

/** Missing events by device, the most first. */
export function missing(gaps: Row<"Gap">[]): { tenant: string; site: string; device: string; events: number; since: string }[] {
  const devices = new Map<string, { tenant: string; site: string; device: string; events: number; since: string }>();
  for (const gap of gaps.filter(({ state }) => state === "OPEN")) {
    const { tenant, site, device, since } = gap;
    const known = devices.get(`${tenant}/${device}`) ?? { tenant, site, device, events: 0, since };
    known.events += gap.last_missing - gap.first_missing + 1;
    if (since < known.since) known.since = since;
    devices.set(`${tenant}/${device}`, known);
  }
  return [...devices.values()].sort((a, b) => b.events - a.events);
}

export function entries(facts: Facts): { stop: Entry[]; look: Entry[] } {
  const words = text.today;
  const found = new Map<string, Entry>();
  const add = (about: Subject, point: Point, on = "") => {
    const key = `${about.kind}/${about.tenant}/${about.id}`;
    const entry = found.get(key) ?? { key, level: "fine", subject: about, href: hrefOf(about), points: [], on: "" };
    entry.points.push(point);
    if (about.kind === "item" && on) entry.on = on;
    if (RANK[point.level] < RANK[entry.level]) entry.level = point.level;
    found.set(key, entry);
  };
  const device = (row: { tenant: string; site: string; device: string }): Subject => ({ kind: "device", tenant: row.tenant, site: row.site, id: row.device });
  const tab = (row: { tenant: string; device: string }, name: string, channel = "") => to(["devices", row.tenant, row.device], { tab: name, channel });
  const said = new Set<string>();

  const gaps = missing(facts.gaps);
  const failed = new Set(facts.alerts.filter(({ kind }) => kind === "accuracy-verdict").map(alert => `${alert.tenant}/${alert.device}/${alert.alert_key.split("/").at(-2)}`));
  for (const alert of facts.alerts) {
    // What may come has come.
    if (alert.kind === "forecast" && failed.has(`${alert.tenant}/${alert.device}/${alert.alert_key.split("/").at(-2)}`)) continue;
    // The gaps say it with the number of events.
    if (alert.kind === "sequence-gap" && gaps.some(gap => gap.tenant === alert.tenant && gap.device === alert.device)) continue;
    if (alert.kind === "calibration-overdue") said.add(`${alert.tenant}/${alert.device}/${alert.alert_key.split("/").at(-2)?.toUpperCase()}`);
    const about = subject(alert);
    add(about, { sentence: sentence(alert), href: alertHref(alert), word: words.why.device ?? "", at: alert.raised_at, level: level(alert), acknowledged: alert.acknowledged }, alert.device);
  }
  for (const due of facts.overdue) {
    if (said.has(`${due.tenant}/${due.device}/${due.channel}`)) continue;
    const days = Math.max(1, -(due.days_left ?? 0));
    add(device({ ...due, site: "" }), {
      sentence: words.overdue(text.channel[due.channel] ?? due.channel, days), href: tab(due, "calibrations", due.channel), word: words.calibration, at: due.due_at ?? "", level: "stop", acknowledged: false,
    });
  }
  for (const gap of gaps) {
    add(device(gap), { sentence: words.missing(count(gap.events)), href: tab(gap, "gaps"), word: words.gaps, at: gap.since, level: "look", acknowledged: false });
  }
  for (const row of facts.lost) {
    add(device(row), { sentence: words.lost, href: tab(row, "status"), word: words.status, at: row.state_since ?? row.last_seen ?? "", level: "look", acknowledged: false });
  }

  const all = [...found.values()];
  // The gravest finding first; of equals the latest.
  for (const entry of all) entry.points.sort((a, b) => RANK[a.level] - RANK[b.level] || b.at.localeCompare(a.at));
  all.sort((a, b) => Number(a.points.every(point => point.acknowledged)) - Number(b.points.every(point => point.acknowledged)) || (b.points[0]?.at ?? "").localeCompare(a.points[0]?.at ?? ""));
  return { stop: all.filter(entry => entry.level === "stop"), look: all.filter(entry => entry.level === "look" || entry.level === "due") };
}
