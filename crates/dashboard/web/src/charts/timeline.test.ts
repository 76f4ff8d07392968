import { expect, test } from "vitest";
import { bars, errorOf, thin, timeline, type Shot } from "./timeline";

const shot = (n: number, delivered: number | null = 10_000, outcome = "OK"): Shot =>
  ({ at: new Date(Date.UTC(2026, 10, 24, 13, 0, n)).toISOString(), shot: n, seq: n + 100, outcome, target_nl: 10_000, delivered_nl: delivered });

test("the error is that of the dose; none where nothing was measured or asked for", () => {
  expect(errorOf(shot(1, 10_500))).toBe(5);
  expect(errorOf(shot(1, null))).toBeNull();
  expect(errorOf({ ...shot(1), target_nl: 0 })).toBeNull();
});

test("a large session gets at most 2,000 marks, and its extremes and failures stay", () => {
  const shots = Array.from({ length: 9000 }, (_, n) => shot(n, n === 4321 ? 12_000 : n === 77 ? 8000 : 10_000 + (n % 7), n % 1000 === 500 ? "OCCLUDED" : "OK"));
  const kept = thin(shots);
  expect(kept.length).toBeLessThanOrEqual(2000);
  expect(kept.length).toBeGreaterThan(1900);
  expect(kept.filter(({ outcome }) => outcome === "OCCLUDED")).toHaveLength(9);
  expect(kept.map(({ shot }) => shot)).toEqual(expect.arrayContaining([4321, 77]));
  expect([...kept].sort((a, b) => a.seq - b.seq)).toEqual(kept);
});

test("a large session of failures alone gets at most 2,000 marks", () => {
  expect(thin(Array.from({ length: 9000 }, (_, n) => shot(n, 10_000 + n, "ABORTED"))).length).toBeLessThanOrEqual(2000);
  expect(thin(Array.from({ length: 9000 }, (_, n) => shot(n, 10_000 + n, n % 2 ? "ABORTED" : "OK"))).length).toBeLessThanOrEqual(2000);
  expect(thin([shot(1), shot(2)])).toHaveLength(2);
});

const mount = { mount_id: "m1", event: "MOUNTED", at: "2026-11-24T12:58:00Z", slot: "NEEDLE", item_id: "N30", lot: "ND-1" };
const used = { mount_id: "m1", slot: "NEEDLE", item_id: "N30", first_at: "2026-11-24T13:00:00Z", last_at: "2026-11-24T13:05:00Z" };

test("a consumable lasts from mounting to removal, else to the end of the session, else to its last use", () => {
  const removed = { ...mount, event: "REMOVED", at: "2026-11-24T13:06:00Z", slot: "", item_id: "", lot: "" };
  expect(bars([mount, removed], [used], "2026-11-24T13:10:00Z")).toEqual([{ mount: "m1", slot: "NEEDLE", item: "N30", lot: "ND-1", from: mount.at, to: removed.at }]);
  expect(bars([mount], [used], "2026-11-24T13:10:00Z")[0]?.to).toBe("2026-11-24T13:10:00Z");
  expect(bars([mount], [used], null)[0]?.to).toBe(used.last_at);
});

test("a consumable whose mounting has not arrived is known by its use", () => {
  expect(bars([], [used], null)).toEqual([{ mount: "m1", slot: "NEEDLE", item: "N30", lot: "", from: used.first_at, to: used.last_at }]);
});

test("each outcome has its shape, and what was not measured stands apart", () => {
  const option = timeline([shot(1, 10_500), shot(2, 5000, "PARTIAL"), shot(3, null, "ABORTED")], bars([mount], [used], null), "UTC", token => token);
  const drawn = option.series.filter(({ type }) => type === "scatter");
  expect(drawn).toMatchObject([
    { symbol: "circle", data: [{ value: [Date.UTC(2026, 10, 24, 13, 0, 1), 5] }] },
    { symbol: "triangle", data: [{ value: [Date.UTC(2026, 10, 24, 13, 0, 2), -50] }] },
    { symbol: "emptyDiamond", data: [{ shot: 3 }] },
  ]);
  expect(option.xAxis[0]).toMatchObject({ min: Date.parse(mount.at), max: Date.parse(used.last_at) });
});
