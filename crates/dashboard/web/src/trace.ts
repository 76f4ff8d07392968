/** Follows a session, an item, a lot or a cycle: back to where its sterility comes from, forward to the sessions that it reached. */
import { all, one, path, Refused, type Row } from "./api/client";
import type { Edge, Graph, Kind, Node } from "./charts/trace";
import { grouped } from "./grouped";
import type { Level } from "./level";
import { urgency, type Cycle } from "./sterile";
import { text } from "./text/en";

export type Start = { tenant: string; kind: "session" | "item" | "lot" | "cycle"; id: string };
export const KINDS = ["session", "item", "lot", "cycle"] as const;

/** An item in a session, and the cycle before it. */
export type Contact = {
  item: string;
  slot: string;
  lot: string;
  session: string;
  at: string;
  device: string;
  site: string;
  /** null = the lot was mounted; injections are not counted by it. */
  injections: number | null;
  /** Latest cycle before it; empty = none known. */
  cycle: string;
  pack: string;
};
export type Traced = {
  contacts: Contact[];
  /** Items that it is about, also those that reached nobody. */
  items: string[];
  /** Packs of the items of a cycle. */
  packs: ReadonlyMap<string, string>;
  cycles: Map<string, Cycle>;
  /** Of an item: all that happened to it. */
  events: Event[];
  breaches: Row<"Breach">[];
  /** What could not be followed, in sentences. */
  unknown: string[];
};

/** The devices on which traced items were. */
export const devicesOf = (tenant: string, { contacts }: Traced): { tenant: string; device: string }[] =>
  [...new Set(contacts.map(({ device }) => device))].map(device => ({ tenant, device }));

const AT_ONCE = 8;
/** Items that are followed; a trace of more says so. */
const ITEMS_MOST = 500;

/** Asks for each, a few at a time. */
export async function each<From, To>(from: From[], ask: (one: From) => Promise<To>): Promise<To[]> {
  const answers: To[] = [];
  for (let index = 0; index < from.length; index += AT_ONCE) answers.push(...(await Promise.all(from.slice(index, index + AT_ONCE).map(ask))));
  return answers;
}

/** An answer, or undefined where there is no such thing. */
export async function maybe<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return undefined;
    throw error;
  }
}

type Event = Row<"ItemEvent">;

/**
 * The uses of an item that belong to a trace, each with the cycle before it. A cycle reaches the uses up to the next cycle
 * that passed and was released: one that failed makes nothing sterile.
 */
export function contactsOf(events: Event[], cycles: ReadonlyMap<string, Pick<Cycle, "verdict" | "decision">>, start: Start): Contact[] {
  const sorted = [...events].sort((a, b) => a.at.localeCompare(b.at));
  const lot = sorted.find(event => event.lot)?.lot ?? "";
  const sterile = (uid: string) => cycles.get(uid)?.verdict === "PASSED" && cycles.get(uid)?.decision === "RELEASED";
  const contacts: (Contact & { since: string[] })[] = [];
  let since: string[] = [];
  let last: Event | undefined;
  for (const event of sorted) {
    if (event.event === "STERILIZED") {
      since = sterile(event.cycle_uid) ? [event.cycle_uid] : [...since, event.cycle_uid];
      last = event;
    } else if (event.event === "USED" && event.session_id) {
      contacts.push({
        item: event.item_key, slot: event.slot, lot, session: event.session_id, at: event.at, device: event.device, site: event.site, injections: event.injections,
        cycle: last?.cycle_uid ?? "", pack: last?.pack_id ?? "", since,
      });
    }
  }
  const strip = ({ since: _, ...contact }: (typeof contacts)[number]): Contact => contact;
  if (start.kind === "cycle") return contacts.filter(({ since }) => since.includes(start.id)).map(strip);
  if (start.kind !== "session") return contacts.map(strip);
  // Of a session: the uses between the same cycles.
  const own = contacts.find(({ session }) => session === start.id);
  return own ? contacts.filter(({ since }) => since[0] === own.since[0]).map(strip) : [];
}

