import { describe, expect, it, vi } from "vitest";
vi.mock("./router.svelte", () => ({ to: () => "" }));
import type { Alert } from "./alert";
import type { FleetDevice } from "./api/rows";
import { judged, matches, use, type Filter } from "./fleet";

const device = (over: Partial<FleetDevice> = {}): FleetDevice => ({
  tenant: "t", site: "s", device: "inj-1", registration: "", kind: "INJECTOR", model: "mesogun-2", manufacturer: "", serial: "", gateway: "", firmware: "2.4.1", state: "ONLINE", state_since: null,
  battery_pct: 80, outbox_events: 0, injection_no: 1, last_seen: null, open_gaps: 0, missing_events: 0, lost_events: 0, alerts: 0, worst_severity: "", dose_state: "PASS", depth_state: "PASS",
  dose_error_pct: 0.1, drift_state: "IN_CONTROL", crossing_at: null, breaches: 0, due_at: null, days_left: 100, made: 5, stored: 5, missing: 0, spark: [], ...over,
});
const alert = (kind: string): Alert => ({
  acknowledged: false, alert_key: "", completeness: "", computed_at: "", cycles: [], device: "inj-1", evidence_rows: "[]", holds: true, items: [], kind, raised_at: "", sessions: [],
  severity: "critical", since: "", site: "s", state: "OPEN", tenant: "t", title: "",
});
const filter = (over: Partial<Filter> = {}): Filter => ({ text: "", state: "", verdict: "", kind: "", attention: false, ...over });
const fits = (row: FleetDevice, over: Partial<Filter>) => judged([row]).filter(one => matches(one, filter(over))).length === 1;

describe("a device of the fleet", () => {
  it("is quiet while nothing speaks against it", () => expect(use(device())).toEqual({ level: "fine", words: "" }));
  it("is not to be used out of tolerance, overdue, or with a grave alert", () => {
    expect(use(device({ dose_state: "FAIL" }), [alert("accuracy-verdict")])).toEqual({ level: "stop", words: "Do not use: dose out of tolerance" });
    expect(use(device({ days_left: -1 })).words).toBe("Do not use: calibration overdue");
    expect(use(device(), [alert("depth-unsafe")]).words).toBe("Do not use: injected too deep");
    expect(use(device(), [{ ...alert("depth-unsafe"), acknowledged: true }])).toEqual({ level: "look", words: "injected too deep" });
  });
  it("is to be looked at when an item on it must not be used", () => {
    expect(use(device(), [{ ...alert("sterility-2"), items: ["N30"] }])).toEqual({ level: "look", words: "an item on it: used again" });
  });
  it("is to be looked at when something is missing, drifts, or is lost", () => {
    expect(use(device({ missing: 7 }), [alert("sequence-gap")])).toEqual({ level: "look", words: "7 missing" });
    expect(use(device({ drift_state: "DRIFT" })).words).toBe("drifts");
    expect(use(device({ state: "LOST", battery_pct: 3 })).words).toBe("connection lost, battery low");
    expect(use(device({ days_left: 14 }))).toEqual({ level: "due", words: "calibration due in 14 days" });
  });
  it("fits a filter", () => {
    expect(fits(device(), { text: "MESO 2.4" })).toBe(true);
    expect(fits(device(), { text: "meso 9" })).toBe(false);
    expect(fits(device(), { attention: true })).toBe(false);
    expect(fits(device({ depth_state: "FAIL" }), { verdict: "FAIL" })).toBe(true);
    expect(fits(device(), { verdict: "NONE" })).toBe(false);
    expect(fits(device({ dose_state: "", depth_state: "" }), { verdict: "NONE" })).toBe(true);
    expect(fits(device(), { state: "LOST" })).toBe(false);
    expect(fits(device(), { kind: "BENCH" })).toBe(false);
  });
  it("is found among ten thousand in far less than 100 ms", () => {
    const all = judged(Array.from({ length: 10_000 }, (_, at) => device({ device: `D-${at}` })));
    const start = performance.now();
    expect(all.filter(one => matches(one, filter({ text: "d-99 meso" }))).length).toBe(111);
    expect(performance.now() - start).toBeLessThan(100);
  });
});
