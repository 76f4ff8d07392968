/** The curve of a sterilization cycle: temperature of each sensor and pressure over time, the required band behind. */
import type { EChartsCoreOption } from "echarts/core";
import { figure } from "../format";
import type { Limits, Sample } from "../sterile";
import { text } from "../text/en";

export type Point = [minutes: number, value: number];

/** Temperatures in Celsius by sensor, over minutes from the start. */
export function temperatures(samples: Sample[]): Map<number, Point[]> {
  const sensors = new Map<number, Point[]>();
  for (const { sensor, offset_ms, temperature_mc } of samples) {
    if (temperature_mc === null) continue;
    const points = sensors.get(sensor) ?? [];
    points.push([offset_ms / 60_000, temperature_mc / 1000]);
    sensors.set(sensor, points);
  }
  return sensors;
}

/** The temperature of saturated steam at an absolute pressure, Celsius: the equation of docs/sterility.md; null outside its range. */
export function saturated(pascal: number): number | null {
  if (pascal < 612 || pascal > 12_000_000) return null;
  return 42.6776 - 3892.7 / (Math.log(pascal / 1_000_000) - 9.48654) - 273.15;
}

/** The longest time in the band without a break, in minutes from the start; crossings are interpolated. */
export function longestHold(points: Point[], { low, high, gap }: Limits): [from: number, to: number] | undefined {
  let best: [number, number] | undefined;
  let open: [number, number] | undefined;
  for (let index = 1; index < points.length; index++) {
    const [[t0, c0], [t1, c1]] = [points[index - 1] as Point, points[index] as Point];
    const inside = (t1 - t0) * 60 <= gap ? clip(t0, c0, t1, c1, low, high) : undefined;
    if (!inside) {
      open = undefined;
      continue;
    }
    open = [open?.[1] === inside[0] ? open[0] : inside[0], inside[1]];
    if (!best || open[1] - open[0] > best[1] - best[0]) best = open;
  }
  return best;
}

/** The part of a straight line that is in the band, by time. */
function clip(t0: number, c0: number, t1: number, c1: number, low: number, high: number): [number, number] | undefined {
  if (Math.max(c0, c1) < low || Math.min(c0, c1) > high) return undefined;
  const at = (celsius: number) => (c1 === c0 ? t0 : t0 + ((celsius - c0) / (c1 - c0)) * (t1 - t0));
  const [enter, leave] = c1 >= c0 ? [c0 < low ? at(low) : t0, c1 > high ? at(high) : t1] : [c0 > high ? at(high) : t0, c1 < low ? at(low) : t1];
  return enter <= leave ? [enter, leave] : undefined;
}

/** The time in which every sensor was in the band: the hold that decides is the shortest of all sensors. */
export function decidingHold(samples: Sample[], limits: Limits): { from: number; to: number; sensor: number } | undefined {
  const holds = [...temperatures(samples)].map(([sensor, points]) => ({ sensor, span: longestHold(points, limits) }));
  const shortest = holds.reduce<(typeof holds)[number] | undefined>((least, hold) => {
    const length = (span: [number, number] | undefined) => (span ? span[1] - span[0] : 0);
    return !least || length(hold.span) < length(least.span) ? hold : least;
  }, undefined);
  return shortest?.span && { from: shortest.span[0], to: shortest.span[1], sensor: shortest.sensor };
}

const LINES = ["solid", "dashed", "dotted"] as const;

/** What part of the curve is drawn: all of it; the plateau, enlarged; or a small picture of what is above 100 Celsius. */
export type View = "whole" | "plateau" | "small";

