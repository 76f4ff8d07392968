/** Who looks, and at what: the tenants and sites that there are, and those that are chosen in the address. */
import { all, one, type Row } from "./api/client";
import { zoneOf } from "./format";
import { address } from "./router.svelte";

class Scope {
  asker = $state.raw<Row<"Asker"> | undefined>(undefined);
  sites = $state.raw<Row<"Site">[]>([]);

  // Derived, so that a change of another parameter of the address asks nothing again.
  private tenant = $derived(address.get("tenant"));
  private site = $derived(address.get("site"));

  async load(): Promise<Row<"Asker">> {
    this.asker = await one<Row<"Asker">>({ path: "/me" });
    if (!this.asker.manufacturer) this.sites = (await all<Row<"Site">>({ path: "/sites" })).rows;
    return this.asker;
  }

  /** The chosen tenant and site as parameters of a request; empty = all. */
  get query(): { tenant: string; site: string } {
    return { tenant: this.tenant, site: this.site };
  }

  get tenants(): string[] {
    return [...new Set(this.sites.map(site => site.tenant))];
  }

  /** The tenant that is meant where none is named; empty = there are several. */
  get owner(): string {
    return this.query.tenant || (this.tenants.length === 1 ? (this.tenants[0] ?? "") : "");
  }

  /** The time zone of a site; UTC where none is registered. */
  zone(tenant: string, site: string): string {
    return zoneOf(this.sites.find(known => known.tenant === tenant && known.site === site)?.time_zone);
  }

  /** The zone for times of several sites: that of the chosen site, else UTC. */
  get shown(): string {
    return this.zone(this.query.tenant, this.query.site);
  }

  /** Whether the asker may change things; the server decides, this hides what it would refuse. */
  get writes(): boolean {
    return this.asker?.role === "admin" || this.asker?.role === "operator";
  }
}

export const scope = new Scope();
