/** Numbers and times for people: the locale of the browser, units that people use, three significant digits. */

const locale = globalThis.navigator?.languages?.[0] ?? "en";
export const NONE = "–";

/** A sentence begins with a capital letter. */
export const capital = (sentence: string): string => sentence.charAt(0).toLocaleUpperCase(locale) + sentence.slice(1);

/** A count, with separators. */
export const count = (value: number | null | undefined): string => (value == null ? NONE : new Intl.NumberFormat(locale).format(value));

/** A figure with three significant digits, or with as many as its whole part needs. */
export function figure(value: number | null | undefined, digits = 3): string {
  if (value == null || !Number.isFinite(value)) return NONE;
  const whole = Math.max(1, Math.floor(Math.log10(Math.abs(value) || 1)) + 1);
  const format = { maximumSignificantDigits: Math.max(digits, whole) };
  return new Intl.NumberFormat(locale, format).format(value === 0 ? 0 : value);
}

/** A figure of a column, each with as many digits after the decimal sign. */
export function fixed(value: number | null | undefined, digits = 1): string {
  if (value == null || !Number.isFinite(value)) return NONE;
  return new Intl.NumberFormat(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** Percent with its sign: `+9.4 %`. */
export function percent(value: number | null | undefined, digits = 2): string {
  if (value == null || !Number.isFinite(value)) return NONE;
  const format = { maximumFractionDigits: digits, minimumFractionDigits: digits, signDisplay: "exceptZero" } as const;
  return `${new Intl.NumberFormat(locale, format).format(value)} %`;
}

/** A part of a whole in percent, never rounded up to 100. */
export function share(part: number, whole: number): string {
  if (whole === 0) return NONE;
  const value = part === whole ? 100 : Math.min(99.99, (100 * part) / whole);
  return `${new Intl.NumberFormat(locale, { maximumFractionDigits: 2 }).format(value)} %`;
}

/** A volume in nl as microlitres, without the unit. */
export const microlitres = (nl: number | null | undefined): string => figure(nl == null ? null : nl / 1000);
/** A depth in um as millimetres, without the unit. */
export const millimetres = (um: number | null | undefined): string => figure(um == null ? null : um / 1000);
/** A value of a channel in the unit of people, with the unit. */
export const measured = (channel: string, value: number | null | undefined): string =>
  value == null ? NONE : channel === "DEPTH" ? `${millimetres(value)} mm` : `${microlitres(value)} µl`;
/** Celsius from millidegrees, without the unit. */
export const celsius = (mc: number | null | undefined): string => figure(mc == null ? null : mc / 1000, 4);
/** Kilopascal from pascal, without the unit. */
export const kilopascal = (pa: number | null | undefined): string => figure(pa == null ? null : pa / 1000, 4);

/** A length of time in the largest unit that fits: `4 min`, `3 d`. */
export function duration(ms: number | null | undefined): string {
  if (ms == null) return NONE;
  const units: [number, string][] = [[86_400_000, "d"], [3_600_000, "h"], [60_000, "min"], [1000, "s"]];
  const [size, name] = units.find(([size]) => Math.abs(ms) >= 1.5 * size) ?? [1, "ms"];
  return `${figure(ms / size, 2)} ${name}`;
}

/** `4 min ago`, `in 3 d`. */
export function relative(at: string | null | undefined, now: number): string {
  if (!at) return NONE;
  const distance = Date.parse(at) - now;
  if (Math.abs(distance) < 1500) return "now";
  return distance > 0 ? `in ${duration(distance)}` : `${duration(-distance)} ago`;
}

/** A zone that the browser knows, else UTC. */
export function zoneOf(name: string | undefined): string {
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name || "UTC" }).resolvedOptions().timeZone;
  } catch {
    return "UTC";
  }
}

/** A moment in a zone: `Tue 24 Nov, 14:10`. The year stands where it is not this one. */
export function moment(at: string | null | undefined, zone: string, seconds = false): string {
  if (!at) return NONE;
  const date = new Date(at);
  const year = date.getUTCFullYear() === new Date().getUTCFullYear() ? undefined : ("numeric" as const);
  const parts = { weekday: "short", day: "numeric", month: "short", year, hour: "2-digit", minute: "2-digit" } as const;
  return new Intl.DateTimeFormat(locale, { ...parts, second: seconds ? "2-digit" : undefined, hour12: false, timeZone: zone }).format(date);
}

/** A day in a zone: `24 Nov 2026`. */
export function day(at: string | null | undefined, zone = "UTC"): string {
  if (!at) return NONE;
  return new Intl.DateTimeFormat(locale, { day: "numeric", month: "short", year: "numeric", timeZone: zone }).format(new Date(at));
}

/** The time of a moment in a zone: `14:10:05`. */
export function clock(at: string | number, zone: string): string {
  return new Intl.DateTimeFormat(locale, { timeStyle: "medium", hour12: false, timeZone: zone }).format(new Date(at));
}
