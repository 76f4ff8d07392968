import { describe, expect, it, vi } from "vitest";
vi.mock("./router.svelte", () => ({ to: (parts: string[]) => `/${parts.map(encodeURIComponent).join("/")}` }));
import { factOf, folded, hrefOf, level, reach, sentence, subject, type Alert } from "./alert";

const alert = (over: Partial<Alert>): Alert => ({
  acknowledged: false, alert_key: "", completeness: "", computed_at: "", cycles: [], device: "inj-1", evidence_rows: "[]", holds: true, items: [], kind: "", raised_at: "",
  sessions: [], severity: "high", since: "2026-11-03T10:00:00Z", site: "s", state: "OPEN", tenant: "t", title: "", ...over,
});
const failed = alert({
  kind: "accuracy-verdict", alert_key: "accuracy-verdict/t/inj-1/dose/10000", title: "inj-1 is outside its dose tolerance at 10000 nl",
  evidence_rows: '[{"k":2.276,"k_actual":0.715,"limits":[9500,10500],"mean_error":300,"n":1124,"sessions":66}]',
});

describe("an alert", () => {
  it("says how far the tolerance interval reaches", () => {
    // sd = (10500 - 10300) / 0.715 = 279.72; 300 + 2.276 * 279.72 = 936.6 nl = 9.4 %
    expect(reach({ target: 10_000, mean: 300, k: 2.276, kActual: 0.715, low: 9500, high: 10_500 })).toBeCloseTo(9.366, 2);
    expect(reach({ target: 10_000, mean: -300, k: 2, kActual: 1, low: 9500, high: 10_500 })).toBeCloseTo(-7, 6);
    expect(reach({ target: 10_000, mean: 600, k: 2, kActual: -1, low: 9500, high: 10_500 })).toBeUndefined();
    expect(sentence(failed)).toBe("Doses at 10 µl are up to 9.37 % too high (limit ±5 %). Mean error +3.0 %, n = 1,124 in 66 sessions.");
  });
  it("falls back to the words of the monitor, in units of people", () => {
    expect(sentence({ ...failed, evidence_rows: "not JSON" })).toBe("Is outside its dose tolerance at 10 µl.");
    expect(sentence(alert({ kind: "new-kind", title: "something new" }))).toBe("Something new.");
  });
  it("says its facts in words, and equal changes once", () => {
    expect(factOf(failed, "k 2.276", String)).toBe(
      "Mean error of 1,124 injections in 66 sessions, with calibration . The limits must be 2.28 standard deviations away from the mean; they are 0.715.");
    const said = (what: string) => factOf(alert({ kind: "sterility-4" }), what, time => `at ${time.slice(11, 16)}`);
    expect(said("cycle C: outcome FAILED, release RELEASED, wet no")).toBe("cycle C: failed, its load was released");
    expect(said("used in the session: clock synced yes, last 2026-11-27T08:23:46Z, mounts inj-0005/m1")).toBe("used in the session: last injection at 08:23, mounted as inj-0005/m1");
    expect(said("something else")).toBe("something else");
    const event = (name: string, at: string, severity = "high") => ({ actor: "", alert_key: "k", at, event: name, holds: true, note: "x", sessions: [], severity, tenant: "t" });
    const rows = folded([event("CHANGED", "5"), event("CHANGED", "4"), event("CHANGED", "3", "low"), event("RAISED", "2"), event("RAISED", "1")]);
    expect(rows.map(row => [row.event, row.times, row.at, row.first_at])).toEqual([["CHANGED", 2, "5", "4"], ["CHANGED", 1, "3", "3"], ["RAISED", 1, "2", "2"], ["RAISED", 1, "1", "1"]]);
  });
  it("is about the item where sterility is concerned", () => {
    const used = alert({ kind: "sterility-2", severity: "critical", items: ["N30"], title: "single-use item N30 was used in 2 sessions" });
    expect(subject(used)).toMatchObject({ kind: "item", id: "N30" });
    expect(hrefOf(subject(used))).toBe("/trace/t/item/N30");
    expect(sentence(used)).toBe("Single-use: used in 2 sessions.");
    const after = alert({ kind: "sterility-5", items: ["H-7"], title: "item H-7 was used in 1 sessions after cycle C, which failed: x" });
    expect(sentence(after)).toBe("Used in 1 session after cycle C, which failed: x.");
    expect(subject(alert({ kind: "sterility-5", items: ["a", "b"], cycles: ["C"], device: "" }))).toMatchObject({ kind: "cycle", id: "C" });
    expect(subject(alert({ kind: "drift" }))).toMatchObject({ kind: "device", id: "inj-1" });
  });
  it("keeps a device out of use after somebody has acknowledged that it is out of tolerance", () => {
    expect(level({ ...failed, acknowledged: true })).toBe("stop");
    expect(level(alert({ kind: "sterility-2", severity: "critical" }))).toBe("stop");
    expect(level(alert({ kind: "sterility-2", severity: "critical", acknowledged: true }))).toBe("look");
    expect(level(alert({ kind: "sequence-gap", severity: "low" }))).toBe("look");
    expect(level({ ...failed, holds: false })).toBe("due");
    expect(level({ ...failed, state: "CLEARED" })).toBe("fine");
  });
});
