/** Drift: the error of each session, and the charts that judge it. */
import type { Row } from "../api/client";
import { figure, percent } from "../format";
import { text } from "../text/en";
import { withLimits, type Range } from "./histogram";
import { wall, wallAxis } from "./wall";

/** A session on a drift chart. */
export type DriftPoint = Row<"DriftPoint">;
/** When the fitted line leaves the tolerance: `at`, between `low` and `high`. */
export type Forecast = { at: string; low: string | null; high: string | null };
/** A calibration or a change of firmware. */
export type Change = { at: string; what: string };
type Place = { value: [number, number]; session: string };
type Step = Place | [number, null];

/** The session since which all sessions have been outside the limits; none where the last one is inside. */
export function outsideSince(points: DriftPoint[], limits: Range | undefined): DriftPoint | undefined {
  if (!limits) return undefined;
  const inside = points.findLastIndex(({ error_pct: error }) => error >= limits.low && error <= limits.high);
  return points[inside + 1];
}

/** Calibrations since the first session on the chart, and sessions at which the firmware was another one. */
export function changes(points: DriftPoint[], calibrations: { performed_at: string; certificate: string; calibration_id: string }[]): Change[] {
  const first = points[0];
  if (!first) return [];
  const calibrated = calibrations.filter(({ performed_at }) => performed_at >= first.at).map(({ performed_at, certificate, calibration_id }) =>
    ({ at: performed_at, what: text.device.drift.calibrated(certificate || calibration_id) }));
  const updated = points.flatMap((point, index) => {
    const before = points[index - 1];
    return before && before.firmware !== point.firmware ? [{ at: point.at, what: text.device.drift.firmware(point.firmware) }] : [];
  });
  return [...calibrated, ...updated].sort((a, b) => a.at.localeCompare(b.at));
}

const isSameChart = (one: DriftPoint, next: DriftPoint) => one.calibration_id === next.calibration_id && one.firmware === next.firmware;

/** The first signal of each chart; after a signal a chart goes on from zero. */
export const signals = (points: DriftPoint[]): DriftPoint[] => points.filter((point, index) => point.signalled && !points.slice(0, index).some(before => before.signalled && isSameChart(before, point)));

/** A line over the sessions that breaks where a chart begins anew. */
export function lineOf(points: DriftPoint[], value: (point: DriftPoint) => number | null, zone: string): Step[] {
  const data: Step[] = [];
  let before: DriftPoint | undefined;
  for (const point of points) {
    const at = wall(point.at, zone);
    if (before && !isSameChart(before, point)) data.push([at, null]);
    const y = value(point);
    data.push(y == null ? [at, null] : { value: [at, y], session: point.session_id });
    before = point;
  }
  return data;
}

function frame(name: string, zone: string, colour: (token: string) => string, marked: Change[]) {
  return {
    base: {
      useUTC: true,
      grid: { left: 56, right: 24, top: 52, bottom: 36 },
      legend: { top: 0, itemWidth: 14, left: 40, textStyle: { color: colour("text") }, selectedMode: false },
      xAxis: wallAxis({ text: colour("quiet"), line: colour("line") }),
      yAxis: { type: "value" as const, name, nameLocation: "middle" as const, nameGap: 36, splitLine: { lineStyle: { color: colour("line") } }, axisLabel: { color: colour("quiet") }, nameTextStyle: { color: colour("quiet") } },
    },
    marks: marked.map(({ at, what }) => ({
      xAxis: wall(at, zone), lineStyle: { color: colour("quiet"), type: "dotted" as const, width: 2 }, label: { formatter: what, color: colour("quiet"), position: "insideEndBottom", rotate: 90 },
    })),
  };
}

