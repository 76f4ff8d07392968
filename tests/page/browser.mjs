// A Chromium that looks at the page, and what the tests ask of it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

// The packages are in the cache folder, not beside this file.
const require = createRequire(join(process.env.NODE_PATH ?? ".", "any.js"));
const { chromium } = require("playwright-core");
const AXE = readFileSync(join(dirname(require.resolve("axe-core")), "axe.min.js"), "utf8");
const CHROMIUM = process.env.DOSELINE_CHROMIUM ?? "/usr/bin/chromium";
const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** Address of the page, without a slash at its end. */
export const PAGE = process.env.PAGE_URL.replace(/\/$/, "");
const CLICKHOUSE = process.env.CLICKHOUSE_URL;

/** Starts the browser. */
export const start = () => chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS });

/** Rows that ClickHouse gives for a statement: what the page is compared with. */
export async function sql(statement) {
  const response = await fetch(`${CLICKHOUSE}/?database=doseline&default_format=JSON&output_format_json_quote_64bit_integers=0`, { method: "POST", body: statement });
  assert.ok(response.ok, `${statement}: ${await response.clone().text()}`);
  return (await response.json()).data;
}

/** A first value of a statement. */
export const value = async statement => Object.values((await sql(statement))[0])[0];

/** Tries until a check holds; a deadline instead of a pause. */
export async function until(what, check, within = 30_000) {
  const end = Date.now() + within;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > end) throw new Error(`${what}: not within ${within} ms: ${error.message}`, { cause: error });
      await new Promise(resolve => setTimeout(resolve, 100));
    }
  }
}

/** A page in a window of its own, which remembers what went wrong in it. */
export async function open(browser, path, { width = 1280, height = 800, dark = false, zone = "UTC" } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light", locale: "en-GB", timezoneId: zone, acceptDownloads: true });
  const page = await context.newPage();
  page.faults = [];
  page.on("console", message => message.type() === "error" && page.faults.push(message.text()));
  page.on("pageerror", error => page.faults.push(error.message));
  await page.goto(PAGE + path);
  await settled(page);
  return page;
}

/** Waits until nothing loads any more. */
export async function settled(page) {
  await page.waitForSelector("main h1, main .failed", { timeout: 20_000 });
  await page.waitForFunction(() => !document.querySelector("[aria-busy=true]"), null, { timeout: 20_000 });
}

/** Violations of WCAG 2.2 AA that axe finds, as lines. */
export async function violations(page) {
  // Not as a script of the page, which its policy would refuse.
  await page.evaluate(AXE);
  const found = await page.evaluate(() => globalThis.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }));
  return found.violations.flatMap(({ id, nodes }) => nodes.map(node => `${id}: ${node.html.slice(0, 200)}: ${node.failureSummary.split("\n")[1]?.trim()}`));
}

/** What the page says, as a person reads it: blanks as one. */
export const words = async page => (await page.locator("main").innerText()).replace(/\s+/g, " ");

/** A count as the page writes it. */
export const count = number => new Intl.NumberFormat("en-GB").format(number);
