/** How much of what devices have made was received. */
import { all, type Row } from "./api/client";
import { each } from "./trace";

export type Completeness = { made: number; stored: number; missing: number; lost: number };

/** Up to so many devices are asked for one by one; more as a whole. */
const SINGLY = 30;

/** By device, as `tenant/device`; a device that never said how much it has made is not in it. */
export async function completenessOf(devices: { tenant: string; device: string }[], signal: AbortSignal): Promise<Map<string, Completeness>> {
  const queries: { tenant: string; device?: string }[] = devices.length <= SINGLY ? devices : [...new Set(devices.map(({ tenant }) => tenant))].map(tenant => ({ tenant }));
  const answers = await each(queries, query => all<Row<"Completeness">>({ path: "/completeness", query }, 200_000, signal));
  const wanted = new Set(devices.map(({ tenant, device }) => `${tenant}/${device}`));
  const sums = new Map<string, Completeness>();
  for (const row of answers.flatMap(({ rows }) => rows)) {
    const key = `${row.tenant}/${row.device}`;
    if (!wanted.has(key)) continue;
    const sum = sums.get(key) ?? { made: 0, stored: 0, missing: 0, lost: 0 };
    sums.set(key, { made: sum.made + row.made, stored: sum.stored + row.stored, missing: sum.missing + row.missing, lost: sum.lost + row.lost });
  }
  return sums;
}
