import { expect, test } from "vitest";
import { trumpet } from "./trumpet";

test("the curve narrows with the number of injections", () => {
  const windows = [{ window: 20, error_max_pct: 2, error_min_pct: -1, n: 40 }, { window: 1, error_max_pct: 6, error_min_pct: -4, n: 100 }];
  const option = trumpet(windows, { low: -5, high: 5 }, token => token);
  expect(option.xAxis.data).toEqual(["1", "20"]);
  expect(option.series.map(({ data }) => data.map(([, error]) => error))).toEqual([[6, 2], [-4, -1]]);
});
