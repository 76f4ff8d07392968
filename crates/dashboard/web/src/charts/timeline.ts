/** Timeline of a session: what was mounted above, each injection below. */
import { percent } from "../format";
import { text } from "../text/en";
import { wall, wallAxis } from "./wall";

export type Shot = { at: string; shot: number | null; seq: number; outcome: string; target_nl: number | null; delivered_nl: number | null };
/** What was mounted, from when to when. */
export type Bar = { mount: string; slot: string; item: string; lot: string; from: string; to: string };
type Mount = { mount_id: string; event: string; at: string; slot: string; item_id: string; lot: string };
type Used = { mount_id: string; slot: string; item_id: string; first_at: string; last_at: string };

/** Most marks that a timeline gets. */
export const MOST = 2000;
/** Up to this many injections each mark has a line to zero. */
const STEMS = 500;

/** Error of the dose, percent of the set point; null where it was not measured or nothing was asked for. */
export const errorOf = ({ target_nl: target, delivered_nl: delivered }: Shot): number | null => (target && delivered != null ? (100 * (delivered - target)) / target : null);

/** The least and the greatest error of each of `buckets` stretches of equally many injections. */
function extremes<T extends Shot>(shots: T[], buckets: number): T[] {
  if (shots.length <= 2 * buckets) return shots;
  const kept: T[] = [];
  for (let bucket = 0; bucket < buckets; bucket++) {
    const stretch = shots.slice(Math.floor((bucket * shots.length) / buckets), Math.floor(((bucket + 1) * shots.length) / buckets));
    const by = [...stretch].sort((a, b) => (errorOf(a) ?? 0) - (errorOf(b) ?? 0));
    kept.push(...new Set([by[0], by.at(-1)].filter(shot => shot !== undefined)));
  }
  return kept;
}

/** At most `most` injections: those that did not end well first, then the extremes of the others, in their order. */
export function thin<T extends Shot>(shots: T[], most = MOST): T[] {
  if (shots.length <= most) return shots;
  const well = (shot: T) => shot.outcome === "OK" || shot.outcome === "";
  const ill = extremes(shots.filter(shot => !well(shot)), Math.floor(most / 4));
  const kept = new Set([...ill, ...extremes(shots.filter(well), Math.floor((most - ill.length) / 2))]);
  return shots.filter(shot => kept.has(shot));
}

/** One bar for each mount, from mounting to removal as far as both are known, else from its first to its last use. */
export function bars(mounts: Mount[], uses: Used[], ended: string | null): Bar[] {
  const known = new Map<string, Bar>();
  for (const { mount_id: mount, slot, item_id: item, first_at: from, last_at: to } of uses) {
    if (mount) known.set(mount, { mount, slot, item, lot: "", from, to });
  }
  for (const row of mounts.filter(({ event }) => event === "MOUNTED")) {
    const used = known.get(row.mount_id);
    const removed = mounts.find(({ event, mount_id }) => event === "REMOVED" && mount_id === row.mount_id)?.at;
    known.set(row.mount_id, {
      mount: row.mount_id, slot: row.slot || (used?.slot ?? ""), item: row.item_id || (used?.item ?? ""), lot: row.lot, from: row.at, to: removed ?? ended ?? used?.to ?? row.at,
    });
  }
  return [...known.values()].sort((a, b) => a.from.localeCompare(b.from) || a.mount.localeCompare(b.mount));
}

/** Shape and colour of an outcome. */
const OUTCOMES: Record<string, [symbol: string, token: string]> = {
  OK: ["circle", "series-1"], PARTIAL: ["triangle", "series-2"], ABORTED: ["rect", "stop"], OCCLUDED: ["diamond", "series-4"], NO_CONTACT: ["emptyTriangle", "due"], "": ["emptyCircle", "quiet"],
};
/** Height of a consumable's row, and where the injections begin below `rows` of them, px. */
const ROW = 22;
const top = (rows: number) => 44 + rows * ROW + 34;
export const height = (rows: number): string => `${top(rows) + 194}px`;

