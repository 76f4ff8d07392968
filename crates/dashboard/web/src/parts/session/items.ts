/** What was used in a session, and how sterile each item was. */
import { list, one, path, type Row } from "../../api/client";
import type { Level } from "../../level";

type Consumable = Row<"Consumable">;
/** An item in use, with the last cycle before it. */
export type Sterile = { mount: Consumable | undefined; use: Row<"Use"> | undefined; item: string; cycle: Row<"Cycle"> | undefined };

const PAGES = 10;

/**
 * Consumables of the devices of a session. The list of a device begins with the latest, so pages are read until they are
 * earlier than the session; `partial` says that they did not reach that far.
 */
export async function consumablesOf({ session, devices, began }: { session: string; devices: string[]; began: string }, tenant: string, signal: AbortSignal): Promise<{ rows: Consumable[]; partial: boolean }> {
  const rows: Consumable[] = [];
  let partial = false;
  for (const device of devices) {
    let cursor: string | undefined;
    let pages = 0;
    do {
      const page: { data: Consumable[]; next: string | null } = await one({ path: path`/tenants/${tenant}/devices/${device}/consumables`, query: { limit: 1000, cursor } }, signal);
      rows.push(...page.data.filter(row => row.session_id === session));
      // An hour: what belongs to the session was mounted for it.
      const past = Date.parse(page.data.at(-1)?.at ?? began) < Date.parse(began) - 3_600_000;
      cursor = past ? undefined : page.next ?? undefined;
      pages += 1;
    } while (cursor && pages < PAGES);
    partial ||= cursor !== undefined;
  }
  return { rows: rows.sort((a, b) => a.at.localeCompare(b.at)), partial };
}

/** Each item with its last sterilization before its first use in the session. Only reusable ones can have one. */
export async function sterileOf(mounts: Consumable[], uses: Row<"Use">[], tenant: string, signal: AbortSignal): Promise<Sterile[]> {
  const mounted = mounts.filter(({ event }) => event === "MOUNTED");
  const unmounted = uses.filter(use => !mounted.some(mount => mount.mount_id === use.mount_id));
  const items: Sterile[] = [
    ...mounted.map(mount => ({ mount, use: uses.find(use => use.mount_id === mount.mount_id), item: mount.item_id, cycle: undefined })),
    ...unmounted.map(use => ({ mount: undefined, use, item: use.item_id, cycle: undefined })),
  ];
  return Promise.all(items.map(async sterile => {
    if (!sterile.item || sterile.mount?.reusable === false) return sterile;
    const before = sterile.use?.first_at ?? sterile.mount?.at ?? "";
    const { rows } = await list<Row<"ItemEvent">>({ path: path`/tenants/${tenant}/items`, query: { label: sterile.item, limit: 1000 } }, signal);
    const last = rows.find(({ event, at }) => event === "STERILIZED" && at < before);
    const cycle = last && (await one<Row<"Cycle">>({ path: path`/tenants/${tenant}/cycles/${last.cycle_uid}` }, signal).catch(() => undefined));
    return { ...sterile, cycle };
  }));
}

/** How urgent the sterility of an item is. */
export function levelOf({ mount, cycle }: Pick<Sterile, "mount" | "cycle">): Level {
  if (mount?.pack_intact === false) return "stop";
  if (!mount?.reusable && !cycle) return "fine";
  if (!cycle || cycle.verdict === "FAILED" || cycle.verdict === "INDETERMINATE" || cycle.indicators_positive > 0 || cycle.decision === "REJECTED") return "stop";
  return cycle.verdict === "PASSED" && cycle.decision === "RELEASED" ? "fine" : "due";
}
