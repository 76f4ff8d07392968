/** What the server says has changed, and how old the figures on the page are. */
import { Refused } from "./api/client";

/** What an answer can depend on, as `/api/v1/changes` names it. */
export type Topic = "overview" | "alerts" | "fleet" | "sessions" | "cycles" | "pipeline" | "quarantine";

/** Age at which the head of the page turns amber, ms. */
const STALE = 10_000;
/** Age at which the page turns grey, ms. */
const LOST = 60_000;

class Live {
  /** The present, by the clock of this browser; moves once a second. */
  now = $state(Date.now());
  /** When the server spoke last. */
  heard = $state(Date.now());
  connected = $state(false);
  private listeners = new Set<(topics: Set<string>) => void>();

  constructor() {
    setInterval(() => (this.now = Date.now()), 1000);
    this.connect();
  }

  private connect(): void {
    const stream = new EventSource("/api/v1/changes");
    const hear = () => {
      this.heard = this.now = Date.now();
      this.connected = true;
    };
    stream.addEventListener("open", hear);
    stream.addEventListener("beat", hear);
    stream.addEventListener("changed", event => {
      hear();
      const { topics } = JSON.parse((event as MessageEvent<string>).data) as { topics: string[] };
      this.tell(new Set(topics));
    });
    stream.addEventListener("error", () => {
      const lost = this.connected;
      this.connected = false;
      if (stream.readyState === EventSource.CLOSED) setTimeout(() => this.connect(), 5000);
      else if (lost) stream.addEventListener("open", () => this.tell(null), { once: true });
    });
  }

  /** Tells what has changed; null = not known, so all. */
  private tell(topics: Set<string> | null): void {
    for (const listener of this.listeners) listener(topics ?? new Set(["*"]));
  }

  listen(listener: (topics: Set<string>) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  get age(): number {
    return Math.max(0, this.now - this.heard);
  }
  get state(): "live" | "stale" | "lost" {
    return this.age < STALE ? "live" : this.age < LOST ? "stale" : "lost";
  }
}

export const live = new Live();

/** An answer of the server that is asked for again when what it depends on changes. */
export class Resource<T> {
  data = $state.raw<T | undefined>(undefined);
  error = $state.raw<Refused | undefined>(undefined);
  loading = $state(true);
  /** Makes the effect ask again. */
  private turn = $state(0);

  /**
   * Made while a component is set up. `load` reads the state it depends on (address, properties) before its first
   * `await`; a change of that state asks anew, and the old answer goes.
   */
  constructor(load: (signal: AbortSignal) => Promise<T> | undefined, topics: Topic[] = []) {
    let soon: ReturnType<typeof setTimeout> | undefined;
    let asked = -1;
    $effect(() => {
      const repeated = this.turn !== asked;
      asked = this.turn;
      const stop = new AbortController();
      const answer = load(stop.signal);
      if (!answer) return;
      this.loading = true;
      if (!repeated) this.data = undefined;
      answer.then(
        data => {
          this.data = data;
          this.error = undefined;
          this.loading = false;
        },
        (error: unknown) => {
          if (stop.signal.aborted) return;
          this.error = error instanceof Refused ? error : new Refused(0, String(error), "");
          this.loading = false;
        },
      );
      return () => stop.abort();
    });
    $effect(() => {
      const stop = live.listen(changed => {
        if (!changed.has("*") && !topics.some(topic => changed.has(topic))) return;
        clearTimeout(soon);
        soon = setTimeout(() => this.again(), 200);
      });
      return () => (clearTimeout(soon), stop());
    });
  }

  again(): void {
    this.turn += 1;
  }
}
