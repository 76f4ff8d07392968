/** Times on an axis stand in the zone of the site: a moment becomes the time on its wall clock. */

const formats = new Map<string, Intl.DateTimeFormat>();

/** The time on the wall clock of a zone at a moment, as if it were UTC, ms. */
export function wall(at: string | number, zone: string): number {
  const moment = typeof at === "number" ? at : Date.parse(at);
  let format = formats.get(zone);
  if (!format) {
    const parts = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" } as const;
    format = new Intl.DateTimeFormat("en-US", { ...parts, hourCycle: "h23", timeZone: zone });
    formats.set(zone, format);
  }
  const value = Object.fromEntries(format.formatToParts(moment).map(({ type, value }) => [type, Number(value)]));
  const whole = Date.UTC(value.year ?? 0, (value.month ?? 1) - 1, value.day, value.hour, value.minute, value.second);
  return whole + (((moment % 1000) + 1000) % 1000);
}

const DAY = 86_400_000;
const days = new Intl.DateTimeFormat(globalThis.navigator?.languages?.[0] ?? "en", { day: "numeric", month: "short", timeZone: "UTC" });
const hours = new Intl.DateTimeFormat(globalThis.navigator?.languages?.[0] ?? "en", { hour: "2-digit", minute: "2-digit", hour12: false, timeZone: "UTC" });

const seconds = new Intl.DateTimeFormat(globalThis.navigator?.languages?.[0] ?? "en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false, timeZone: "UTC" });

/** Label of a time on the axis: the day at midnight, else the hour. */
export const wallLabel = (value: number): string => (value % DAY === 0 ? days : value % 60_000 === 0 ? hours : seconds).format(value);

/** An axis of such times. */
export function wallAxis(colours: { text: string; line: string }) {
  return { type: "time" as const, axisLabel: { color: colours.text, hideOverlap: true, formatter: wallLabel }, axisLine: { lineStyle: { color: colours.line } }, splitLine: { show: false } };
}
