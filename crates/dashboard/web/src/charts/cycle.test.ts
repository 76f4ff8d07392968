import { describe, expect, it } from "vitest";
import type { Sample } from "../sterile";
import { cycleCurve, decidingHold, longestHold, saturated, temperatures } from "./cycle";

const LIMITS = { low: 134, high: 137, hold: 180, gap: 15, judged: true };
const sample = (sensor: number, s: number, celsius: number | null, kpa: number | null = 304): Sample => ({
  device: "s", index: 0, sensor, offset_ms: s * 1000, temperature_mc: celsius === null ? null : celsius * 1000, pressure_pa: kpa === null ? null : kpa * 1000,
});

describe("the curve of a cycle", () => {
  it("separates sensors and leaves out what was not measured", () => {
    const sensors = temperatures([sample(0, 0, 20), sample(1, 0, 21), sample(0, 60, null), sample(0, 120, 134)]);
    expect(sensors.get(0)).toEqual([[0, 20], [2, 134]]);
    expect(sensors.get(1)).toEqual([[0, 21]]);
  });

  it("interpolates where the line crosses the band", () => {
    // 132 to 136 in 10 s crosses 134 after 5 s; 136 to 132 after 5 s.
    const hold = longestHold([[0, 132], [10 / 60, 136], [20 / 60, 136], [30 / 60, 132]], LIMITS);
    expect(hold?.map(minutes => minutes * 60)).toEqual([5, 25].map(s => expect.closeTo(s, 9)));
  });

  it("lets a gap between samples and a leap over the band end a hold", () => {
    expect(longestHold([[0, 135], [1, 135]], LIMITS)).toBeUndefined();
    expect(longestHold([[0, 130], [0.1, 133]], LIMITS)).toBeUndefined();
    const above = longestHold([[0, 135], [0.1, 135], [0.2, 139], [0.3, 135], [0.4, 135], [0.5, 135]], LIMITS);
    expect(above?.[0]).toBeCloseTo(0.25, 9);
    expect(above?.[1]).toBeCloseTo(0.5, 9);
  });

  it("takes the shortest of the longest holds of the sensors", () => {
    const samples = [0, 10, 20, 30].flatMap(s => [sample(0, s, 135), sample(1, s, s === 30 ? 130 : 135)]);
    expect(decidingHold(samples, LIMITS)).toMatchObject({ sensor: 1, from: 0 });
    expect((decidingHold(samples, LIMITS)?.to ?? 0) * 60).toBeCloseTo(22, 9);
    expect(decidingHold([...samples, sample(2, 0, 20), sample(2, 10, 20)], LIMITS)).toBeUndefined();
  });

  it("knows the temperature of saturated steam", () => {
    // Steam tables: 101.325 kPa boils at 100.0 Celsius, 304.0 kPa at 133.7.
    expect(saturated(101_325)).toBeCloseTo(100, 0);
    expect(saturated(304_000)).toBeCloseTo(133.7, 0);
    expect(saturated(100)).toBeNull();
  });

  it("draws band, hold, each sensor and pressure in the units of people", () => {
    const samples = [0, 10, 20].flatMap(s => [sample(0, s, 135), sample(1, s, 135)]);
    const option = cycleCurve(samples, LIMITS, token => token) as unknown as { series: { data: unknown[]; yAxisIndex?: number; markArea?: { data: unknown } }[] };
    expect(option.series).toHaveLength(4);
    expect(option.series[0]?.markArea?.data).toEqual([[{ yAxis: 134, itemStyle: { color: "band" } }, { yAxis: 137 }]]);
    expect(option.series[3]).toMatchObject({ yAxisIndex: 1, data: [[0, 304], [10 / 60, 304], [20 / 60, 304]] });
    const plateau = cycleCurve(samples, LIMITS, token => token, "plateau") as { xAxis: object; yAxis: object };
    expect(plateau.xAxis).toMatchObject({ min: 0, max: 3 });
    expect(plateau.yAxis).toMatchObject({ min: 130, max: 140 });
    expect((cycleCurve(samples, undefined, token => token, "small") as { series: unknown[] }).series).toHaveLength(3);
  });
});
