/** The address of the page holds its whole state: the path names the page, the query its filters. */

/** Parameters that stay while people go from page to page. */
const KEPT = ["tenant", "site"];

class Address {
  path = $state(location.pathname);
  query = $state(new URLSearchParams(location.search));

  constructor() {
    addEventListener("popstate", () => this.read());
  }

  private read(): void {
    this.path = location.pathname;
    this.query = new URLSearchParams(location.search);
  }

  /** Parts of the path, decoded. */
  get parts(): string[] {
    return this.path.split("/").filter(Boolean).map(decodePart);
  }

  get(name: string): string {
    return this.query.get(name) ?? "";
  }

  /** Follows a link of this page. */
  go(target: string): void {
    history.pushState(null, "", target);
    this.read();
    scrollTo(0, 0);
  }

  /** Sets parameters of the query; an empty value removes one. `replace` makes no entry in the history. */
  set(values: Record<string, string>, replace = true): void {
    const query = new URLSearchParams(this.query);
    for (const [name, value] of Object.entries(values)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    const text = query.toString();
    history[replace ? "replaceState" : "pushState"](null, "", this.path + (text ? `?${text}` : ""));
    this.read();
  }
}

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const address = new Address();

/** Address of a page: `to("devices", tenant, device)`, with the tenant and site that are chosen, and `query`. */
export function to(parts: string[], query: Record<string, string> = {}): string {
  const all = new URLSearchParams();
  for (const name of KEPT) if (address.get(name)) all.set(name, address.get(name));
  for (const [name, value] of Object.entries(query)) if (value) all.set(name, value);
  const text = all.toString();
  return `/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** Lets links to pages change the page instead of loading it anew. */
export function follow(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element).closest("a");
  if (!link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
  if (/^\/(api|login|logout|readyz|livez|assets)(\/|$)/.test(link.pathname) || link.hash) return;
  event.preventDefault();
  address.go(link.pathname + link.search);
}