export async function follow(start: Start, signal: AbortSignal): Promise<Traced> {
  const { tenant, kind, id } = start;
  const said = text.trace.unknown;
  const unknown: string[] = [];
  const breaches = all<Row<"Breach">>({ path: "/breaches", query: { tenant } }, 10_000, signal);
  let items: string[] = [];
  let packs = new Map<string, string>();
  let contacts: Contact[] = [];
  if (kind === "item") items = [id];
  if (kind === "cycle") {
    const { rows } = await all<Row<"Load">>({ path: path`/tenants/${tenant}/cycles/${id}/items` }, 10_000, signal);
    items = rows.map(({ item_key }) => item_key);
    packs = new Map(rows.map(({ item_key, pack_id }) => [item_key, pack_id]));
    if (items.length === 0) unknown.push(said.emptyCycle);
  }
  if (kind === "session") {
    const { rows } = await all<Row<"Use">>({ path: path`/tenants/${tenant}/sessions/${id}/items` }, 10_000, signal);
    items = rows.flatMap(({ item_key }) => item_key || []);
    for (const { item_key, slot } of rows) if (!item_key) unknown.push(said.noSerial(text.trace.slot[slot] ?? slot));
    if (rows.length === 0) unknown.push(said.emptySession);
  }
  if (kind === "lot") {
    const cut = id.lastIndexOf("/");
    const [udi_di, lot] = cut < 0 ? [undefined, id] : [id.slice(0, cut), id.slice(cut + 1)];
    const { rows, more } = await all<Row<"Consumable">>({ path: path`/tenants/${tenant}/lots/${lot}/mounts`, query: { udi_di } }, 50_000, signal);
    if (more) unknown.push(said.more(rows.length));
    unknown.push(said.mixtures(id));
    const mounted = rows.filter(({ event }) => event === "MOUNTED");
    if (mounted.some(({ session_id }) => !session_id)) unknown.push(said.outside(mounted.filter(({ session_id }) => !session_id).length));
    const lotOnly = mounted.filter(({ id_kind }) => id_kind !== "SERIAL").length;
    if (lotOnly > 0) unknown.push(said.lotOnly(lotOnly));
    contacts = mounted.filter(({ session_id }) => session_id).map(row => ({
      item: row.id_kind === "SERIAL" ? row.item_id : "", slot: row.slot, lot: row.lot, session: row.session_id, at: row.at, device: row.device, site: row.site, injections: null, cycle: "", pack: row.pack_id,
    }));
  }
  items = [...new Set(items)];
  if (items.length > ITEMS_MOST) unknown.push(said.more(ITEMS_MOST));
  const histories = await each(items.slice(0, ITEMS_MOST), item => all<Event>({ path: path`/tenants/${tenant}/items`, query: { label: item } }, 20_000, signal));
  if (histories.some(({ more }) => more)) unknown.push(said.longLife);
  const uids = new Set(histories.flatMap(({ rows }) => rows.flatMap(({ cycle_uid }) => cycle_uid || [])));
  if (kind === "cycle") uids.add(id);
  const found = await each([...uids], uid => maybe(one<Cycle>({ path: path`/tenants/${tenant}/cycles/${uid}` }, signal)));
  const cycles = new Map(found.flatMap(cycle => (cycle ? [[cycle.cycle_uid, cycle] as const] : [])));
  for (const { rows } of histories) contacts.push(...contactsOf(rows, cycles, start));
  if (kind === "item" && histories[0]?.rows.length === 0) unknown.push(said.noItem);
  const named = kind === "lot" ? [...new Set(contacts.flatMap(({ item }) => item || []))] : items;
  return { contacts: contacts.sort((a, b) => b.at.localeCompare(a.at)), items: named, packs, cycles, events: kind === "item" ? (histories[0]?.rows ?? []) : [], breaches: (await breaches).rows, unknown: [...new Set(unknown)] };
}

