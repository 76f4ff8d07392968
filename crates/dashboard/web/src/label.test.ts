import { expect, it } from "vitest";
import { FNC1, labelOf, Scan } from "./label";

it("tells labels from words", () => {
  for (const label of ["]d20104012345678901", "(01)04012345678901(21)S1", `010401234567890110L1${FNC1}21S1`, "0104012345678901172801012100S1", ` ${FNC1}0104012345678901 `, "]C1whatever"]) {
    expect(labelOf(label)).toBe(label.trim() === "" ? label : label.trim());
  }
  for (const words of ["inj-0001", "77C", "0104", "", "cyc-ster-0004-1-51", "(lot)"]) expect(labelOf(words)).toBeUndefined();
});

const type = (scan: Scan, text: string, step: number, from = 0) => [...text, "Enter"].map((key, at) => scan.take({ key, ctrlKey: false, timeStamp: from + at * step })).at(-1)?.scanned;

it("takes fast characters that end with Enter for a scan", () => {
  expect(type(new Scan(), "]d20104012345678901", 8)).toBe("]d20104012345678901");
  expect(type(new Scan(), "]d20104012345678901", 120)).toBeUndefined();
  expect(type(new Scan(), "gf", 8)).toBeUndefined();
  const scan = new Scan();
  expect(type(scan, "a slow word", 200)).toBeUndefined();
  expect(type(scan, "0104012345678901", 5, 9000)).toBe("0104012345678901");
});

it("keeps FNC1, and passes over the keys that only shift", () => {
  const scan = new Scan();
  const keys = [..."010401234567890110L1"].map(key => ({ key, ctrlKey: false }));
  const all = [...keys, { key: "Control", ctrlKey: true }, { key: "]", ctrlKey: true }, ...[..."21S1"].map(key => ({ key, ctrlKey: false })), { key: "Enter", ctrlKey: false }];
  expect(all.map((key, at) => scan.take({ ...key, timeStamp: at * 5 })).at(-1)?.scanned).toBe(`010401234567890110L1${FNC1}21S1`);
});
