/** What an alert says to people: how urgent it is, about what, and in which words. */
import type { Row } from "./api/client";
import { count, day, figure, measured, percent } from "./format";
import type { Level } from "./level";
import { to } from "./router.svelte";
import { text } from "./text/en";

export type Alert = Row<"Alert">;
/** What must not be used or looked at: a device, an item, a cycle. */
export type Subject = { kind: "device" | "item" | "cycle" | "site" | "tenant"; tenant: string; site: string; id: string };
type Fact = Record<string, unknown>;

const number = (value: unknown): number | undefined => (typeof value === "number" && Number.isFinite(value) ? value : undefined);

/** The first fact of the alert; empty where it has none. */
function fact(alert: Alert): Fact {
  try {
    const rows = JSON.parse(alert.evidence_rows) as unknown;
    const first: unknown = Array.isArray(rows) ? rows[0] : undefined;
    return typeof first === "object" && first !== null ? (first as Fact) : {};
  } catch {
    return {};
  }
}

/** The channel that the key of the alert names. */
const channelOf = (alert: Alert): string => (alert.alert_key.split("/").includes("depth") ? "DEPTH" : "DOSE");

/**
 * How urgent an alert is now. A device that is out of tolerance or whose calibration is overdue stays out of use after
 * somebody has acknowledged it; other grave alerts have been dealt with then.
 */
export function level(alert: Alert): Level {
  if (alert.state !== "OPEN") return "fine";
  if (!alert.holds) return "due";
  if (alert.kind === "accuracy-verdict" || alert.kind === "calibration-overdue") return "stop";
  if (alert.severity === "critical" || alert.severity === "high") return alert.acknowledged ? "look" : "stop";
  return "look";
}

/** What the alert is about. Sterility is about the item, where one item is concerned. */
export function subject(alert: Alert): Subject {
  const of = (kind: Subject["kind"], id: string): Subject => ({ kind, id, tenant: alert.tenant, site: alert.site });
  const [item, ...items] = alert.items;
  const [cycle, ...cycles] = alert.cycles;
  if (alert.kind.startsWith("sterility-")) {
    if (item && items.length === 0) return of("item", item);
    if (cycle && cycles.length === 0) return of("cycle", cycle);
  }
  if (alert.device) return of("device", alert.device);
  if (alert.site) return of("site", alert.site);
  return of("tenant", alert.tenant);
}

export function hrefOf({ kind, tenant, site, id }: Subject): string {
  if (kind === "device") return to(["devices", tenant, id]);
  if (kind === "item") return to(["trace", tenant, "item", id]);
  if (kind === "cycle") return to(["cycles", tenant, id]);
  return to(["fleet"], { tenant, site: kind === "site" ? site : "" });
}

export const alertHref = (alert: Pick<Alert, "tenant" | "alert_key">): string => to(["alerts", alert.tenant, alert.alert_key]);

/**
 * The error that the tolerance interval reaches beyond a limit, percent of the target. `k_actual` is the factor with
 * which the interval would just touch the nearer limit, so it holds the standard deviation.
 */
export function reach(row: { target: number; mean: number; k: number | undefined; kActual: number | undefined; low: number; high: number }): number | undefined {
  const { target, mean, k, kActual, low, high } = row;
  if (target === 0 || k === undefined || kActual === undefined || kActual <= 0) return undefined;
  const at = target + mean;
  const up = high - at <= at - low;
  const sd = (up ? high - at : at - low) / kActual;
  return sd > 0 ? (100 * (up ? mean + k * sd : mean - k * sd)) / target : undefined;
}

function outside(alert: Alert, row: Fact): string | undefined {
  const says = text.alerts.says;
  const target = number(Number(alert.alert_key.split("/").at(-1)));
  const [mean, n] = [number(row.mean_error), number(row.n)];
  const [low, high] = (Array.isArray(row.limits) ? row.limits : []).map(number);
  if (!target || mean === undefined || n === undefined || low === undefined || high === undefined) return undefined;
  const channel = channelOf(alert);
  const limit = `±${figure((50 * (high - low)) / target)} %`;
  const of = (value: number) => `${percent((100 * value) / target, 1)}`;
  const most = reach({ target, mean, k: number(row.k), kActual: number(row.k_actual), low, high });
  if (most === undefined) return says.outsideMean(channel, measured(channel, target), of(mean), limit, count(n));
  return says.outside(channel, measured(channel, target), `${figure(Math.abs(most))} %`, most > 0, limit, of(mean), count(n), number(row.sessions) ?? 0);
}

/** Words of the monitor in units of people. */
export const inUnits = (words: string): string =>
  words.replace(/\b1 sessions\b/, text.alerts.sessions(1)).replace(/\b(\d+) (nl|um)\b/g, (_, value: string, unit: string) => measured(unit === "um" ? "DEPTH" : "DOSE", Number(value)));

