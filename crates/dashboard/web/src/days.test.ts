import { expect, it } from "vitest";
import { dayBegin, dayOf } from "./days";

it("knows when a day of a site begins, also when the clocks change", () => {
  expect(dayBegin("2026-12-01", "UTC")).toBe("2026-12-01T00:00:00Z");
  expect(dayBegin("2026-12-01", "Europe/Berlin")).toBe("2026-11-30T23:00:00Z");
  expect(dayBegin("2026-03-29", "Europe/Berlin")).toBe("2026-03-28T23:00:00Z");
  expect(dayBegin("2026-03-29", "Europe/Berlin", 1)).toBe("2026-03-29T22:00:00Z");
  expect(dayBegin("2026-12-31", "America/New_York", 1)).toBe("2027-01-01T05:00:00Z");
  expect(dayBegin("tomorrow", "UTC")).toBe("");
  expect(dayOf(Date.parse("2026-11-30T23:30:00Z"), "Europe/Berlin")).toBe("2026-12-01");
});
