/** The verdict on a device in words, from what the monitor has found. */
import { level as levelOf, subject } from "./alert";
import type { Row } from "./api/client";
import type { DriftPoint } from "./charts/drift";
import { outsideSince } from "./charts/drift";
import { allowed, interval, type Range } from "./charts/histogram";
import { count, day, measured, moment } from "./format";
import { RANK, type Level } from "./level";
import { text } from "./text/en";

/** One thing about a device that somebody must know. */
export type Finding = {
  level: Level;
  sentence: string;
  /** The tab of the page that shows it, or the alert. */
  tab: string;
  alert?: string;
  channel?: string;
};
export type Judgement = { level: Level; headline: string; findings: Finding[]; channel: string };
export type Facts = {
  device: Row<"Device">;
  verdicts: Row<"Verdict">[];
  drift: Row<"Drift">[];
  due: Row<"Due">[];
  alerts: Row<"Alert">[];
  completeness: Row<"Completeness">[];
};

const CHANNELS = ["DOSE", "DEPTH"];

/**
 * Verdicts of the present calibration. A device that still names its earlier calibration after a new one is judged by
 * the earlier one: its injections are later than the new one.
 */
export function present(verdicts: Row<"Verdict">[], due: Row<"Due">[]): Row<"Verdict">[] {
  return verdicts.filter(verdict => {
    const latest = due.find(({ channel }) => channel === verdict.channel);
    return !latest?.performed_at || latest.calibration_id === verdict.calibration_id || verdict.last_at > latest.performed_at;
  });
}

/** The tolerance of a channel where all set points have the same, else the narrowest; and whether they differ. */
export function tolerance(verdicts: Row<"Verdict">[], channel: string): { limits: Range | undefined; differ: boolean } {
  const ranges = verdicts.filter(verdict => verdict.channel === channel).flatMap(verdict => allowed(verdict) ?? []);
  const narrowest = [...ranges].sort((a, b) => a.high - a.low - (b.high - b.low))[0];
  return { limits: narrowest, differ: ranges.some(range => Math.abs(range.high - (narrowest?.high ?? 0)) > 0.01) };
}

