/** Where hits and labels lead. */
import { inUnits } from "./alert";
import { list, one, type Row } from "./api/client";
import type { Hit } from "./api/rows";
import { labelOf } from "./label";
import { to } from "./router.svelte";
import { scope } from "./scope.svelte";

/** Fewest characters that the server searches for. */
export const LEAST = 2;

/** Of hits that are equally near, what people ask for most stands first. */
const KINDS = ["DEVICE", "ITEM", "LOT", "SESSION", "CYCLE", "ALERT", "SITE"];

export async function find(q: string, signal?: AbortSignal): Promise<Hit[]> {
  const { rows } = await list<Hit>({ path: "/search", query: { q, tenant: scope.query.tenant } }, signal);
  return rows.sort((a, b) => a.rank - b.rank || KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind));
}
export const read = (label: string, signal?: AbortSignal): Promise<Row<"Label">> => one({ path: "/labels", query: { label } }, signal);

export function hitHref({ kind, tenant, site, id }: Hit): string {
  const owner = tenant || scope.owner || (scope.tenants[0] ?? "");
  switch (kind) {
    case "DEVICE":
      return to(["devices", owner, id]);
    case "SESSION":
      return to(["sessions", owner, id]);
    case "ITEM":
      return to(["trace", owner, "item", id]);
    case "LOT":
      return to(["trace", owner, "lot", id]);
    case "CYCLE":
      return to(["cycles", owner, id]);
    case "ALERT":
      return to(["alerts", owner, id]);
    default:
      return to(["fleet"], { tenant: owner, site: site || id });
  }
}

/** What names a hit: an alert its title, since its key is long. */
export const hitName = ({ kind, id, title }: Hit): string => (kind === "ALERT" ? inUnits(title) : id);

/** The one hit whose name is the text. */
async function exact(text: string): Promise<string | undefined> {
  const [first, ...others] = (await find(text).catch(() => [])).filter(({ rank }) => rank === 0);
  return first && others.length === 0 ? hitHref(first) : undefined;
}

/**
 * Where a typed or scanned text leads: the trace of the item that a label names, what has exactly this name, else the
 * page of the search.
 */
export async function leadsTo(typed: string): Promise<string> {
  const label = labelOf(typed);
  if (!label) {
    const q = typed.trim();
    return (q.length >= LEAST ? await exact(q) : undefined) ?? to(["search"], { q });
  }
  try {
    const { item_key: key, udi_di: product } = await read(label);
    const owner = scope.owner;
    // Without a product the text may be a part of a label; the page of the search says what it read.
    if (owner && product) return to(["trace", owner, "item", key]);
    const [first, ...others] = (await find(key)).filter(hit => hit.kind === "ITEM" && hit.id === key);
    if (first && others.length === 0) return hitHref(first);
  } catch {
    // The page of the search says what is wrong with the label.
  }
  return to(["search"], { q: label });
}
