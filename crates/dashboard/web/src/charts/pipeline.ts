/** The way of the data as boxes, and what arrived in each minute. */
import type { Row } from "../api/client";
import type { EChartsCoreOption } from "echarts/core";
import { clock, count, duration, figure } from "../format";
import type { Level } from "../level";
import { text } from "../text/en";

export type Minute = Row<"Minute">;
export type Role = Row<"Role">;
/** What the boxes need of the overview. */
export type Overview = Omit<Row<"Overview">, "alerts_critical" | "alerts_high" | "alerts_other" | "sessions_today">;

export const STATIONS = ["device", "broker", "bridge", "kafka", "loader", "clickhouse", "monitor"] as const;
export type Station = {
  name: (typeof STATIONS)[number];
  level: Level;
  /** How it stands, in words. */
  state: string;
  /** Figures, each a short line. */
  lines: string[];
};

/** Nothing received for so long, although devices are online, needs a look, ms. */
export const SILENT = 10 * 60_000;
/** The monitor records a pass at least every minute; so long without one means that it stands, ms. */
export const MONITOR = 3 * 60_000;
/** A batch is committed within seconds of its records; so long after the latest receipt means that the loader stands, ms. */
export const BEHIND = 60_000;

/**
 * How each station stands. Times are compared with the clock of ClickHouse, `now`. `roles` and `minutes` are undefined
 * where the asker may not see them: then only what the overview says is judged.
 */
export function stations(overview: Overview, roles: Role[] | undefined, minutes: Minute[] | undefined): Station[] {
  const said = text.pipeline.station;
  const now = Date.parse(overview.now);
  const age = (at: string | null | undefined) => (at ? now - Date.parse(at) : undefined);
  const ago = (ms: number | undefined) => (ms !== undefined && ms < 1500 ? said.justNow : said.ago(duration(ms)));
  const latest = (role: string, state: string) => roles?.flatMap(row => (row.role === role && row.state === state && row.since ? row.since : [])).sort().at(-1);
  const oldest = (role: string, state: string) => roles?.flatMap(row => (row.role === role && row.state === state && row.since ? row.since : [])).sort()[0];
  const fault = (role: string) => roles?.find(row => row.role === role && row.state === "FAULT")?.detail;
  const received = age(overview.last_received_at);
  const committed = latest("load", "COMMITTED");
  const pass = oldest("monitor", "PASSED");

  const silent = received === undefined || (received > SILENT && overview.devices_online > 0);
  const behind = committed !== undefined && overview.last_received_at !== null && Date.parse(overview.last_received_at) - Date.parse(committed) > BEHIND;
  const stands = pass !== undefined && (age(pass) ?? 0) > MONITOR;
  const finished = (minutes ?? []).slice(0, -1).at(-1);
  const state = (name: Station["name"], level: Level, words: string, lines: (string | undefined)[]): Station => ({ name, level, state: words, lines: lines.filter(line => line !== undefined) });
  const running = (role: string, otherwise: [Level, string]): [Level, string] => {
    const why = fault(role);
    return why === undefined ? otherwise : ["stop", said.fault(why)];
  };
  return [
    state("device", overview.missing > 0 ? "look" : "fine", said.online(count(overview.devices_online), count(overview.devices)), [
      overview.missing > 0 ? said.missing(count(overview.missing)) : said.noneMissing, overview.lost > 0 ? said.lost(count(overview.lost)) : undefined,
    ]),
    state("broker", silent ? "look" : "fine", received === undefined ? said.never : silent ? said.silent(duration(received)) : said.arrives, [said.unseen]),
    state("bridge", ...running("bridge", silent ? ["look", said.nothing] : ["fine", said.runs]), [
      said.rate(figure(overview.injections_per_min)), received === undefined ? undefined : said.last(ago(received)),
      overview.quarantined_today > 0 ? said.quarantined(count(overview.quarantined_today)) : undefined,
    ]),
    state("kafka", "fine", roles ? said.kafka(count(roles.filter(row => row.role === "load" && row.state === "COMMITTED").length)) : said.keeps, [said.through]),
    state("loader", ...running("load", behind ? ["stop", said.behind(duration(Date.parse(overview.last_received_at ?? "") - Date.parse(committed ?? "")))] : ["fine", said.runs]), [
      finished ? said.rows(count(finished.events)) : undefined, committed ? said.committed(ago(age(committed))) : undefined,
    ]),
    state("clickhouse", "fine", said.answers, [
      overview.latency_p50_ms === null ? said.noLatency : said.latency(duration(overview.latency_p50_ms), duration(overview.latency_p99_ms)), said.stored(count(overview.stored)),
    ]),
    state("monitor", ...running("monitor", stands ? ["stop", said.stands(duration(age(pass)))] : ["fine", pass || !roles ? said.judges : said.neverJudged]), [pass ? said.passed(ago(age(pass))) : undefined]),
  ];
}

/** Injections and latency by minute. A minute without an injection has no latency: its line breaks. */
export function pipelineMinutes(minutes: Minute[], colour: (token: string) => string, zone = "UTC"): EChartsCoreOption {
  const words = text.pipeline.chart;
  const quiet = { color: colour("quiet"), fontFamily: "sans-serif" };
  const time = (at: string | number) => clock(at, zone).slice(0, 5);
  const x = { type: "category", data: minutes.map(({ minute }) => time(minute)), axisLabel: quiet, axisLine: { lineStyle: { color: colour("line") } } };
  const y = { type: "value", min: 0, nameLocation: "end", nameTextStyle: { ...quiet, align: "left" }, axisLabel: quiet, splitLine: { lineStyle: { color: colour("line") } } };
  const line = { type: "line", xAxisIndex: 1, yAxisIndex: 1, showSymbol: false, connectNulls: false } as const;
  return {
    grid: [{ left: 76, right: 16, top: 52, height: "30%" }, { left: 76, right: 16, bottom: 28, height: "30%" }],
    legend: { type: "scroll", top: 0, icon: "roundRect", textStyle: { color: colour("text"), fontFamily: "sans-serif" }, inactiveColor: colour("line"), pageIconColor: colour("accent"), pageTextStyle: quiet },
    tooltip: {
      trigger: "axis", confine: true, backgroundColor: colour("raised"), borderColor: colour("line"), textStyle: { color: colour("text") },
      valueFormatter: (value: unknown) => figure(value == null ? null : Number(value)),
    },
    axisPointer: { link: [{ xAxisIndex: "all" }] },
    xAxis: [{ ...x, gridIndex: 0, axisLabel: { show: false } }, { ...x, gridIndex: 1 }],
    yAxis: [{ ...y, gridIndex: 0, name: words.perMinute }, { ...y, gridIndex: 1, name: words.seconds }],
    series: [
      { type: "bar", name: words.injections, data: minutes.map(row => row.injections), color: colour("series-1") },
      { type: "line", step: "middle", showSymbol: false, name: words.events, data: minutes.map(row => row.events), color: colour("series-3") },
      {
        type: "scatter", symbol: "triangle", symbolSize: 11, name: words.quarantined, color: colour("look"),
        data: minutes.flatMap(({ quarantined }, index) => (quarantined > 0 ? [[index, quarantined]] : [])),
      },
      { ...line, name: words.p50, data: minutes.map(row => (row.latency_p50_ms === null ? null : row.latency_p50_ms / 1000)), color: colour("series-1") },
      { ...line, name: words.p99, data: minutes.map(row => (row.latency_p99_ms === null ? null : row.latency_p99_ms / 1000)), color: colour("series-2"), lineStyle: { type: "dashed" } },
    ],
  };
}
