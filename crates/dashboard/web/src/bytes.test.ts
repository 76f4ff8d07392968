import { expect, it } from "vitest";
import { asText, fromBase64, hexLines } from "./bytes";

it("shows bytes as hex and text", () => {
  const bytes = fromBase64(btoa("0123456789abcdef\x00\xffz"));
  expect(hexLines(bytes)).toEqual([
    "000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef",
    "000010  00 ff 7a                                         ..z",
  ]);
  expect(asText(bytes)).toBe("0123456789abcdef..z");
  expect(asText(new TextEncoder().encode('{"µl": 1}\n\u0007'))).toBe('{"µl": 1}\n.');
  expect(hexLines(new Uint8Array())).toEqual([]);
});