export function cycleCurve(samples: Sample[], limits: Limits | undefined, colour: (token: string) => string, view: View = "whole"): EChartsCoreOption {
  const small = view === "small";
  const words = text.sterility.curve;
  const sensors = [...temperatures(samples)];
  const hold = limits && decidingHold(samples, limits);
  const first = samples.filter(({ sensor, pressure_pa }) => sensor === samples[0]?.sensor && pressure_pa !== null);
  const pressure = first.map(({ offset_ms, pressure_pa }): Point => [offset_ms / 60_000, (pressure_pa ?? 0) / 1000]);
  const steam = first.flatMap(({ offset_ms, pressure_pa }) => {
    const celsius = saturated(pressure_pa ?? 0);
    return celsius === null ? [] : [[offset_ms / 60_000, celsius] as Point];
  });
  /** The end of an axis: the usual one, unless a value lies beyond it. */
  const most = (usual: number, lines: { data: Point[] }[]) => lines.flatMap(({ data }) => data).reduce((most, [, value]) => (value > most ? Math.ceil(value / 50) * 50 : most), usual);
  // The plateau with two minutes before and after it, and a few Kelvin around the band.
  const plateau = view === "plateau" && hold && limits ? { from: Math.max(0, hold.from - 2), to: hold.to + 2, low: limits.low - 4, high: limits.high + 3 } : undefined;
  const axis = { nameTextStyle: { color: colour("quiet") }, axisLabel: { color: colour("quiet") }, axisLine: { lineStyle: { color: colour("line") } }, splitLine: { show: false } };
  const line = { type: "line", showSymbol: false, emphasis: { disabled: true } } as const;
  const series = sensors.map(([sensor, data], index) => ({
    ...line,
    name: words.sensor(sensor + 1),
    data,
    color: colour("series-2"),
    lineStyle: { width: 2, type: LINES[index % LINES.length] },
    ...(index === 0 && limits && {
      markArea: { silent: true, data: [[{ yAxis: limits.low, itemStyle: { color: colour("band") } }, { yAxis: limits.high }]] },
      markLine: hold && {
        silent: true, symbol: "none", label: { show: false }, lineStyle: { color: colour("text"), type: "dotted" as const },
        data: [{ xAxis: hold.from }, { xAxis: hold.to }],
      },
    }),
  }));
  const pressureLine = { ...line, name: words.pressure, data: pressure, yAxisIndex: 1, color: colour("series-1"), lineStyle: { width: 1.5 } };
  const steamLine = { ...line, name: words.steam, data: steam, color: colour("series-3"), lineStyle: { width: 1, type: "dotted" as const } };
  return {
    grid: small ? { left: 44, right: 44, top: 24, bottom: 30 } : { left: 56, right: 60, top: 56, bottom: 44 },
    // A font that can be measured: with an inherited one the entries overlap.
    legend: small ? undefined : { type: "scroll", top: 0, icon: "roundRect", pageIconColor: colour("accent"), pageTextStyle: { color: colour("quiet") }, textStyle: { color: colour("text"), fontFamily: "sans-serif" }, inactiveColor: colour("line") },
    tooltip: small
      ? undefined
      : {
          trigger: "axis", confine: true, backgroundColor: colour("raised"), borderColor: colour("line"), textStyle: { color: colour("text") },
          valueFormatter: (value: unknown) => figure(Number(value), 4),
        },
    xAxis: { type: "value", name: words.minutes, nameLocation: "middle", nameGap: small ? 18 : 28, min: plateau ? Math.floor(plateau.from) : 0, max: plateau ? Math.ceil(plateau.to) : "dataMax", ...axis, axisLabel: { ...axis.axisLabel, showMaxLabel: false } },
    yAxis: plateau
      ? { type: "value", name: words.celsius, min: plateau.low, max: plateau.high, ...axis }
      : [
          { type: "value", name: words.celsius, min: small ? 100 : 0, max: small ? most(140, series) : most(150, series), ...axis },
          { type: "value", name: words.kilopascal, min: 0, max: most(400, [pressureLine]), splitNumber: small ? 2 : 4, ...axis },
        ],
    series: plateau ? [...series, steamLine] : small ? [...series, pressureLine] : [...series, steamLine, pressureLine],
  };
}