/** Words of the monitor without the name that stands before them on the page. */
function trimmed(alert: Alert): string {
  let said = inUnits(alert.title);
  const { kind, id } = subject(alert);
  for (const name of [`${kind} ${id} `, `${id} `]) {
    const at = said.indexOf(name);
    if (at < 0 || at > 12) continue;
    const before = said.slice(0, at).trim();
    said = said.slice(at + name.length).replace(/^was /, "");
    if (before) said = `${before}: ${said}`;
    break;
  }
  return said.charAt(0).toUpperCase() + said.slice(1) + (/[.!?]$/.test(said) ? "" : ".");
}

/** The evidence in one sentence. */
export function sentence(alert: Alert): string {
  const says = text.alerts.says;
  const row = fact(alert);
  const channel = channelOf(alert);
  const n = number(row.injections) ?? 0;
  switch (alert.kind) {
    case "accuracy-verdict":
      return outside(alert, row) ?? trimmed(alert);
    case "drift":
      return says.drift(channel, row.side === "UPPER");
    case "forecast":
      return says.forecast(channel, /within (\d+) days/.exec(alert.title)?.[1] ?? "30");
    case "spike":
      return says.spike(channel, alert.sessions.length);
    case "calibration-overdue":
      return says.overdue(channel, day(alert.since), alert.sessions.length);
    case "depth-unsafe":
      return says.unsafe(n, measured("DEPTH", number(row.deepest_um)));
    case "single-dose":
      return says.single("DOSE", n, measured("DOSE", Math.abs(number(row.largest_error_nl) ?? 0)));
    case "single-depth":
      return says.single("DEPTH", n, measured("DEPTH", Math.abs(number(row.largest_error_um) ?? 0)));
    case "occlusion":
      return says.occlusion;
    case "mass-balance": {
      const by = number(row.balance_nl);
      return by === undefined ? trimmed(alert) : says.balance(by > 0, measured("DOSE", Math.abs(by)), String(row.mount ?? ""));
    }
    case "sequence-gap":
      return says.gap;
    default:
      return trimmed(alert);
  }
}

/** A session or cycle that a fact names, in the words of the page: `at` writes a time in the zone of the site. */
function named(what: string, at: (time: string) => string): string {
  const words = text.alerts.named;
  return what
    .replace(/\bclock synced (yes|no), /, (_, synced: string) => (synced === "no" ? `${words.unsure}, ` : ""))
    .replace(/\blast (\d{4}-\d\d-\d\dT[\d:.]+Z)/, (_, time: string) => words.until(at(time)))
    .replace(/\bmounts (.+)$/, (_, ids: string) => words.mounts(ids))
    .replace(/\boutcome ([A-Z]+)/, (_, outcome: string) => words.outcome[outcome] ?? outcome.toLowerCase())
    .replace(/\brelease ([A-Z]+)/, (_, release: string) => words.release[release] ?? release.toLowerCase())
    .replace(/, wet (yes|no)\b/, (_, wet: string) => (wet === "yes" ? `, ${words.wet}` : ""));
}

/** A fact in words; `what` is what the server says of it. */
export function factOf(alert: Alert, what: string, at: (time: string) => string): string {
  const words = text.alerts.fact;
  const row = fact(alert);
  const calibration = String(row.calibration ?? "");
  if (alert.kind === "drift") return words.drift(row.side === "UPPER", calibration);
  if (alert.kind === "forecast") return words.forecast(row.side === "UPPER", calibration);
  const [k, actual, n] = [number(row.k), number(row.k_actual), number(row.n)];
  if (alert.kind !== "accuracy-verdict" || k === undefined || actual === undefined || n === undefined) return named(what, at);
  return words.verdict(count(n), text.alerts.sessions(number(row.sessions) ?? 0), figure(k), figure(actual), calibration);
}

/** The history with equal events one after the other as one, the latest first. */
export function folded(events: Row<"AlertEvent">[]): (Row<"AlertEvent"> & { times: number; first_at: string })[] {
  const rows: (Row<"AlertEvent"> & { times: number; first_at: string })[] = [];
  for (const event of events) {
    const last = rows.at(-1);
    if (last && event.event === "CHANGED" && (["event", "severity", "note", "holds", "actor"] as const).every(name => last[name] === event[name])) {
      last.times += 1;
      last.first_at = event.at;
    } else rows.push({ ...event, times: 1, first_at: event.at });
  }
  return rows;
}

export const kindOf = (alert: Pick<Alert, "kind">): string => text.alerts.kind[alert.kind] ?? alert.kind.replaceAll("-", " ");
export const adviceOf = (alert: Alert): string => text.alerts.advice[alert.kind] ?? (alert.kind.startsWith("sterility-") ? (text.alerts.advice.sterility ?? "") : "");