export function timeline(shots: Shot[], mounted: Bar[], zone: string, colour: (token: string) => string) {
  const shown = thin(shots);
  const place = (shot: Shot) => ({ value: [wall(shot.at, zone), errorOf(shot) ?? 0], shot: shot.shot ?? shot.seq, outcome: shot.outcome });
  const measured = shown.filter(shot => errorOf(shot) != null);
  const unmeasured = shown.filter(shot => errorOf(shot) == null);
  const times = [...shown.map(({ at }) => wall(at, zone)), ...mounted.flatMap(({ from, to }) => [wall(from, zone), wall(to, zone)])];
  const extent = { min: Math.min(...times), max: Math.max(...times) };
  const axis = wallAxis({ text: colour("quiet"), line: colour("line") });
  const scatter = (name: string, of: Shot[], symbol: string, token: string) =>
    ({ type: "scatter" as const, name, xAxisIndex: 1, yAxisIndex: 1, data: of.map(place), symbol, symbolSize: 9, itemStyle: { color: colour(token) } });
  const kinds = Object.entries(OUTCOMES).flatMap(([outcome, [symbol, token]]) => {
    const of = measured.filter(shot => (shot.outcome in OUTCOMES ? shot.outcome : "") === outcome);
    return of.length > 0 ? [scatter(text.outcome[outcome] ?? outcome, of, symbol, token)] : [];
  });
  const names = mounted.map(({ slot, item, lot }) => [text.session.sterility.slots[slot] ?? slot, item || lot].filter(Boolean).join(" "));
  return {
    useUTC: true,
    legend: { top: 0, left: 0, itemWidth: 14, textStyle: { color: colour("text") }, selectedMode: false, data: [...kinds.map(({ name }) => name), ...(unmeasured.length > 0 ? [text.session.timeline.unmeasured] : [])] },
    grid: [{ left: 150, right: 16, top: 44, height: mounted.length * ROW }, { left: 150, right: 16, top: top(mounted.length), height: 160 }],
    tooltip: { renderMode: "richText", formatter: ({ data, name }: { data: { shot?: number; outcome?: string; value: [number, number] }; name: string }) =>
      (data.shot === undefined ? name : text.session.timeline.injection(String(data.shot), percent(data.value[1]), text.outcome[data.outcome ?? ""] ?? "")) },
    xAxis: [
      { ...axis, ...extent, gridIndex: 0, show: false },
      { ...axis, ...extent, gridIndex: 1 },
    ],
    yAxis: [
      { type: "category" as const, gridIndex: 0, inverse: true, data: names.map((name, index) => ({ value: `${index}`, name })), axisLine: { show: false }, axisTick: { show: false }, axisLabel: { color: colour("text"), width: 140, overflow: "truncate", interval: 0, formatter: (index: string) => names[Number(index)] ?? "" } },
      { type: "value" as const, gridIndex: 1, name: text.session.timeline.y, splitNumber: 4, axisLabel: { color: colour("quiet") }, nameTextStyle: { color: colour("quiet"), align: "right" }, splitLine: { lineStyle: { color: colour("line") } } },
    ],
    series: [
      {
        type: "custom" as const, xAxisIndex: 0, yAxisIndex: 0, itemStyle: { color: colour("band"), borderColor: colour("series-1") }, encode: { x: [0, 1], y: 2 },
        data: mounted.map(({ from, to }, index) => ({ name: names[index], value: [wall(from, zone), wall(to, zone), index] })),
        renderItem: (_: unknown, api: { value: (index: number) => number; coord: (at: [number, number]) => [number, number]; style: () => object }) => {
          const [left, middle] = api.coord([api.value(0), api.value(2)]);
          const [right] = api.coord([api.value(1), api.value(2)]);
          return { type: "rect", shape: { x: left, y: middle - 7, width: Math.max(2, right - left), height: 14, r: 3 }, style: api.style() };
        },
      },
      ...(shown.length <= STEMS ? [{ type: "bar" as const, silent: true, xAxisIndex: 1, yAxisIndex: 1, barWidth: 2, itemStyle: { color: colour("line") }, data: measured.map(shot => place(shot).value), name: "" }] : []),
      ...kinds,
      ...(unmeasured.length > 0 ? [scatter(text.session.timeline.unmeasured, unmeasured, "emptyDiamond", "quiet")] : []),
    ],
  };
}
