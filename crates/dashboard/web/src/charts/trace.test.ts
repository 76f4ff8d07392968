import { describe, expect, it } from "vitest";
import { BOX, layout, MOST, type Graph, type Kind, type Node } from "./trace";

const node = (kind: Kind, id: string, more: Partial<Node> = {}): Node => ({ id, kind, title: id, detail: "", level: "fine", at: "", ...more });
const edge = (from: string, to: string) => ({ from, to });

const SMALL: Graph = {
  nodes: [node("session", "s2", { at: "2" }), node("session", "s1", { at: "1" }), node("item", "i"), node("pack", "p"), node("cycle", "c")],
  edges: [edge("c", "p"), edge("p", "i"), edge("i", "s1"), edge("i", "s2")],
};
/** A cycle with `n` items, each in its pack and used in one session. */
const load = (n: number, bad = 0): Graph => {
  const numbers = [...Array(n).keys()];
  return {
    nodes: [node("cycle", "c"), ...numbers.flatMap(i => [node("pack", `p${i}`), node("item", `i${i}`), node("session", `s${i}`, { level: i < bad ? "stop" : "fine" })])],
    edges: numbers.flatMap(i => [edge("c", `p${i}`), edge(`p${i}`, `i${i}`), edge(`i${i}`, `s${i}`)]),
  };
};
const column = (graph: ReturnType<typeof layout>, kind: Kind) => graph.boxes.filter(box => box.kind === kind);

describe("the layout of a trace", () => {
  it("puts cycle, pack, item and session in columns from left to right", () => {
    const { boxes, lines, width, height } = layout(SMALL, "s1");
    const x = (id: string) => boxes.find(box => box.id === id)?.x;
    expect([x("c"), x("p"), x("i"), x("s1"), x("s2")]).toEqual([0, 1, 2, 3, 3].map(index => index * (BOX.width + BOX.across)));
    expect(lines).toHaveLength(4);
    expect(width).toBe(4 * BOX.width + 3 * BOX.across);
    expect(height).toBe(2 * BOX.height + BOX.down);
    expect(column({ boxes, lines, width, height }, "session").map(box => box.id)).toEqual(["s1", "s2"]);
  });

  it("takes no room for a column without nodes", () => {
    const graph = layout({ nodes: [node("lot", "l"), node("item", "i")], edges: [edge("l", "i")] }, "l");
    expect(graph.boxes.map(box => box.x)).toEqual([0, BOX.width + BOX.across]);
  });

  it("draws every node while there are at most thirty", () => {
    const graph = layout({ nodes: [node("item", "i"), ...[...Array(MOST - 1).keys()].map(i => node("session", `s${i}`))], edges: [] }, "i");
    expect(graph.boxes).toHaveLength(MOST);
    expect(graph.boxes.some(box => box.group)).toBe(false);
  });

  it("groups more than thirty nodes by what they have in common, and loses none", () => {
    const graph = layout(load(20), "c");
    expect(graph.boxes.map(({ kind, group, members }) => [kind, group, members.length])).toEqual([["cycle", false, 1], ["pack", true, 20], ["item", true, 20], ["session", true, 20]]);
    expect(graph.lines).toHaveLength(3);
  });

  it("keeps what is urgent apart from the rest", () => {
    expect(column(layout(load(20, 3), "c"), "session").map(({ level, members }) => [level, members.length]).sort()).toEqual([["fine", 17], ["stop", 3]]);
  });

  it("opens a group in place, with what follows it", () => {
    const graph = layout(load(20), "c");
    const items = column(graph, "item")[0]?.id ?? "";
    const opened = layout(load(20), "c", new Set([items]));
    expect(column(opened, "item")).toHaveLength(20);
    expect(column(opened, "session")).toHaveLength(20);
    expect(column(opened, "pack")).toHaveLength(1);
    expect(layout(load(20), "c", new Set([items]))).toEqual(opened);
  });

  it("groups towards the start, wherever it is", () => {
    const graph = layout({ nodes: load(20).nodes, edges: load(20).edges }, "s4");
    expect(column(graph, "session").map(box => box.members.length).sort((a, b) => a - b)).toEqual([1, 19]);
    expect(graph.boxes.find(box => box.id === "s4")?.group).toBe(false);
    expect(graph.boxes.flatMap(box => box.members)).toHaveLength(61);
  });

  it("lets no two boxes overlap", () => {
    const { boxes } = layout(load(9), "i3");
    const places = new Set(boxes.map(({ x, y }) => `${x} ${y}`));
    expect(places.size).toBe(boxes.length);
    for (const a of boxes) for (const b of boxes) if (a !== b && a.x === b.x) expect(Math.abs(a.y - b.y)).toBeGreaterThanOrEqual(BOX.height + BOX.down);
  });
});
