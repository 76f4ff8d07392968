import { expect, test } from "vitest";
import { changes, control, lineOf, means, outsideSince, signals, type DriftPoint } from "./drift";

const point = (day: number, error_pct: number, more: Partial<DriftPoint> = {}): DriftPoint => ({
  session_id: `s${day}`, at: `2026-11-${String(day).padStart(2, "0")}T10:00:00Z`, n: 20, error_pct, z: error_pct, ewma: error_pct / 2, ewma_limit: 1, cusum_upper: 3, cusum_lower: 2,
  decision_limit: 8, signalled: false, band: 0, calibration_id: "c1", firmware: "2.4.1", ...more,
});
const limits = { low: -5, high: 5 };
const at = (day: number) => Date.parse(`2026-11-${String(day).padStart(2, "0")}T10:00:00Z`);

test("out of tolerance since the first of the last sessions that are all outside", () => {
  expect(outsideSince([point(1, 6), point(2, 1), point(3, 5.5), point(4, 7)], limits)?.session_id).toBe("s3");
  expect(outsideSince([point(1, 6), point(2, 1)], limits)).toBeUndefined();
  expect(outsideSince([point(1, 6), point(2, -7)], limits)?.session_id).toBe("s1");
  expect(outsideSince([point(1, 6)], undefined)).toBeUndefined();
  expect(outsideSince([], limits)).toBeUndefined();
});

test("calibrations before the first session are not marked, a new firmware is", () => {
  const points = [point(5, 0), point(6, 0), point(7, 0, { firmware: "2.5.0" })];
  const calibration = (performed_at: string) => ({ performed_at, certificate: "K-1", calibration_id: "c1" });
  expect(changes(points, [calibration("2026-11-06T12:00:00Z"), calibration("2026-10-01T00:00:00Z")]).map(({ at }) => at)).toEqual(["2026-11-06T12:00:00Z", "2026-11-07T10:00:00Z"]);
  expect(changes([], [calibration("2026-11-06T12:00:00Z")])).toEqual([]);
});

test("the line breaks at a calibration and where the chart learns", () => {
  const line = lineOf([point(1, 0, { ewma: null }), point(2, 2), point(3, 4, { calibration_id: "c2" })], ({ ewma }) => ewma, "UTC");
  expect(line).toEqual([[at(1), null], { value: [at(2), 1], session: "s2" }, [at(3), null], { value: [at(3), 2], session: "s3" }]);
});

test("sessions out of tolerance are told apart, and the forecast is in view", () => {
  const option = means([point(1, 1), point(10, 6)], limits, { at: "2026-11-20T10:00:00Z", low: "2026-11-15T10:00:00Z", high: "2026-11-25T10:00:00Z" }, [], "UTC", token => token);
  expect(option.series.map(({ data }) => data.map(({ value }) => value[1]))).toEqual([[1], [6]]);
  expect(option.xAxis.max).toBe(at(25));
});

test("a forecast far away leaves a third of the chart to the sessions", () => {
  const option = means([point(1, 1), point(3, 1)], limits, { at: "2027-11-20T10:00:00Z", low: null, high: null }, [], "UTC", token => token);
  expect(option.xAxis.max).toBe(at(7));
});

test("the lower CUSUM and its limit go downwards, and the first signal is marked", () => {
  const option = control("cusum", [point(1, 1), point(2, 1, { signalled: true }), point(3, 1, { signalled: true })], [], "UTC", token => token);
  const values = option.series.map(({ data }) => data.map(step => (Array.isArray(step) ? step[1] : step.value[1])));
  expect(values).toEqual([[3, 3, 3], [-2, -2, -2], [8, 8, 8], [-8, -8, -8]]);
  expect(option.series[0]).toMatchObject({ markLine: { data: [{ xAxis: at(2) }] } });
});

test("the EWMA stands between its limits", () => {
  const option = control("ewma", [point(1, 1)], [], "UTC", token => token);
  expect(option.series.map(({ data }) => data.map(step => (Array.isArray(step) ? step[1] : step.value[1])))).toEqual([[0.5], [1], [-1]]);
});

test("each chart has one first signal", () => {
  const later = { signalled: true, calibration_id: "c2" };
  expect(signals([point(1, 1), point(2, 1, { signalled: true }), point(3, 1, { signalled: true }), point(4, 1, later), point(5, 1, later)]).map(({ session_id }) => session_id)).toEqual(["s2", "s4"]);
});
