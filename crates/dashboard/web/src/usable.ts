/** Whether an item may be used now, by what has arrived: what a nurse asks who scans its label. */
import type { Row } from "./api/client";
import type { Level } from "./level";
import type { Cycle } from "./sterile";

export type Usable = {
  level: Level;
  /** Why, as a name of `text.trace.usable`. */
  why: "usedOnce" | "usedSince" | "failed" | "rejected" | "wet" | "positive" | "breach" | "notReleased" | "pending" | "unknownCycle" | "opened" | "noCycle" | "ready";
  cycle?: Cycle;
  /** Use or cycle that decides; empty = none. */
  at: string;
  /** breach: what happened. */
  reason?: string;
};

type Event = Pick<Row<"ItemEvent">, "at" | "event" | "slot" | "cycle_uid">;
type Breach = Pick<Row<"Breach">, "item_id" | "cycle_uid" | "state" | "at" | "rule" | "reason">;

/** Slots whose items count as single use where the device does not say otherwise: docs/sterility.md. */
const SINGLE_USE = ["NEEDLE", "SYRINGE", "CARTRIDGE"];
const RECALL = 9;

/** Judges by the latest cycle and the uses after it; undefined without any event. */
export function usable(item: string, events: Event[], cycles: ReadonlyMap<string, Cycle>, breaches: Breach[]): Usable | undefined {
  const sorted = [...events].sort((a, b) => a.at.localeCompare(b.at));
  const use = sorted.findLast(({ event }) => event === "USED");
  const sterilized = sorted.findLast(({ event }) => event === "STERILIZED");
  const mount = sorted.findLast(({ event }) => event === "MOUNTED" || event === "PRIMED");
  if (sorted.length === 0) return undefined;
  const since = sterilized?.at ?? "";
  const breach = breaches.find(({ item_id, cycle_uid, state, at, rule }) =>
    state === "CONFIRMED" && ((item_id === item && at > since) || (rule === RECALL && sterilized !== undefined && cycle_uid === sterilized.cycle_uid)));
  if (!sterilized) {
    if (use && SINGLE_USE.includes(use.slot)) return { level: "stop", why: "usedOnce", at: use.at };
    if (breach) return { level: "stop", why: "breach", at: breach.at, reason: breach.reason };
    if (use) return { level: "stop", why: "usedSince", at: use.at };
    return mount ? { level: "look", why: "opened", at: mount.at } : { level: "look", why: "noCycle", at: "" };
  }
  const cycle = cycles.get(sterilized.cycle_uid);
  const says = (level: Level, why: Usable["why"], at = sterilized.at): Usable => ({ level, why, cycle, at });
  if (use && use.at > sterilized.at) return says("stop", "usedSince", use.at);
  if (breach) return { ...says("stop", "breach", breach.at), reason: breach.reason };
  if (!cycle) return says("look", "unknownCycle");
  if (cycle.indicators_positive > 0) return says("stop", "positive");
  if (cycle.verdict === "FAILED" || cycle.verdict === "INDETERMINATE") return says("stop", "failed");
  if (cycle.decision === "REJECTED") return says("stop", "rejected");
  if (cycle.load_dry === false) return says("stop", "wet");
  if (cycle.verdict !== "PASSED") return says("look", "pending");
  if (mount && mount.at > sterilized.at) return says("look", "opened", mount.at);
  return cycle.decision === "RELEASED" ? says("fine", "ready") : says("look", "notReleased");
}
