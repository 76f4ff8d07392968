import { readFileSync } from "node:fs";
import openapi, { astToString } from "openapi-typescript";
import { expect, test } from "vitest";

test("the types are those of the description; `npm run types` writes them", async () => {
  const described = astToString(await openapi(readFileSync("openapi.json", "utf8")));
  const written = readFileSync("src/api/schema.ts", "utf8");
  // The program puts a comment before what the library makes.
  expect(written.slice(written.indexOf("export interface"))).toBe(described.slice(described.indexOf("export interface")));
});
