/** Histogram of dose errors at one set point, with what is allowed and what most injections keep. */
import { figure } from "../format";
import { text } from "../text/en";

/** A range, percent of the set point. */
export type Range = { low: number; high: number };

type Bin = { error_pct: number; n: number };
type Judged = { target: number; limit_low: number | null; limit_high: number | null; mean_error: number; sd_error: number | null; k_clustered: number | null; k_actual: number | null };

/** What the tolerance allows, percent of the set point; none where no tolerance is registered. */
export function allowed(verdict: Judged | undefined): Range | undefined {
  if (!verdict || verdict.limit_low == null || verdict.limit_high == null || verdict.target === 0) return undefined;
  const percent = (value: number) => (100 * (value - verdict.target)) / verdict.target;
  return { low: percent(verdict.limit_low), high: percent(verdict.limit_high) };
}

/**
 * The tolerance interval of the verdict, percent of the set point. `k_actual` is the factor that would just have kept
 * the nearer limit, so the distance to that limit divided by it is the spread on which the verdict was computed: that
 * between and within sessions.
 */
export function interval(verdict: Judged | undefined): Range | undefined {
  if (!verdict || verdict.k_clustered == null || verdict.target === 0) return undefined;
  const { target, mean_error: mean, k_clustered: k, k_actual: actual, limit_low: low, limit_high: high } = verdict;
  const nearest = low == null || high == null ? null : Math.min(high - target - mean, mean - (low - target));
  const spread = nearest != null && actual != null && actual !== 0 && nearest / actual > 0 ? nearest / actual : verdict.sd_error;
  if (spread == null) return undefined;
  return { low: (100 * (mean - k * spread)) / target, high: (100 * (mean + k * spread)) / target };
}

/** Extent of an axis that shows the tolerance as well as the values. */
export function withLimits(limits: Range | undefined) {
  return {
    min: ({ min }: { min: number }) => Math.floor(Math.min(min, limits?.low ?? min)),
    max: ({ max }: { max: number }) => Math.ceil(Math.max(max, limits?.high ?? max)),
  };
}

/** Bins are one percent wide; those between the first and the last that hold nothing are drawn as nothing. */
export function filled(bins: Bin[]): [number, number][] {
  if (bins.length === 0) return [];
  const by = new Map<number, number>();
  for (const { error_pct, n } of bins) by.set(error_pct, (by.get(error_pct) ?? 0) + n);
  const edges = [...by.keys()];
  const first = Math.min(...edges);
  const length = Math.min(2000, Math.max(...edges) - first + 1);
  return Array.from({ length }, (_, index) => [first + index + 0.5, by.get(first + index) ?? 0]);
}

export function histogram(bins: Bin[], limits: Range | undefined, most: Range | undefined, colour: (token: string) => string) {
  const data = filled(bins);
  const edges = [...data.map(([at]) => at), limits?.low ?? 0, limits?.high ?? 0, most?.low ?? 0, most?.high ?? 0];
  const axis = { axisLabel: { color: colour("quiet") }, nameTextStyle: { color: colour("quiet") }, axisLine: { lineStyle: { color: colour("line") } } };
  // The sentence above the chart gives the ends of the interval: labels of both pairs of lines would cover each other.
  const line = (value: number, name: string, token: string, type: "solid" | "dashed") =>
    ({ xAxis: value, lineStyle: { color: colour(token), type, width: 2 }, label: { show: name !== "", formatter: name, color: colour(token), position: "end", rotate: 0 } });
  return {
    grid: { left: 56, right: 24, top: 40, bottom: 44 },
    tooltip: { renderMode: "richText", trigger: "axis", formatter: (points: { value: [number, number] }[]) => {
      const [at, n] = points[0]?.value ?? [0, 0];
      return text.device.histogram.bin(figure(at - 0.5), figure(at + 0.5), n);
    } },
    xAxis: { type: "value" as const, name: text.device.histogram.x, nameLocation: "middle", nameGap: 28, min: Math.floor(Math.min(...edges) - 1), max: Math.ceil(Math.max(...edges) + 1), splitLine: { show: false }, ...axis },
    yAxis: { type: "value" as const, name: text.device.histogram.y, nameLocation: "middle" as const, nameGap: 36, minInterval: 1, splitLine: { lineStyle: { color: colour("line") } }, ...axis },
    series: [{
      type: "bar" as const, data, barWidth: "92%", itemStyle: { color: colour("series-1") },
      markArea: limits && { silent: true, itemStyle: { color: colour("band") }, data: [[{ xAxis: limits.low }, { xAxis: limits.high }]] },
      markLine: { silent: true, symbol: "none", data: [
        ...(limits ? [line(limits.low, text.device.histogram.limit(figure(limits.low)), "stop", "solid"), line(limits.high, text.device.histogram.limit(figure(limits.high)), "stop", "solid")] : []),
        ...(most ? [line(most.low, "", "series-2", "dashed"), line(most.high, "", "series-2", "dashed")] : []),
      ] },
    }],
  };
}
