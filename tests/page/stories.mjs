// The demo's stories as people meet them: each is found in three clicks from the start page, each
// figure is what ClickHouse says, and what changes is shown without a reload.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { addresses } from "./addresses.mjs";
import { count, open, settled, sql, start, until, value, words } from "./browser.mjs";

let browser, all;
before(async () => {
  browser = await start();
  all = await addresses();
});
after(() => browser.close());

/** Follows links from the start page, at most three, by a piece of their address. */
async function follow(page, ...pieces) {
  assert.ok(pieces.length <= 3, "more than three clicks");
  for (const piece of pieces) {
    const link = page.locator(`main a[href*="${piece}"]`).first();
    await until(`a link with ${piece} on ${page.url()}`, async () => assert.ok((await link.count()) > 0));
    await link.click();
    await settled(page);
  }
}

test("the pen whose dose drifts must not be used, and its page says why", async () => {
  const [pen] = await sql("SELECT tenant, device FROM open_alerts WHERE kind = 'accuracy-verdict' LIMIT 1");
  const page = await open(browser, "/");
  const said = await words(page);
  assert.match(said, /stop using/i);
  assert.ok(said.includes(pen.device), said);
  await follow(page, `/devices/${pen.tenant}/${pen.device}`);
  const [verdict] = await sql(
    `SELECT n, mean_error, target FROM accuracy_verdicts FINAL WHERE device = '${pen.device}' AND channel = 'DOSE' AND state = 'FAIL' ORDER BY computed_at DESC LIMIT 1`,
  );
  const text = await words(page);
  assert.match(text, /do not use/i);
  assert.ok(text.includes(count(verdict.n)) || (await value(`SELECT max(n) FROM accuracy_verdicts FINAL WHERE device = '${pen.device}'`)) !== verdict.n, `n = ${verdict.n}: ${text}`);
  assert.deepEqual(page.faults, []);
});

test("the needle of two sessions leads to both", async () => {
  const [breach] = await sql("SELECT tenant, item_id, sessions FROM sterility_breaches WHERE rule = 2 LIMIT 1");
  const page = await open(browser, "/");
  await follow(page, "sterility-2");
  for (const session of breach.sessions) await until("a session", async () => assert.ok(await page.locator(`main a[href*="${session}"]`).count()));
  await follow(page, `/sessions/${breach.tenant}/${breach.sessions[0]}`);
  const injections = await value(`SELECT count() FROM injections WHERE session_id = '${breach.sessions[0]}'`);
  assert.ok((await words(page)).includes(count(injections)), `${injections} injections`);
});

test("the gap that stays open is on the start page and leads to its device", async () => {
  const [gap] = await sql("SELECT tenant, device, toUInt32(last_missing - first_missing + 1) AS missing FROM delivery_gaps WHERE state = 'OPEN' LIMIT 1");
  const page = await open(browser, "/");
  assert.ok((await words(page)).includes(gap.device), "the device with the gap");
  await follow(page, `/devices/${gap.tenant}/${gap.device}`);
  assert.match(await words(page), new RegExp(`${gap.missing}`));
});

test("the handpiece after the failed cycle leads to the cycle and its curve", async () => {
  const [cycle] = await sql("SELECT tenant, cycle_uid, reason FROM cycle_verdicts WHERE verdict = 'FAILED' LIMIT 1");
  const page = await open(browser, "/");
  await follow(page, "sterility-5", `/cycles/${cycle.tenant}/${cycle.cycle_uid}`);
  const text = await words(page);
  assert.match(text, /failed/i);
  assert.ok(text.includes("chemical indicator"), text);
  assert.ok((await page.locator("main figure svg").count()) > 0, "the curve");
});

test("figures of each list are those of ClickHouse", async () => {
  const lists = [
    ["/fleet", "SELECT count() FROM fleet"],
    ["/alerts?state=OPEN", "SELECT count() FROM open_alerts"],
    ["/sterility?days=all", "SELECT count() FROM cycle_verdicts"],
  ];
  for (const [address, statement] of lists) {
    const page = await open(browser, address);
    const rows = () => page.locator("main table").evaluateAll(tables => tables.map(table => Number(table.getAttribute("aria-rowcount")) - 1));
    await until(address, async () => {
      const [expected, found] = [await value(statement), await rows()];
      assert.ok(found.includes(expected), `${expected} rows, but tables with ${found}`);
    });
    await page.context().close();
  }
});

