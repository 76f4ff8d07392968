import { untrack } from "svelte";

/** Keys that work on the whole page; a page adds its own while it is shown. */
type Binding = { keys: string; does: string; run: () => void };

class Keys {
  bindings = $state.raw<Binding[]>([]);
  private typed = "";
  private at = 0;

  /** Adds bindings while a component lives. Made while it is set up. */
  bind(...bindings: Binding[]): void {
    $effect(() => {
      const others = untrack(() => this.bindings).filter(one => !bindings.some(other => other.keys === one.keys));
      this.bindings = [...others, ...bindings];
      return () => (this.bindings = untrack(() => this.bindings).filter(one => !bindings.includes(one)));
    });
  }

  press(event: KeyboardEvent): void {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, textarea, select, [contenteditable], dialog")) return;
    const before = event.timeStamp - this.at < 1000 ? `${this.typed} ` : "";
    const run = this.bindings.find(({ keys }) => keys === before + event.key) ?? this.bindings.find(({ keys }) => keys === event.key);
    this.typed = event.key;
    this.at = event.timeStamp;
    if (!run) return;
    event.preventDefault();
    this.typed = "";
    run.run();
  }
}

export const keys = new Keys();
