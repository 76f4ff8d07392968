/** What a sterilization cycle says: how urgent it is, and the limits of its recipe. */
import type { Row } from "./api/client";
import { RANK, type Level } from "./level";

/** A cycle; the limits that it was judged by where the server tells them. */
export type Cycle = Row<"Cycle"> & { limits?: string; f0_trapezoid_ms?: number | null; saturation_mk?: number | null };
export type Sample = Row<"Sample">;

/** Limits of a recipe. */
export type Limits = {
  /** Lower end of the band, Celsius, inclusive. */
  low: number;
  /** Upper end of the band, Celsius, inclusive. */
  high: number;
  /** Time that is required in the band, s. */
  hold: number;
  /** Longest time between two samples, s; a longer one breaks the hold. */
  gap: number;
  /** Whether these are the limits that the cycle was judged by, else those of the recipe that is known by this name. */
  judged: boolean;
};

/** Recipes that are known without registration: docs/sterility.md. */
const KNOWN: Record<string, [low: number, hold: number]> = {
  "134C-3min": [134, 180],
  "134C-3.5min-BD": [134, 210],
  "132C-4min": [132, 240],
  "121C-15min": [121, 900],
  "121C-30min": [121, 1800],
};

type Judged = { temperature_min_mc: number; temperature_max_mc: number; hold_ms: number; gap_max_ms: number };

/** The limits of a cycle; undefined where its recipe is not known. */
export function limitsOf(cycle: Cycle): Limits | undefined {
  if (cycle.limits) {
    const judged = JSON.parse(cycle.limits) as Partial<Judged>;
    if (judged.temperature_min_mc !== undefined && judged.temperature_max_mc !== undefined) {
      const seconds = (ms: number | undefined) => (ms ?? 0) / 1000;
      const [low, high] = [judged.temperature_min_mc / 1000, judged.temperature_max_mc / 1000];
      return { low, high, hold: seconds(judged.hold_ms), gap: seconds(judged.gap_max_ms), judged: true };
    }
  }
  const known = KNOWN[cycle.recipe];
  return known && { low: known[0], high: known[0] + 3, hold: known[1], gap: 15, judged: false };
}

const failed = ({ verdict }: Cycle) => verdict === "FAILED" || verdict === "INDETERMINATE";

/** How urgent a cycle is: its load was released although it is not known to be sterile; it did not pass; it waits. */
export function urgency(cycle: Cycle): Level {
  if ((failed(cycle) && cycle.decision === "RELEASED") || cycle.indicators_positive > 0) return "stop";
  if (failed(cycle)) return "look";
  return waits(cycle) ? "due" : "fine";
}

/** Whether somebody still has to do or decide something about it. */
export const waits = (cycle: Cycle): boolean =>
  cycle.verdict === "PENDING" || cycle.verdict === "" || (cycle.purpose === "LOAD" && cycle.decision === "" && !failed(cycle));

/** The worst first, then the latest. */
export function worstFirst(cycles: Cycle[]): Cycle[] {
  return [...cycles].sort((a, b) => RANK[urgency(a)] - RANK[urgency(b)] || Date.parse(b.started_at) - Date.parse(a.started_at));
}
