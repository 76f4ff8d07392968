import { expect, test } from "vitest";
import { allowed, filled, histogram, interval, withLimits } from "./histogram";

const verdict = { target: 10_000, limit_low: 9500, limit_high: 10_500, mean_error: 200, sd_error: 90, k_clustered: 2, k_actual: 3 };

test("the tolerance is said in percent of the set point", () => {
  expect(allowed(verdict)).toEqual({ low: -5, high: 5 });
  expect(allowed({ ...verdict, limit_low: null })).toBeUndefined();
  expect(allowed({ ...verdict, target: 0 })).toBeUndefined();
  expect(allowed(undefined)).toBeUndefined();
});

test("the tolerance interval has the spread on which the verdict was computed", () => {
  // The upper limit is 300 nl from the mean and 3 spreads away: one spread is 100 nl, not the simple 90.
  expect(interval(verdict)).toEqual({ low: 0, high: 4 });
});

test("a mean beyond the limit has a negative factor, and the same spread", () => {
  expect(interval({ ...verdict, mean_error: 700, k_actual: -2 })).toEqual({ low: 5, high: 9 });
});

test("without limits the simple standard deviation stands in, without a factor there is no interval", () => {
  expect(interval({ ...verdict, limit_low: null, limit_high: null, k_actual: null })).toEqual({ low: 0.2, high: 3.8 });
  expect(interval({ ...verdict, k_clustered: null })).toBeUndefined();
  expect(interval({ ...verdict, k_actual: null, sd_error: null })).toBeUndefined();
});

test("empty bins between others are drawn, bins of the same edge are added", () => {
  expect(filled([{ error_pct: -1, n: 3 }, { error_pct: 2, n: 1 }, { error_pct: 2, n: 4 }])).toEqual([[-0.5, 3], [0.5, 0], [1.5, 0], [2.5, 5]]);
  expect(filled([])).toEqual([]);
  expect(filled([{ error_pct: -100, n: 1 }, { error_pct: 1_000_000, n: 1 }])).toHaveLength(2000);
});

test("the axis shows the limits although all doses are near zero", () => {
  const option = histogram([{ error_pct: 0, n: 5 }], { low: -5, high: 5 }, { low: -1, high: 6.5 }, token => token);
  expect([option.xAxis.min, option.xAxis.max]).toEqual([-6, 8]);
  expect(option.series[0]?.markLine.data.map(({ xAxis }) => xAxis)).toEqual([-5, 5, -1, 6.5]);
  expect(withLimits({ low: -5, high: 5 }).max({ max: 2 })).toBe(5);
  expect(withLimits(undefined).min({ min: -1.5 })).toBe(-2);
});
