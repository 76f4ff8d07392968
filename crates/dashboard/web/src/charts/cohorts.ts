/** Cohorts of a manufacturer: error over days since calibration, with intervals. */
import type { Row } from "../api/client";
import { percent } from "../format";
import { text } from "../text/en";

export type CohortDay = Row<"CohortDay">;
export type Outlier = Omit<Row<"Outlier">, "rank">;

/** Cohorts that a chart shows at a time: as many as there are colours and shapes. */
export const SHOWN = 4;
/** Days of a cohort that a chart shows: with the band three points a day, 1,800 in all. */
const DAYS = 150;
/** Robust standard deviations beyond which a unit stands out (Iglewicz and Hoaglin, 1993). */
const FAR = 3.5;
const SYMBOLS = ["circle", "triangle", "rect", "diamond"];

/** Names of the cohorts, that with the most injections first. */
export function cohortsOf(rows: CohortDay[]): string[] {
  const sizes = new Map<string, number>();
  for (const { cohort, n } of rows) sizes.set(cohort, (sizes.get(cohort) ?? 0) + n);
  return [...sizes].sort(([a, m], [b, n]) => n - m || a.localeCompare(b)).map(([cohort]) => cohort);
}

/** Units that stand out, the furthest first. */
export const standOut = (outliers: Outlier[]): Outlier[] =>
  outliers.filter(({ z }) => z != null && Math.abs(z) > FAR).sort((a, b) => Math.abs(b.z ?? 0) - Math.abs(a.z ?? 0));

/** The last day of the cohort that is furthest from zero then, of days that several units reach where there are such. */
export function furthest(rows: CohortDay[]): CohortDay | undefined {
  const last = cohortsOf(rows).flatMap(name => {
    const days = rows.filter(({ cohort }) => cohort === name).sort((a, b) => b.days_since_calibration - a.days_since_calibration);
    return days.find(({ units }) => units > 1) ?? days[0] ?? [];
  });
  return last.sort((a, b) => Math.abs(b.error_pct) - Math.abs(a.error_pct))[0];
}

/** Days of one cohort in order; of many, each `size` days as one: their mean by injections, and the widest interval. */
export function days(rows: CohortDay[], size: number): CohortDay[] {
  const buckets = new Map<number, CohortDay[]>();
  for (const row of rows) {
    const bucket = Math.floor(row.days_since_calibration / size);
    buckets.set(bucket, [...(buckets.get(bucket) ?? []), row]);
  }
  return [...buckets].sort(([a], [b]) => a - b).flatMap(([bucket, of]) => {
    const [first] = of;
    if (!first || of.length === 1) return of;
    const n = of.reduce((sum, row) => sum + row.n, 0);
    const known = of.filter(row => row.error_low_pct != null && row.error_high_pct != null);
    return [{
      ...first, days_since_calibration: bucket * size, n, units: Math.max(...of.map(({ units }) => units)), error_pct: of.reduce((sum, row) => sum + row.error_pct * row.n, 0) / n,
      error_low_pct: known.length > 0 ? Math.min(...known.map(row => row.error_low_pct ?? 0)) : null,
      error_high_pct: known.length > 0 ? Math.max(...known.map(row => row.error_high_pct ?? 0)) : null,
    }];
  });
}

/** How many days one point stands for. */
export const sizeOf = (rows: CohortDay[]): number => Math.max(1, Math.ceil((Math.max(0, ...rows.map(row => row.days_since_calibration)) + 1) / DAYS));

