/** Requests to `/api/v1`. */
import type { components } from "./schema";

/** A row as the OpenAPI description has it. */
export type Row<Name extends keyof components["schemas"]> = components["schemas"][Name];
/** A request: path below `/api/v1`, and parameters. Empty parameters are left out. */
export type Source = { path: string; query?: Record<string, string | number | boolean | undefined> };

/** Why there is no answer, in words for people. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** Number of the request in the log of the server. */
    readonly request: string,
  ) {
    super(message);
  }
}

/** Address of a request. */
export function url(source: Source): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(source.query ?? {})) {
    if (value !== undefined && value !== "") query.set(name, String(value));
  }
  const text = query.toString();
  return `/api/v1${source.path}${text ? `?${text}` : ""}`;
}

/** A path of the interface with its names escaped: `` path`/tenants/${tenant}/devices` ``. */
export function path(texts: TemplateStringsArray, ...names: string[]): string {
  return texts.reduce((whole, text, index) => whole + encodeURIComponent(names[index - 1] ?? "") + text);
}

async function answered(source: Source, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url(source), init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Refused(0, "doseline does not answer. Is it running, and is the network there?", "");
  }
  if (response.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  if (response.ok) return response;
  const problem = (await response.json().catch(() => ({}))) as Partial<Row<"Problem">>;
  const request = (problem.instance ?? "").replace("urn:doseline:request:", "");
  throw new Refused(response.status, problem.detail ?? `The server answered ${response.status}`, request);
}

/** One row. */
export async function one<T>(source: Source, signal?: AbortSignal): Promise<T> {
  return (await (await answered(source, { signal, headers: { accept: "application/json" } })).json()) as T;
}

/** The first page of rows, and whether there are more. */
export async function list<T>(source: Source, signal?: AbortSignal): Promise<{ rows: T[]; more: boolean }> {
  const page = await one<{ data: T[]; next: string | null }>(source, signal);
  return { rows: page.data, more: page.next !== null };
}

/** All rows of all pages, at most `most`. */
export async function all<T>(source: Source, most = 10_000, signal?: AbortSignal): Promise<{ rows: T[]; more: boolean }> {
  const rows: T[] = [];
  let cursor: string | undefined;
  do {
    const query: Source["query"] = { limit: 1000, ...source.query, cursor };
    const page: { data: T[]; next: string | null } = await one({ path: source.path, query }, signal);
    rows.push(...page.data);
    cursor = page.next ?? undefined;
  } while (cursor && rows.length < most);
  return { rows, more: cursor !== undefined };
}

/** The statement that reads the rows. */
export async function sql(source: Source): Promise<string> {
  return (await answered(source, { headers: { accept: "application/sql" } })).text();
}

/** All rows as CSV: the pages one after the other, with one head. */
export async function csv(source: Source, most = 100_000): Promise<string> {
  const pages: string[] = [];
  let cursor: string | undefined;
  let rows = 0;
  do {
    const query: Source["query"] = { limit: 1000, ...source.query, cursor };
    const response = await answered({ path: source.path, query }, { headers: { accept: "text/csv" } });
    const page = await response.text();
    pages.push(cursor ? page.slice(page.indexOf("\n") + 1) : page);
    rows += Number(query.limit);
    cursor = /cursor=([^&>]+)[^>]*>;\s*rel="?next/.exec(response.headers.get("link") ?? "")?.[1];
    if (cursor) cursor = decodeURIComponent(cursor);
  } while (cursor && rows < most);
  return pages.join("");
}

/** Gives a command: acknowledges, records, replays. The answer comes when ClickHouse has it. */
export async function give<T>(path: string, body: Record<string, unknown>): Promise<T> {
  const headers = { "content-type": "application/json", "x-doseline-request": "1", "idempotency-key": crypto.randomUUID() };
  return (await (await answered({ path }, { method: "POST", headers, body: JSON.stringify(body) })).json()) as T;
}
