import { describe, expect, it } from "vitest";
import type { Cycle } from "./sterile";
import { usable } from "./usable";

const event = (at: string, event: string, slot = "HANDPIECE") => ({ at, event, slot, cycle_uid: event === "STERILIZED" ? "c" : "" });
const cycles = (more: Partial<Cycle> = {}) => new Map([["c", { cycle_uid: "c", verdict: "PASSED", decision: "RELEASED", indicators_positive: 0, load_dry: true, ...more } as Cycle]]);
const breach = (more: object) => ({ item_id: "H", cycle_uid: "", state: "CONFIRMED", at: "4", rule: 7, reason: "why", ...more });
const says = (events: ReturnType<typeof event>[], of = cycles(), breaches: ReturnType<typeof breach>[] = []) => {
  const answer = usable("H", events, of, breaches);
  return answer && [answer.level, answer.why];
};
const CLEAN = [event("1", "USED"), event("2", "STERILIZED")];

describe("whether an item may be used now", () => {
  it("is ready after a passed, released, dry cycle, until it is used", () => {
    expect(says(CLEAN)).toEqual(["fine", "ready"]);
    expect(says([event("3", "USED"), ...CLEAN])).toEqual(["stop", "usedSince"]);
    expect(says([event("3", "MOUNTED"), ...CLEAN])).toEqual(["look", "opened"]);
  });
  it("depends on verdict, indicator, decision and dryness of the latest cycle", () => {
    expect(says(CLEAN, cycles({ verdict: "FAILED" }))).toEqual(["stop", "failed"]);
    expect(says(CLEAN, cycles({ verdict: "INDETERMINATE" }))).toEqual(["stop", "failed"]);
    expect(says(CLEAN, cycles({ indicators_positive: 1 }))).toEqual(["stop", "positive"]);
    expect(says(CLEAN, cycles({ decision: "REJECTED" }))).toEqual(["stop", "rejected"]);
    expect(says(CLEAN, cycles({ load_dry: false }))).toEqual(["stop", "wet"]);
    expect(says(CLEAN, cycles({ verdict: "PENDING" }))).toEqual(["look", "pending"]);
    expect(says(CLEAN, cycles({ decision: "" }))).toEqual(["look", "notReleased"]);
    expect(says(CLEAN, new Map())).toEqual(["look", "unknownCycle"]);
  });
  it("is never ready without a cycle", () => {
    expect(says([event("1", "USED", "NEEDLE")])).toEqual(["stop", "usedOnce"]);
    expect(says([event("1", "USED")])).toEqual(["stop", "usedSince"]);
    expect(says([event("1", "MOUNTED")])).toEqual(["look", "opened"]);
    expect(says([event("1", "REPROCESSED")])).toEqual(["look", "noCycle"]);
    expect(says([])).toBeUndefined();
  });
  it("minds breaches since the latest cycle, and a recall of that cycle", () => {
    expect(says(CLEAN, cycles(), [breach({})])).toEqual(["stop", "breach"]);
    expect(says(CLEAN, cycles(), [breach({ at: "1" }), breach({ state: "PENDING" }), breach({ item_id: "other" })])).toEqual(["fine", "ready"]);
    expect(says(CLEAN, cycles(), [breach({ item_id: "", at: "1", rule: 9, cycle_uid: "c" })])).toEqual(["stop", "breach"]);
  });
});