export function cohorts(rows: CohortDay[], shown: string[], outliers: Outlier[], colour: (token: string) => string) {
  const size = sizeOf(rows);
  const axis = { axisLabel: { color: colour("quiet") }, nameTextStyle: { color: colour("quiet") }, axisLine: { lineStyle: { color: colour("line") } } };
  const series = shown.slice(0, SHOWN).flatMap((name, index) => {
    const of = days(rows.filter(({ cohort }) => cohort === name), size);
    const token = `series-${index + 1}`;
    const band = { type: "line" as const, name: `${name} ${text.manufacturer.drift.interval}`, stack: name, stackStrategy: "all" as const, symbol: "none", silent: true, lineStyle: { opacity: 0 }, tooltip: { show: false } };
    return [
      { ...band, data: of.map(day => [day.days_since_calibration, day.error_low_pct]) },
      {
        ...band, areaStyle: { color: colour(token), opacity: 0.18 },
        data: of.map(day => [day.days_since_calibration, day.error_low_pct == null || day.error_high_pct == null ? null : day.error_high_pct - day.error_low_pct]),
      },
      {
        type: "line" as const, name, symbol: SYMBOLS[index] ?? "circle", symbolSize: 6, lineStyle: { color: colour(token), width: 2 }, itemStyle: { color: colour(token) },
        data: of.map(day => [day.days_since_calibration, day.error_pct, day.error_low_pct, day.error_high_pct, day.units, day.n]),
      },
    ];
  });
  const lines = outliers.slice(0, 8).map(({ unit_key: unit, error_pct: error }) => ({
    yAxis: error, lineStyle: { color: colour("stop"), type: "dashed", width: 1.5 }, label: { formatter: `${text.manufacturer.drift.unit(unit.slice(0, 8))} ${percent(error, 1)}`, color: colour("stop"), position: "insideEndTop" },
  }));
  // Marks do not widen an axis by themselves.
  const errors = outliers.map(({ error_pct }) => error_pct);
  return {
    grid: { left: 56, right: 24, top: 52, bottom: 48 },
    legend: { top: 0, itemWidth: 14, left: 48, textStyle: { color: colour("text") }, selectedMode: false, data: shown.slice(0, SHOWN) },
    tooltip: { renderMode: "richText", formatter: ({ seriesName, value }: { seriesName: string; value: [number, number, number | null, number | null, number, number] }) => text.manufacturer.drift.point(seriesName, ...value) },
    xAxis: { type: "value" as const, min: 0, name: text.manufacturer.drift.x, nameLocation: "middle", nameGap: 30, splitLine: { show: false }, ...axis },
    yAxis: {
      type: "value" as const, name: text.manufacturer.drift.y, nameLocation: "middle" as const, nameGap: 36, splitLine: { lineStyle: { color: colour("line") } }, ...axis,
      min: ({ min }: { min: number }) => Math.floor(Math.min(min, ...errors)), max: ({ max }: { max: number }) => Math.ceil(Math.max(max, ...errors)),
    },
    series: series.map((one, index) => (index === 2 && lines.length > 0 ? { ...one, markLine: { silent: true, symbol: "none", data: lines } } : one)),
  };
}

/** The error of one unit by day, over its set points. */
export function unitDays(rows: { day: string; n: number; error_pct: number | null }[]): { day: string; n: number; error_pct: number }[] {
  const by = new Map<string, { n: number; sum: number }>();
  for (const { day, n, error_pct } of rows) {
    if (error_pct == null) continue;
    const known = by.get(day) ?? { n: 0, sum: 0 };
    by.set(day, { n: known.n + n, sum: known.sum + n * error_pct });
  }
  return [...by].map(([day, { n, sum }]) => ({ day, n, error_pct: sum / n })).sort((a, b) => a.day.localeCompare(b.day)).slice(-2000);
}

export function unit(rows: { day: string; n: number; error_pct: number }[], colour: (token: string) => string) {
  const axis = { axisLabel: { color: colour("quiet"), hideOverlap: true }, nameTextStyle: { color: colour("quiet") }, axisLine: { lineStyle: { color: colour("line") } } };
  return {
    useUTC: true,
    grid: { left: 56, right: 24, top: 36, bottom: 36 },
    tooltip: { renderMode: "richText", formatter: ({ value: [day, error, n] }: { value: [string, number, number] }) => text.manufacturer.outliers.day(day, error, n) },
    xAxis: { type: "time" as const, splitLine: { show: false }, ...axis },
    yAxis: { type: "value" as const, name: text.manufacturer.drift.y, nameLocation: "middle" as const, nameGap: 36, splitLine: { lineStyle: { color: colour("line") } }, ...axis },
    series: [{ type: "line" as const, symbol: "circle", symbolSize: 6, lineStyle: { color: colour("series-1"), width: 2 }, itemStyle: { color: colour("series-1") }, data: rows.map(({ day, error_pct, n }) => [day, error_pct, n]) }],
  };
}
