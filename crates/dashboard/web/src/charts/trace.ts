/** The layout of a trace: columns from left to right, groups where there are many nodes. */
import { grouped } from "../grouped";
import type { Level } from "../level";

/** What a node is; its column follows from it. */
export type Kind = "lot" | "cycle" | "pack" | "item" | "session";
export type Node = {
  id: string;
  kind: Kind;
  title: string;
  detail: string;
  level: Level;
  /** For the order in its column; empty = not known. */
  at: string;
};
/** From the left to the right: what the second has from the first. */
export type Edge = { from: string; to: string };
export type Graph = { nodes: Node[]; edges: Edge[] };

/** A node that is drawn, or a group of `members`. */
export type Box = { id: string; kind: Kind; level: Level; x: number; y: number; members: Node[]; group: boolean };
export type Line = { from: string; to: string; path: string };
export type Layout = { boxes: Box[]; lines: Line[]; width: number; height: number };

/** More nodes than these become groups. */
export const MOST = 30;
export const BOX = { width: 212, height: 52, across: 72, down: 12 };
/** Rows that are seen at once. */
const TALL = 8;
const COLUMN: Record<Kind, number> = { lot: 0, cycle: 0, pack: 1, item: 2, session: 3 };
const LAST = 3;

/**
 * Groups of nodes: in a small graph every node is its own. In one of more than `MOST` nodes, those of a column join that
 * are as urgent and have the same neighbours towards the start; `open` groups fall apart. The start stays alone.
 */
export function groups({ nodes, edges }: Graph, start: string, open: ReadonlySet<string>): Map<string, { id: string; members: Node[]; group: boolean }> {
  const of = new Map<string, { id: string; members: Node[]; group: boolean }>();
  const alone = (node: Node) => of.set(node.id, { id: node.id, members: [node], group: false });
  if (nodes.length <= MOST) {
    nodes.forEach(alone);
    return of;
  }
  const beside = new Map<string, string[]>();
  for (const { from, to } of edges) {
    beside.set(from, [...(beside.get(from) ?? []), to]);
    beside.set(to, [...(beside.get(to) ?? []), from]);
  }
  const first = nodes.find(({ id }) => id === start);
  const home = first ? COLUMN[first.kind] : 0;
  if (first) alone(first);
  // Columns in the order of their distance from the start, so that the neighbours towards it have their groups.
  const columns = [...Array(LAST + 1).keys()].sort((a, b) => Math.abs(a - home) - Math.abs(b - home));
  for (const column of columns) {
    const here = nodes.filter(node => COLUMN[node.kind] === column && node.id !== start);
    const key = (node: Node) => {
      const towards = (beside.get(node.id) ?? []).flatMap(id => of.get(id)?.id ?? []);
      return [node.kind, node.level, ...new Set(towards.sort())].join(" ");
    };
    // All keys first: nodes of one column do not count as neighbours of each other.
    for (const [name, members] of grouped(here.map(node => [key(node), node] as const), ([key]) => key)) {
      const id = `group-${short(name)}`;
      const nodes = members.map(([, node]) => node);
      if (nodes.length === 1 || open.has(id)) nodes.forEach(alone);
      else for (const node of nodes) of.set(node.id, { id, members: nodes, group: true });
    }
  }
  return of;
}

/** A short name for a long key, the same each time. */
function short(key: string): string {
  let hash = 5381;
  for (let index = 0; index < key.length; index++) hash = (hash * 33 + key.charCodeAt(index)) >>> 0;
  return hash.toString(36);
}

/** Boxes and lines with their places, px. Columns that hold nothing take no room. */
export function layout(graph: Graph, start: string, open: ReadonlySet<string> = new Set()): Layout {
  const of = groups(graph, start, open);
  const all = [...new Map([...of.values()].map(group => [group.id, group])).values()];
  const used = [...new Set(graph.nodes.map(({ kind }) => COLUMN[kind]))].sort();
  const edges = [...new Map(graph.edges.flatMap(({ from, to }) => {
    const [left, right] = [of.get(from)?.id, of.get(to)?.id];
    return left && right && left !== right ? [[`${left}\n${right}`, { from: left, to: right }] as const] : [];
  })).values()];

  const place = new Map<string, Box>();
  const step = BOX.height + BOX.down;
  const columns = used.map(column => all.filter(({ members }) => members[0] && COLUMN[members[0].kind] === column));
  const tallest = Math.max(1, ...columns.map(column => column.length));
  columns.forEach((column, index) => {
    // A node stands at the height of its neighbours on the left; else in the order of time.
    const height = (id: string) => {
      const left = edges.flatMap(({ from, to }) => (to === id ? (place.get(from)?.y ?? []) : []));
      return left.length ? left.reduce((sum, y) => sum + y, 0) / left.length : Infinity;
    };
    const at = (members: Node[]) => members.reduce((least, node) => (node.at && (!least || node.at < least) ? node.at : least), "");
    const sorted = column.map(group => ({ ...group, height: height(group.id), at: at(group.members) }));
    sorted.sort((a, b) => (a.height === b.height ? 0 : a.height - b.height) || a.at.localeCompare(b.at) || a.id.localeCompare(b.id));
    // In the middle; at the top where the middle would be out of view.
    const top = tallest > TALL ? 0 : ((tallest - sorted.length) * step) / 2;
    sorted.forEach(({ id, members, group }, row) => {
      const { kind, level } = members[0] as Node;
      place.set(id, { id, kind, level, members, group, x: index * (BOX.width + BOX.across), y: top + row * step });
    });
  });

  const lines = edges.flatMap(({ from, to }) => {
    const [left, right] = [place.get(from), place.get(to)];
    if (!left || !right) return [];
    const [x0, y0, x1, y1] = [left.x + BOX.width, left.y + BOX.height / 2, right.x, right.y + BOX.height / 2];
    const bend = (x1 - x0) / 2;
    return [{ from, to, path: `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}` }];
  });
  return { boxes: [...place.values()], lines, width: used.length * BOX.width + Math.max(0, used.length - 1) * BOX.across, height: tallest * step - BOX.down };
}
