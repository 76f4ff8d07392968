import { expect, it, vi } from "vitest";
vi.mock("./router.svelte", () => ({ to: (parts: string[], query: Record<string, string> = {}) => `/${parts.map(encodeURIComponent).join("/")}?${new URLSearchParams(query)}` }));
import type { Alert } from "./alert";
import { entries, missing } from "./today";

const alert = (over: Partial<Alert>): Alert => ({
  acknowledged: false, alert_key: "k", completeness: "", computed_at: "", cycles: [], device: "inj-1", evidence_rows: "[]", holds: true, items: [], kind: "", raised_at: "2026-11-03",
  sessions: [], severity: "medium", since: "2026-11-03", site: "s", state: "OPEN", tenant: "t", title: "x", ...over,
});
const gap = (device: string, first: number, last: number, state = "OPEN") => ({ tenant: "t", site: "s", device, boot_id: "1", first_missing: first, last_missing: last, since: "2026-11-01", state });
const due = (channel: string) => ({ tenant: "t", device: "inj-1", channel, calibration_id: "c", days_left: -3, due_at: "2026-10-01", performed_at: null, state: "OVERDUE" });

it("counts missing events by device, both ends included, without those that are lost", () => {
  expect(missing([gap("a", 5, 7), gap("a", 9, 9), gap("b", 1, 9), gap("b", 20, 40, "LOST")]).map(({ device, events }) => [device, events])).toEqual([["b", 9], ["a", 4]]);
});

it("makes one entry of a device, as grave as its gravest finding", () => {
  const { stop, look } = entries({
    alerts: [
      alert({ kind: "drift", alert_key: "drift/t/inj-1/dose/0" }), alert({ kind: "forecast", alert_key: "forecast/t/inj-1/dose/0" }),
      alert({ kind: "accuracy-verdict", severity: "high", title: "inj-1 is bad", alert_key: "accuracy-verdict/t/inj-1/dose/0" }), alert({ kind: "sequence-gap", device: "inj-3" }),
    ],
    overdue: [], gaps: [gap("inj-3", 1, 7)], lost: [{ tenant: "t", site: "s", device: "inj-4", state_since: null, last_seen: "2026-11-02" }],
  });
  expect(stop.map(entry => [entry.subject.id, entry.points.length, entry.points[0]?.sentence])).toEqual([["inj-1", 2, "Is bad."]]);
  expect(look.map(entry => [entry.subject.id, entry.points.map(point => point.sentence)])).toEqual([["inj-4", ["Connection lost."]], ["inj-3", ["7 events have not arrived."]]]);
});

it("lists a device whose calibration is overdue, once", () => {
  const overdue = alert({ kind: "calibration-overdue", severity: "high", alert_key: "calibration-overdue/t/inj-1/dose/c", sessions: ["1"] });
  const { stop } = entries({ alerts: [overdue], overdue: [due("DOSE"), due("DEPTH")], gaps: [], lost: [] });
  expect(stop[0]?.points.map(point => point.sentence)).toEqual(["Used in 1 session after its dose calibration was due on Nov 3, 2026.", "The depth calibration is overdue by 3 days."]);
});

it("keeps what is acknowledged at the end of what must not be used", () => {
  const failed = (device: string, acknowledged: boolean, at: string) => alert({ kind: "accuracy-verdict", device, acknowledged, raised_at: at });
  const { stop } = entries({ alerts: [failed("old", true, "2026-11-09"), failed("new", false, "2026-11-03")], overdue: [], gaps: [], lost: [] });
  expect(stop.map(entry => entry.subject.id)).toEqual(["new", "old"]);
});
