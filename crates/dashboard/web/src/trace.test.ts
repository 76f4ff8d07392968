import { describe, expect, it } from "vitest";
import { contactsOf, graphOf, type Start } from "./trace";

const event = (at: string, event: string, more: { session_id?: string; cycle_uid?: string } = {}) => ({
  at, event, cycle_uid: "", device: "pen", injections: 3, item_id: "H-7", item_key: "H-7", lot: "", mount_id: "", pack_id: more.cycle_uid ? `pack ${more.cycle_uid}` : "", punctures: 3, rinse_water: "",
  session_id: "", site: "s", slot: "HANDPIECE", tenant: "t", ...more,
});
const EVENTS = [
  event("1", "USED", { session_id: "before" }),
  event("2", "STERILIZED", { cycle_uid: "good" }),
  event("3", "USED", { session_id: "first" }),
  event("4", "STERILIZED", { cycle_uid: "failed" }),
  event("5", "USED", { session_id: "unsterile" }),
  event("6", "STERILIZED", { cycle_uid: "next" }),
  event("7", "USED", { session_id: "after" }),
].reverse();
const CYCLES = new Map([
  ["good", { verdict: "PASSED", decision: "RELEASED" }],
  ["failed", { verdict: "FAILED", decision: "RELEASED" }],
  ["next", { verdict: "PASSED", decision: "RELEASED" }],
]);
const sessions = (kind: Start["kind"], id: string) => contactsOf(EVENTS, CYCLES, { tenant: "t", kind, id }).map(({ session }) => session);

describe("what a trace follows", () => {
  it("follows a cycle to the next one that passed and was released", () => {
    expect(sessions("cycle", "good")).toEqual(["first", "unsterile"]);
    expect(sessions("cycle", "failed")).toEqual(["unsterile"]);
    expect(sessions("cycle", "next")).toEqual(["after"]);
  });

  it("follows an item through all its life, each use with the cycle before it", () => {
    expect(contactsOf(EVENTS, CYCLES, { tenant: "t", kind: "item", id: "H-7" }).map(({ session, cycle }) => [session, cycle])).toEqual([["before", ""], ["first", "good"], ["unsterile", "failed"], ["after", "next"]]);
  });

  it("takes with a session the others between the same cycles", () => {
    expect(sessions("session", "unsterile")).toEqual(["first", "unsterile"]);
    expect(sessions("session", "before")).toEqual(["before"]);
    expect(sessions("session", "nobody")).toEqual([]);
  });

  it("lets a rejected cycle end nothing", () => {
    const rejected = new Map([...CYCLES, ["next", { verdict: "PASSED", decision: "REJECTED" }] as const]);
    expect(contactsOf(EVENTS, rejected, { tenant: "t", kind: "cycle", id: "failed" }).map(({ session }) => session)).toEqual(["unsterile", "after"]);
  });

  it("draws cycle, pack, item and session, and items that reached nobody", () => {
    const start: Start = { tenant: "t", kind: "cycle", id: "failed" };
    const contacts = contactsOf(EVENTS, CYCLES, start);
    const { graph } = graphOf(start, { contacts, items: ["H-7", "H-8"], packs: new Map([["H-8", "P8"]]), cycles: new Map(), events: [], breaches: [], unknown: [] }, at => at);
    expect(graph.nodes.map(({ id }) => id).sort()).toEqual(["cycle/failed", "item/H-7", "item/H-8", "pack/failed/P8", "pack/failed/pack failed", "session/unsterile"]);
    expect(graph.edges.map(({ from, to }) => `${from} > ${to}`).sort()).toEqual(["cycle/failed > pack/failed/P8", "cycle/failed > pack/failed/pack failed", "item/H-7 > session/unsterile", "pack/failed/P8 > item/H-8", "pack/failed/pack failed > item/H-7"]);
  });

  it("leads from an item back to its lot", () => {
    const start: Start = { tenant: "t", kind: "item", id: "H-7" };
    const contacts = contactsOf(EVENTS.map(event => ({ ...event, lot: event.at === "1" ? "L1" : "" })), CYCLES, start);
    const { graph } = graphOf(start, { contacts, items: ["H-7"], packs: new Map(), cycles: new Map(), events: [], breaches: [], unknown: [] }, at => at);
    expect(graph.edges.filter(({ from }) => from === "lot/L1")).toEqual([{ from: "lot/L1", to: "item/H-7" }]);
  });
});
