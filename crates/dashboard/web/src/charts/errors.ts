/** Errors of single injections over time. */
import type { Row } from "../api/client";
import { figure } from "../format";
import { text } from "../text/en";
import { withLimits, type Range } from "./histogram";
import { wall, wallAxis } from "./wall";

/** A point of the chart: one injection, or the least or greatest of `bucket_n`. */
export type ErrorPoint = Row<"ErrorPoint">;

/** How many injections the points stand for, and whether some are not drawn. */
export function thinned(points: ErrorPoint[]): { injections: number; thinned: boolean } {
  // A bucket of several injections gives two points, its least and its greatest.
  const injections = points.reduce((sum, { bucket_n: n }) => sum + (n > 1 ? n / 2 : 1), 0);
  return { injections: Math.round(injections), thinned: points.some(({ bucket_n: n }) => n > 2) };
}

/** `limits` are drawn, `limitsOf` tells what is out of tolerance at a set point. */
export function errors(points: ErrorPoint[], limits: Range | undefined, limitsOf: (target: number) => Range | undefined, zone: string, colour: (token: string) => string) {
  const outside = ({ error_pct: value, target }: ErrorPoint) => {
    const of = limitsOf(target);
    return of !== undefined && value != null && (value < of.low || value > of.high);
  };
  const place = (point: ErrorPoint) => ({ value: [wall(point.at, zone), point.error_pct, point.bucket_n], session: point.session_id });
  const series = (name: string, of: ErrorPoint[], symbol: string, token: string) =>
    ({ type: "scatter" as const, name, data: of.map(place), symbol, symbolSize: 5, itemStyle: { color: colour(token), opacity: 0.8 } });
  const line = (yAxis: number) => ({ yAxis, lineStyle: { color: colour("stop"), type: "solid" }, label: { formatter: text.device.drift.limit(figure(yAxis)), color: colour("stop"), position: "insideEndTop" } });
  const axis = { axisLabel: { color: colour("quiet") }, nameTextStyle: { color: colour("quiet") } };
  return {
    useUTC: true,
    grid: { left: 56, right: 16, top: 36, bottom: 36 },
    legend: { top: 0, itemWidth: 14, right: 0, textStyle: { color: colour("text") }, selectedMode: false },
    tooltip: { renderMode: "richText", formatter: ({ value: [, error, n] }: { value: [number, number, number] }) => text.device.errors.point(figure(error), n) },
    xAxis: wallAxis({ text: colour("quiet"), line: colour("line") }),
    yAxis: { type: "value" as const, name: text.device.errors.y, nameLocation: "middle" as const, nameGap: 36, ...withLimits(limits), splitLine: { lineStyle: { color: colour("line") } }, ...axis },
    series: [
      {
        ...series(text.device.errors.inside, points.filter(point => !outside(point)), "circle", "series-1"),
        markArea: limits && { silent: true, itemStyle: { color: colour("band"), opacity: 0.6 }, data: [[{ yAxis: limits.low }, { yAxis: limits.high }]] },
        markLine: limits && { silent: true, symbol: "none", data: [line(limits.low), line(limits.high)] },
      },
      series(text.device.errors.outside, points.filter(outside), "triangle", "series-2"),
    ],
  };
}
