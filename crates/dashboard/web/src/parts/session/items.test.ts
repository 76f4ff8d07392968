import { expect, test } from "vitest";
import type { Row } from "../../api/client";
import { levelOf } from "./items";

const mount = (more: Partial<Row<"Consumable">>) => ({ reusable: false, pack_intact: true, ...more }) as Row<"Consumable">;
const cycle = (more: Partial<Row<"Cycle">> = {}) => ({ verdict: "PASSED", decision: "RELEASED", indicators_positive: 0, ...more }) as Row<"Cycle">;

test("a single-use item from an intact pack is fine, from another pack it stops", () => {
  expect(levelOf({ mount: mount({}), cycle: undefined })).toBe("fine");
  expect(levelOf({ mount: mount({ pack_intact: false }), cycle: undefined })).toBe("stop");
});

test("a reusable item needs a released cycle that passed", () => {
  const reusable = mount({ reusable: true });
  expect(levelOf({ mount: reusable, cycle: cycle() })).toBe("fine");
  expect(levelOf({ mount: reusable, cycle: undefined })).toBe("stop");
  expect(levelOf({ mount: reusable, cycle: cycle({ verdict: "FAILED" }) })).toBe("stop");
  expect(levelOf({ mount: reusable, cycle: cycle({ indicators_positive: 1 }) })).toBe("stop");
  expect(levelOf({ mount: reusable, cycle: cycle({ decision: "" }) })).toBe("due");
  expect(levelOf({ mount: reusable, cycle: cycle({ verdict: "PENDING" }) })).toBe("due");
});