/** Error of each session, with the tolerance behind and when it will be left. */
export function means(points: DriftPoint[], limits: Range | undefined, forecast: Forecast | undefined, marked: Change[], zone: string, colour: (token: string) => string) {
  const { base, marks } = frame(text.device.drift.error, zone, colour, marked);
  const limit = (yAxis: number) => ({ yAxis, lineStyle: { color: colour("stop"), type: "solid" as const }, label: { formatter: text.device.drift.limit(figure(yAxis)), color: colour("stop"), position: "insideStartTop" } });
  const outside = (error: number) => limits !== undefined && (error < limits.low || error > limits.high);
  const scatter = (name: string, of: DriftPoint[], symbol: string, token: string) =>
    ({ type: "scatter" as const, name, symbol, symbolSize: 8, itemStyle: { color: colour(token) }, data: of.map(point => ({ value: [wall(point.at, zone), point.error_pct, point.n], session: point.session_id })) });
  const crossing = forecast && {
    xAxis: wall(forecast.at, zone), lineStyle: { color: colour("stop"), type: "dashed" as const, width: 2 }, label: { formatter: text.device.drift.crossing, color: colour("stop"), position: "insideEndTop", rotate: 90 },
  };
  const band = forecast?.low && forecast.high ? [[{ xAxis: wall(forecast.low, zone), itemStyle: { color: colour("stop"), opacity: 0.15 } }, { xAxis: wall(forecast.high, zone) }]] : [];
  // Room for the forecast: the axis ends where its band ends, but the sessions keep at least a third of it.
  const first = points[0] ? wall(points[0].at, zone) : 0;
  const last = points.length > 0 ? wall(points[points.length - 1]?.at ?? 0, zone) : 0;
  const end = Math.min(first + 3 * Math.max(last - first, 86_400_000), Math.max(last, ...[forecast?.at, forecast?.high].map(at => (at ? wall(at, zone) : last))));
  return {
    ...base,
    xAxis: { ...base.xAxis, max: end },
    yAxis: { ...base.yAxis, ...withLimits(limits) },
    tooltip: { renderMode: "richText", formatter: ({ value: [, error, n] }: { value: [number, number, number] }) => text.device.drift.session(percent(error), n) },
    series: [
      {
        ...scatter(text.device.drift.inside, points.filter(point => !outside(point.error_pct)), "circle", "series-1"),
        markArea: { silent: true, data: [...(limits ? [[{ yAxis: limits.low, itemStyle: { color: colour("band"), opacity: 0.6 } }, { yAxis: limits.high }]] : []), ...band] },
        markLine: { silent: true, symbol: "none", data: [...(limits ? [limit(limits.low), limit(limits.high)] : []), ...marks, ...(crossing ? [crossing] : [])] },
      },
      scatter(text.device.drift.outside, points.filter(point => outside(point.error_pct)), "triangle", "series-2"),
    ],
  };
}

/** The EWMA with its limits, or both CUSUM with theirs, in sigma. The lower CUSUM is drawn downwards. */
export function control(kind: "ewma" | "cusum", points: DriftPoint[], marked: Change[], zone: string, colour: (token: string) => string) {
  const { base, marks } = frame(text.device.drift.sigma, zone, colour, marked);
  const line = (name: string, value: (point: DriftPoint) => number | null, token: string, symbol: string, extra: object = {}) =>
    ({ type: "line" as const, name, data: lineOf(points, value, zone), symbol, symbolSize: 6, connectNulls: false, lineStyle: { color: colour(token), width: 2 }, itemStyle: { color: colour(token) }, ...extra });
  const limit = (sign: 1 | -1, of: (point: DriftPoint) => number | null) =>
    line(text.device.drift.limits, point => { const value = of(point); return value == null ? null : sign * value; }, "stop", "none", { lineStyle: { color: colour("stop"), type: "dashed", width: 1.5 }, silent: true });
  const signalled = signals(points).map(({ at }) => ({
    xAxis: wall(at, zone), lineStyle: { color: colour("stop"), width: 2, type: "solid" as const }, label: { formatter: text.device.drift.signal, color: colour("stop"), position: "insideEndTop", rotate: 90 },
  }));
  const down = (value: number | null) => (value == null ? null : value === 0 ? 0 : -value);
  const drawn = kind === "ewma"
    ? [line(text.device.drift.ewma, point => point.ewma, "series-1", "circle"), limit(1, point => point.ewma_limit), limit(-1, point => point.ewma_limit)]
    : [
        line(text.device.drift.upper, point => point.cusum_upper, "series-1", "triangle"), line(text.device.drift.lower, point => down(point.cusum_lower), "series-3", "rect"),
        limit(1, point => point.decision_limit), limit(-1, point => point.decision_limit),
      ];
  return {
    ...base,
    tooltip: { renderMode: "richText", formatter: ({ value, seriesName }: { value: [number, number]; seriesName: string }) => text.device.drift.statistic(seriesName, figure(value[1])) },
    series: drawn.map((series, index) => (index > 0 ? series : { ...series, markLine: { silent: true, symbol: "none", data: [...marks, ...signalled] } })),
  };
}
