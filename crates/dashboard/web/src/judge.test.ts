import { expect, test, vi } from "vitest";
vi.mock("./router.svelte", () => ({ to: () => "" }));
import type { Row } from "./api/client";
import type { DriftPoint } from "./charts/drift";
import { judge, present, type Facts } from "./judge";

const NOW = Date.parse("2026-12-01T00:00:00Z");
const verdict = (more: Partial<Row<"Verdict">> = {}) => ({
  channel: "DOSE", target: 10_000, state: "PASS", calibration_id: "c2", limit_low: 9500, limit_high: 10_500, mean_error: 30, sd_error: 100, k_clustered: 2.2, k_actual: 4.7, n: 400,
  sessions: 20, last_at: "2026-11-30T10:00:00Z", reason: "the tolerance interval lies within the limits", ...more,
}) as Row<"Verdict">;
const due = (more: Partial<Row<"Due">> = {}) => ({ channel: "DOSE", calibration_id: "c2", performed_at: "2026-11-01T00:00:00Z", due_at: "2027-11-01T00:00:00Z", days_left: 335, state: "OK", ...more }) as Row<"Due">;
const alert = (more: Partial<Row<"Alert">> = {}) => ({ state: "OPEN", device: "pen-1", items: [], cycles: [], alert_key: "sterility-2/acme/item/n", kind: "sterility-2", severity: "critical", holds: true, acknowledged: false, title: "a needle was used twice", ...more }) as Row<"Alert">;
const session = (error_pct: number, at: string) => ({ session_id: at, at, error_pct }) as DriftPoint;
const facts = (more: Partial<Facts> = {}): Facts => ({ device: { state: "ONLINE" } as Row<"Device">, verdicts: [verdict()], drift: [], due: [due()], alerts: [], completeness: [], ...more });

test("a device within its tolerance is fine", () => {
  const { level, headline } = judge(facts(), {}, "UTC", NOW);
  expect(level).toBe("fine");
  expect(headline).toBe("Fine: doses are within ±5 % (mean +0.30 %, n = 400)");
});

test("a failed verdict says how far off and since when", () => {
  const points = { DOSE: [session(1, "2026-11-23T09:00:00Z"), session(8, "2026-11-24T13:10:00Z"), session(9.4, "2026-11-30T10:00:00Z")] };
  const { level, headline } = judge(facts({ verdicts: [verdict({ state: "FAIL" })] }), points, "Europe/Berlin", NOW);
  expect(level).toBe("stop");
  expect(headline).toMatch(/^Do not use: doses are 9\.4 % too high since .*24.*14:10 \(limit ±5 %\)$/);
});

test("a failed verdict whose sessions are still inside says how far doses can be off", () => {
  const failed = verdict({ state: "FAIL", mean_error: -300, k_actual: 1 });
  expect(judge(facts({ verdicts: [failed] }), {}, "UTC", NOW).headline).toBe("Do not use: doses can be 7.4 % too low (limit ±5 %)");
});

test("a verdict of an earlier calibration does not stop the device, unless the device still names it", () => {
  const earlier = verdict({ state: "FAIL", calibration_id: "c1", last_at: "2026-10-20T10:00:00Z" });
  expect(judge(facts({ verdicts: [earlier, verdict()] }), {}, "UTC", NOW).level).toBe("fine");
  expect(present([{ ...earlier, last_at: "2026-11-02T10:00:00Z" }], [due()])).toHaveLength(1);
  expect(judge(facts({ verdicts: [earlier] }), {}, "UTC", NOW).findings[0]?.sentence).toBe("no verdict on doses since the latest calibration yet");
});

test("an overdue calibration stops, one that is soon due does not", () => {
  expect(judge(facts({ due: [due({ state: "OVERDUE" })] }), {}, "UTC", NOW).level).toBe("stop");
  expect(judge(facts({ due: [due({ state: "DUE", days_left: 12 })] }), {}, "UTC", NOW)).toMatchObject({ level: "due", findings: [{ tab: "calibrations" }] });
});

test("a critical alert stops until somebody has acknowledged it", () => {
  expect(judge(facts({ alerts: [alert()] }), {}, "UTC", NOW).headline).toBe("Do not use: a needle was used twice");
  expect(judge(facts({ alerts: [alert({ items: ["n"] })] }), {}, "UTC", NOW).headline).toBe("Look at this: a needle was used twice");
  expect(judge(facts({ alerts: [alert({ holds: false, acknowledged: true })] }), {}, "UTC", NOW).level).toBe("fine");
  expect(judge(facts({ alerts: [alert({ acknowledged: true })] }), {}, "UTC", NOW).headline).toBe("Look at this: a needle was used twice (acknowledged)");
  expect(judge(facts({ alerts: [alert({ holds: false })] }), {}, "UTC", NOW).level).toBe("due");
});

test("the alert on a failed verdict is not said a second time, that of the other channel is", () => {
  const alerts = [alert({ kind: "accuracy-verdict", severity: "high", alert_key: "accuracy-verdict/acme/pen-1/dose/10000", title: "dose" }), alert({ kind: "accuracy-verdict", severity: "high", alert_key: "accuracy-verdict/acme/pen-1/depth/4000", title: "depth" })];
  const { findings } = judge(facts({ verdicts: [verdict({ state: "FAIL" })], alerts }), {}, "UTC", NOW);
  expect(findings.map(({ sentence }) => sentence)).toEqual(["depth"]);
});

test("what is missing is said with what was made", () => {
  const completeness = [{ made: 1483, missing: 7, lost: 0 }, { made: 163, missing: 0, lost: 2 }] as Row<"Completeness">[];
  const { level, headline, findings } = judge(facts({ completeness }), {}, "UTC", NOW);
  expect(level).toBe("look");
  expect(headline).toContain("7 of 1,646 events have not arrived");
  expect(findings.map(({ sentence }) => sentence)).toEqual(["the device declared 2 events lost", "doses are within ±5 % (mean +0.30 %, n = 400)"]);
});

test("a drift says its side, and a forecast whether it lies ahead", () => {
  const chart = { channel: "DOSE", current: true, state: "DRIFT", side: "UPPER", last_error_pct: 3.1, signal_session: "", crossing_at: "2026-12-20T00:00:00Z", crossing_low: "2026-12-15T00:00:00Z", crossing_high: "2026-12-28T00:00:00Z" } as Row<"Drift">;
  const { headline, findings } = judge(facts({ drift: [chart] }), {}, "UTC", NOW);
  expect(headline).toBe("Look at this: doses drift up: +3.10 % in the last session");
  expect(findings[0]?.sentence).toContain("will leave the tolerance");
  expect(judge(facts({ drift: [{ ...chart, crossing_at: "2026-11-20T00:00:00Z" }] }), {}, "UTC", NOW).findings[0]?.sentence).toContain("left the tolerance");
});

test("without any verdict nothing is called fine", () => {
  const { level, headline } = judge(facts({ verdicts: [], due: [] }), {}, "UTC", NOW);
  expect(level).toBe("due");
  expect(headline).toMatch(/^Not judged/);
});