/** The graph of a trace. `when` writes a time in the zone of its site. */
export function graphOf(start: Start, { contacts, items, packs, cycles, breaches }: Traced, when: (at: string, site: string) => string): { graph: Graph; start: string } {
  const said = text.trace;
  const nodes = new Map<string, Node>();
  const edges: Edge[] = [];
  const severe = (rows: Row<"Breach">[]): Level => (rows.some(row => row.state === "CONFIRMED" && row.severity === "critical") ? "stop" : rows.length > 0 ? "look" : "fine");
  const bySession = grouped(breaches.flatMap(row => row.sessions.map(session => [session, row] as const)), ([session]) => session);
  const byItem = grouped(breaches, row => row.item_id);
  const add = (kind: Kind, id: string, title: string, detail: string, level: Level, at = ""): string => {
    const key = `${kind}/${id}`;
    if (!nodes.has(key)) nodes.set(key, { id: key, kind, title, detail, level, at });
    return key;
  };
  const addItem = (item: string, slot: string) => add("item", item, item, said.slot[slot] ?? slot, severe(byItem.get(item) ?? []));
  const addCycle = (uid: string): string => {
    const cycle = cycles.get(uid);
    if (!cycle) return add("cycle", uid, uid, "", "look");
    const name = text.sterility.fullName(cycle.device, cycle.cycle_no, uid);
    const verdict = [text.sterility.verdictOf[cycle.verdict] ?? cycle.verdict, cycle.decision && text.sterility.decision[cycle.decision], when(cycle.started_at, cycle.site)];
    return add("cycle", uid, name, verdict.filter(Boolean).join(", "), urgency(cycle), cycle.started_at);
  };
  const from = start.kind === "lot" ? add("lot", start.id, start.id, said.kind.lot ?? "", "fine") : start.kind === "cycle" ? addCycle(start.id) : `${start.kind}/${start.id}`;
  const addPack = (cycle: string, origin: string, pack: string) => add("pack", `${cycle}/${pack}`, pack, said.kind.pack ?? "", nodes.get(origin)?.level ?? "fine", cycles.get(cycle)?.started_at);
  for (const { item, slot, lot, session, at, device, site, cycle, pack } of contacts) {
    const used = add("session", session, said.session(session), said.on(when(at, site), device), severe((bySession.get(session) ?? []).map(([, row]) => row)), at);
    const node = item ? addItem(item, slot) : undefined;
    if (start.kind === "lot") {
      edges.push(...(node ? [{ from, to: node }, { from: node, to: used }] : [{ from, to: used }]));
      continue;
    }
    if (!node) continue;
    edges.push({ from: node, to: used });
    if (lot && start.kind !== "cycle") edges.push({ from: add("lot", lot, lot, said.kind.lot ?? "", "fine"), to: node });
    if (!cycle) continue;
    const origin = addCycle(cycle);
    const packed = pack ? addPack(cycle, origin, pack) : undefined;
    edges.push(...(packed ? [{ from: origin, to: packed }, { from: packed, to: node }] : [{ from: origin, to: node }]));
  }
  // Items that reached nobody, and the start itself.
  for (const item of items) {
    const node = addItem(item, "");
    if (start.kind !== "cycle" || edges.some(({ to }) => to === node)) continue;
    const pack = packs.get(item);
    const packed = pack ? addPack(start.id, from, pack) : undefined;
    edges.push(...(packed ? [{ from, to: packed }, { from: packed, to: node }] : [{ from, to: node }]));
  }
  if (start.kind === "session") add("session", start.id, said.session(start.id), "", "fine");
  const unique = new Map(edges.map(edge => [`${edge.from}\n${edge.to}`, edge]));
  return { graph: { nodes: [...nodes.values()], edges: [...unique.values()] }, start: from };
}
