import { expect, test } from "vitest";
import { cohorts, cohortsOf, days, furthest, sizeOf, standOut, unitDays, type CohortDay, type Outlier } from "./cohorts";

const row = (cohort: string, day: number, error_pct: number, more: Partial<CohortDay> = {}): CohortDay =>
  ({ cohort, channel: "DOSE", days_since_calibration: day, units: 5, n: 100, error_pct, error_low_pct: error_pct - 1, error_high_pct: error_pct + 2, ...more });
const unit = (z: number | null): Outlier => ({ unit_key: `u${z}`, model: "m", firmware: "1", lot: "", channel: "DOSE", n: 10, error_pct: 6.4, cohort_error_pct: 0, z });

test("the largest cohort comes first", () => {
  expect(cohortsOf([row("b", 0, 0), row("a", 0, 0, { n: 300 }), row("b", 1, 0)])).toEqual(["a", "b"]);
});

test("a unit stands out beyond 3.5 robust standard deviations, the furthest first", () => {
  expect(standOut([unit(3.5), unit(3.6), unit(-9), unit(null)]).map(({ z }) => z)).toEqual([-9, 3.6]);
});

test("the furthest cohort is judged on its last day with several units", () => {
  const rows = [row("a", 10, -3), row("a", 11, 40, { units: 1 }), row("b", 20, 2)];
  expect(furthest(rows)).toMatchObject({ cohort: "a", days_since_calibration: 10 });
  expect(furthest([row("a", 3, 1, { units: 1 })])).toMatchObject({ days_since_calibration: 3 });
  expect(furthest([])).toBeUndefined();
});

test("many days are one point with their mean by injections and their widest interval", () => {
  expect(days([row("a", 3, 4, { n: 300 }), row("a", 2, 0)], 2)).toEqual([row("a", 2, 3, { n: 400, error_low_pct: -1, error_high_pct: 6 })]);
  expect(days([row("a", 1, 4), row("a", 0, 0)], 1).map(day => day.days_since_calibration)).toEqual([0, 1]);
  expect(sizeOf([row("a", 149, 0)])).toBe(1);
  expect(sizeOf([row("a", 150, 0)])).toBe(2);
});

test("four cohorts of years of days get at most 2,000 points", () => {
  const names = ["a", "b", "c", "d", "e"];
  const option = cohorts(names.flatMap(name => Array.from({ length: 2000 }, (_, day) => row(name, day, 1))), names, [], token => token);
  expect(option.series).toHaveLength(12);
  expect(option.series.reduce((sum, { data }) => sum + data.length, 0)).toBeLessThanOrEqual(2000);
});

test("the band lies between the limits of the interval, and is absent for one unit", () => {
  const option = cohorts([row("a", 0, 1), row("a", 1, 2, { units: 1, error_low_pct: null, error_high_pct: null })], ["a"], [unit(9)], token => token);
  expect(option.series.map(({ data }) => data.map(([, value]) => value))).toEqual([[0, null], [3, null], [1, 2]]);
  expect(option.series[2]).toMatchObject({ name: "a", markLine: { data: [{ yAxis: 6.4 }] } });
  expect(option.yAxis.max({ max: 2 })).toBe(7);
});

test("the error of a unit on a day is that of its set points, by injections", () => {
  const rows = [{ day: "2026-11-02", n: 10, error_pct: 1 }, { day: "2026-11-01", n: 30, error_pct: 2 }, { day: "2026-11-01", n: 10, error_pct: 6 }, { day: "2026-11-01", n: 5, error_pct: null }];
  expect(unitDays(rows)).toEqual([{ day: "2026-11-01", n: 40, error_pct: 3 }, { day: "2026-11-02", n: 10, error_pct: 1 }]);
});
