import { expect, test } from "vitest";
import { wall, wallLabel } from "./wall";

test("a moment stands on the wall clock of the site", () => {
  expect(new Date(wall("2026-11-24T13:10:05.250Z", "Europe/Berlin")).toISOString()).toBe("2026-11-24T14:10:05.250Z");
  expect(new Date(wall("2026-07-24T23:10:00Z", "Europe/Berlin")).toISOString()).toBe("2026-07-25T01:10:00.000Z");
  expect(wall("2026-11-24T13:10:05Z", "UTC")).toBe(Date.parse("2026-11-24T13:10:05Z"));
});

test("midnight is labelled with its day, other times with the hour", () => {
  expect(wallLabel(Date.parse("2026-11-24T00:00:00Z"))).toMatch(/24/);
  expect(wallLabel(Date.parse("2026-11-24T14:30:00Z"))).toMatch(/^14.30$/);
  expect(wallLabel(Date.parse("2026-11-24T14:30:20Z"))).toMatch(/14.30.20/);
});