test("a scanned label leads to its item", async () => {
  const item = (await sql("SELECT tenant, item_id, item_key FROM item_history WHERE item_id LIKE 'hp-inj-0005%' LIMIT 1"))[0];
  const page = await open(browser, "/fleet");
  await page.keyboard.press("/");
  // A scanner types fast and ends with Enter.
  await page.keyboard.type(item.item_id);
  await page.keyboard.press("Enter");
  await until("the item", async () => assert.ok(decodeURIComponent(page.url()).includes(item.item_key) || (await page.locator(`main a[href*="${encodeURIComponent(item.item_key)}"]`).count()) > 0));
});

test("what a device sends now is on the page within 3 s", async () => {
  const page = await open(browser, "/pipeline");
  const stored = () => value("SELECT count() FROM injections");
  const before = await stored();
  await until("more injections", async () => assert.ok((await stored()) > before), 60_000);
  assert.match(await page.locator("header .age").innerText(), /live/);
  // The page asks again by itself when the server says that something has changed.
  const asked = page.waitForResponse(response => response.url().includes("/api/v1/pipeline/"), { timeout: 20_000 });
  assert.ok((await asked).ok());
});

test("an alert is acknowledged with a note, and the page shows it without a reload", async () => {
  const [alert] = await sql("SELECT tenant, alert_key FROM open_alerts WHERE kind = 'drift' LIMIT 1");
  const address = `/alerts/${encodeURIComponent(alert.tenant)}/${encodeURIComponent(alert.alert_key)}`;
  const page = await open(browser, address);
  const other = await open(browser, address);
  await page.keyboard.press("a");
  const dialog = page.locator("dialog[open]");
  await dialog.waitFor();
  assert.ok((await dialog.innerText()).length > 20, "it names what is acknowledged");
  for (const field of await dialog.locator("input").all()) await field.fill("Dr. Weber");
  await dialog.locator("textarea").fill("Taken out of use.");
  await dialog.locator("button.primary").click();
  const acknowledged = `SELECT count() FROM alert_history WHERE alert_key = '${alert.alert_key}' AND event = 'ACKNOWLEDGED' AND note = 'Taken out of use.'`;
  await until("the row in ClickHouse", async () => assert.equal(await value(acknowledged), 1));
  for (const view of [page, other]) await until("the page", async () => assert.match(await words(view), /Taken out of use/), 10_000);
});

test("tables are downloaded as CSV, and show their SQL", async () => {
  const page = await open(browser, "/fleet");
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("main button", { hasText: "CSV" }).first().click()]);
  const lines = (await readFile(await download.path(), "utf8")).trim().split("\r\n");
  assert.equal(lines.length, (await value("SELECT count() FROM fleet")) + 1);
  await page.locator("main button", { hasText: "SQL" }).first().click();
  await until("the statement", async () => assert.match(await page.locator("dialog[open] pre").innerText(), /SELECT[\s\S]+FROM/));
});

test("printed pages have no controls, and say when they were printed and what is missing", async () => {
  for (const name of ["session", "audit", "recall"]) {
    const page = await open(browser, all[name]);
    await page.emulateMedia({ media: "print" });
    assert.equal(await page.locator("#page > header").isVisible(), false, name);
    // How much was received is asked for apart from the rest.
    await until(`${name}: what is missing`, async () => assert.match(await page.locator("main").innerText(), /received|complete/i));
    assert.match(await page.locator("main").innerText(), /printed|made/i, name);
    assert.ok((await page.pdf({ format: "A4" })).length > 5_000, name);
    await page.context().close();
  }
});

test("keys: help, jump, rows", async () => {
  const page = await open(browser, "/");
  await page.keyboard.press("?");
  await page.locator("dialog[open]").waitFor();
  await page.keyboard.press("Escape");
  // As fast as a person types; keys that come faster are those of a scanner.
  await page.waitForTimeout(200);
  await page.keyboard.type("gf", { delay: 200 });
  await until("the fleet", async () => assert.equal(new URL(page.url()).pathname, "/fleet"));
  await settled(page);
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await until("a device", async () => assert.match(new URL(page.url()).pathname, /^\/devices\//));
  await page.goBack();
  await until("back", async () => assert.equal(new URL(page.url()).pathname, "/fleet"));
});

test("a server that is gone: the page says so and does not pretend", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.clock.install();
  await page.goto(`${process.env.PAGE_URL.replace(/\/$/, "")}/fleet`);
  await settled(page);
  await context.setOffline(true);
  await page.clock.fastForward(12_000);
  await until("amber", async () => assert.match(await page.locator("header .age").getAttribute("class"), /stale/));
  await page.clock.fastForward(60_000);
  await until("grey", async () => assert.match(await page.locator("main").getAttribute("class"), /grey/));
  assert.match(await page.locator("p.lost").innerText(), /connection lost/i);
});
