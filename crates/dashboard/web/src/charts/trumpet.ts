/** Trumpet curve: how far the mean error of consecutive injections can be off, by how many one takes. */
import type { Row } from "../api/client";
import { figure, percent } from "../format";
import { text } from "../text/en";
import { withLimits, type Range } from "./histogram";

export type Window = Row<"TrumpetWindow">;

export function trumpet(windows: Window[], limits: Range | undefined, colour: (token: string) => string) {
  const sorted = [...windows].sort((a, b) => a.window - b.window);
  const axis = { axisLabel: { color: colour("quiet") }, nameTextStyle: { color: colour("quiet") }, axisLine: { lineStyle: { color: colour("line") } } };
  const line = (name: string, value: (window: Window) => number, token: string, symbol: string) =>
    ({ type: "line" as const, name, symbol, symbolSize: 8, lineStyle: { color: colour(token), width: 2 }, itemStyle: { color: colour(token) }, data: sorted.map(window => [String(window.window), value(window), window.n]) });
  const limit = (yAxis: number) => ({ yAxis, lineStyle: { color: colour("stop"), type: "solid" }, label: { formatter: text.device.drift.limit(figure(yAxis)), color: colour("stop"), position: "insideEndTop" } });
  return {
    grid: { left: 56, right: 24, top: 52, bottom: 48 },
    legend: { top: 0, itemWidth: 14, left: 48, textStyle: { color: colour("text") }, selectedMode: false },
    tooltip: { renderMode: "richText", formatter: ({ value: [window, error, n] }: { value: [string, number, number] }) => text.device.trumpet.point(window, percent(error), n) },
    xAxis: { type: "category" as const, data: sorted.map(({ window }) => String(window)), name: text.device.trumpet.x, nameLocation: "middle", nameGap: 30, ...axis },
    yAxis: { type: "value" as const, name: text.device.drift.error, nameLocation: "middle" as const, nameGap: 36, ...withLimits(limits), splitLine: { lineStyle: { color: colour("line") } }, ...axis },
    series: [
      {
        ...line(text.device.trumpet.greatest, window => window.error_max_pct, "series-1", "triangle"),
        markArea: limits && { silent: true, itemStyle: { color: colour("band"), opacity: 0.6 }, data: [[{ yAxis: limits.low }, { yAxis: limits.high }]] },
        markLine: limits && { silent: true, symbol: "none", data: [limit(limits.low), limit(limits.high)] },
      },
      line(text.device.trumpet.least, window => window.error_min_pct, "series-3", "rect"),
    ],
  };
}
