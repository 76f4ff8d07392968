/** Days of a site as moments. */
import { wall } from "./charts/wall";

/** Begin of a day `YYYY-MM-DD` in a zone, `plus` days later, as the interface takes it; empty = no such day. */
export function dayBegin(day: string, zone: string, plus = 0): string {
  const midnight = Date.parse(`${day}T00:00:00Z`) + plus * 86_400_000;
  if (Number.isNaN(midnight)) return "";
  // Twice: the offset at the first guess may be that of the other side of a change of the clocks.
  let at = midnight;
  for (let turn = 0; turn < 2; turn++) at = midnight - (wall(at, zone) - at);
  return `${new Date(at).toISOString().slice(0, 19)}Z`;
}

/** The day of a moment in a zone, `YYYY-MM-DD`. */
export const dayOf = (at: number, zone: string): string => new Date(wall(at, zone)).toISOString().slice(0, 10);
