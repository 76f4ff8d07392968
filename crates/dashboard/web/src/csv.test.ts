import { expect, it } from "vitest";
import { toCsv } from "./csv";

it("quotes what would break a row", () => {
  expect(toCsv(["a", "b"], [["x", 1], ['say "no", twice', null], ["two\nlines", true]])).toBe('a,b\r\nx,1\r\n"say ""no"", twice",\r\n"two\nlines",true\r\n');
});