/** `points` are the sessions of a channel, where they are known already. */
export function judge(facts: Facts, points: Partial<Record<string, DriftPoint[]>>, zone: string, now: number): Judgement {
  const words = text.device.verdict;
  const current = present(facts.verdicts, facts.due);
  const findings: Finding[] = [];
  const covered = new Set<string>();
  const add = (level: Level, sentence: string, tab: string, channel?: string) => findings.push({ level, sentence, tab, channel });

  for (const verdict of current.filter(({ state }) => state === "FAIL")) {
    const { channel } = verdict;
    const limits = allowed(verdict);
    const most = interval(verdict);
    const limit = limits ? words.range(limits.low, limits.high) : "";
    const { differ } = tolerance(current, channel);
    const since = differ ? undefined : outsideSince(points[channel] ?? [], limits);
    const last = points[channel]?.at(-1);
    covered.add(`accuracy-verdict ${channel}`);
    if (since && last) add("stop", words.outside(channel, last.error_pct, moment(since.at, zone), limit), "errors", channel);
    else if (limits && most) {
      const high = most.high - limits.high > limits.low - most.low;
      add("stop", words.upTo(channel, high ? most.high : most.low, limit), "errors", channel);
    } else add("stop", words.failed(channel, measured(channel, verdict.target)), "errors", channel);
  }
  for (const { channel, state, due_at: at, days_left: days } of facts.due) {
    if (state === "OVERDUE") add("stop", words.overdue(channel, day(at, zone)), "calibrations", channel);
    else if (state === "DUE" && days != null) add("due", words.due(channel, day(at, zone), days), "calibrations", channel);
    if (state === "OVERDUE" || state === "DUE") covered.add(`calibration-overdue ${channel}`).add(`calibration-due ${channel}`);
  }
  for (const chart of facts.drift.filter(chart => chart.current && chart.state === "DRIFT")) {
    const signal = points[chart.channel]?.find(({ session_id }) => session_id === chart.signal_session);
    covered.add(`drift ${chart.channel}`);
    add("look", words.drifts(chart.channel, chart.side, points[chart.channel]?.at(-1)?.error_pct ?? chart.last_error_pct, signal ? moment(signal.at, zone) : ""), "drift", chart.channel);
    if (chart.crossing_at) {
      covered.add(`forecast ${chart.channel}`);
      const sentence = Date.parse(chart.crossing_at) < now ? words.hasLeft : words.willLeave;
      add("look", sentence(chart.channel, day(chart.crossing_at, zone), day(chart.crossing_low, zone), day(chart.crossing_high, zone)), "drift", chart.channel);
    }
  }
  const sum = (of: "missing" | "made" | "lost") => facts.completeness.reduce((total, boot) => total + boot[of], 0);
  if (sum("missing") > 0) {
    covered.add("sequence-gap");
    add("look", words.missing(count(sum("missing")), count(sum("made"))), "gaps");
  }
  if (sum("lost") > 0) add("look", words.lost(count(sum("lost"))), "gaps");
  if (facts.device.state === "LOST") add("look", words.offline(moment(facts.device.state_since ?? facts.device.last_seen, zone)), "status");
  for (const alert of facts.alerts.filter(alert => alert.holds || !alert.acknowledged)) {
    // Our own sentence about the same condition says it with the figures of this moment.
    const channel = CHANNELS.find(channel => alert.alert_key.split("/").includes(channel.toLowerCase()));
    // A retracted alert stays until somebody has acknowledged it.
    if (!alert.holds) {
      findings.push({ level: "due", sentence: words.retracted(alert.title), tab: "", alert: alert.alert_key });
      continue;
    }
    if (covered.has(channel ? `${alert.kind} ${channel}` : alert.kind)) continue;
    // What must not be used is the item, not the device that it was on.
    const level = levelOf(alert);
    const own = subject(alert).kind === "device" || level !== "stop";
    findings.push({ level: own ? level : "look", sentence: alert.acknowledged ? `${alert.title} (${words.acknowledged})` : alert.title, tab: "", alert: alert.alert_key });
  }
  for (const { channel, target, reason, n } of current.filter(({ state }) => state === "UNDECIDED")) add("due", words.undecided(channel, measured(channel, target), reason, n), "errors", channel);
  for (const channel of CHANNELS) {
    if (facts.verdicts.some(verdict => verdict.channel === channel) && !current.some(verdict => verdict.channel === channel)) add("due", words.uncalibrated(channel), "errors", channel);
  }

  findings.sort((a, b) => RANK[a.level] - RANK[b.level]);
  const first = findings[0];
  const channel = first?.channel ?? (current.some(verdict => verdict.channel === "DOSE") || current.length === 0 ? "DOSE" : "DEPTH");
  const passed = CHANNELS.flatMap(channel => {
    const of = current.filter(verdict => verdict.channel === channel && verdict.state === "PASS");
    const limits = tolerance(of, channel);
    if (of.length === 0 || !limits.limits) return [];
    const n = of.reduce((total, verdict) => total + verdict.n, 0);
    const targets = of.reduce((total, verdict) => total + verdict.target * verdict.n, 0);
    const mean = targets > 0 ? (100 * of.reduce((total, verdict) => total + verdict.mean_error * verdict.n, 0)) / targets : null;
    const range = limits.differ ? words.tolerance : words.range(limits.limits.low, limits.limits.high);
    return [words.within(channel, range, mean, n)];
  });
  // What is within tolerance is said also where something else is the matter.
  const well = passed.map((sentence): Finding => ({ level: "fine", sentence, tab: "errors" }));
  if (first?.level === "stop") return { level: "stop", headline: words.stop(first.sentence), findings: [...findings.slice(1), ...well], channel };
  if (first?.level === "look") return { level: "look", headline: words.look(first.sentence), findings: [...findings.slice(1), ...well], channel };
  if (passed.length > 0) return { level: first?.level ?? "fine", headline: words.fine(passed), findings, channel };
  return { level: "due", headline: words.none, findings, channel };
}
