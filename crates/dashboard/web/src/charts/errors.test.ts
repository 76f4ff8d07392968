import { expect, test } from "vitest";
import { errors, thinned, type ErrorPoint } from "./errors";

const point = (error_pct: number, bucket_n = 1, minute = 0): ErrorPoint =>
  ({ at: `2026-11-24T13:0${minute}:00Z`, session_id: `s${minute}`, target: 10_000, error_pct, error: 0, bucket_n });

test("thinned points stand for all injections of their bucket", () => {
  expect(thinned([point(1), point(2)])).toEqual({ injections: 2, thinned: false });
  expect(thinned([point(-3, 500), point(9, 500), point(1)])).toEqual({ injections: 501, thinned: true });
});

test("injections out of tolerance have another shape", () => {
  const option = errors([point(1, 1, 0), point(-5.1, 1, 1), point(5, 1, 2)], { low: -5, high: 5 }, () => ({ low: -5, high: 5 }), "UTC", token => token);
  expect(option.series.map(({ symbol }) => symbol)).toEqual(["circle", "triangle"]);
  expect(option.series.map(({ data }) => data.map(({ value }) => value[1]))).toEqual([[1, 5], [-5.1]]);
  expect(option.series[1]?.data[0]?.session).toBe("s1");
});

test("without a tolerance nothing is out of it", () => {
  const option = errors([point(80)], undefined, () => undefined, "UTC", token => token);
  expect(option.series.map(({ data }) => data.length)).toEqual([1, 0]);
});

test("each injection is judged at its own set point", () => {
  const small = { ...point(7, 1, 1), target: 2000 };
  const option = errors([point(7), small], { low: -3.75, high: 3.75 }, target => (target === 2000 ? { low: -7.5, high: 7.5 } : { low: -3.75, high: 3.75 }), "UTC", token => token);
  expect(option.series.map(({ data }) => data.map(({ session }) => session))).toEqual([["s1"], ["s0"]]);
});
