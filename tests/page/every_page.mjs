// Every page of the demo, in light and dark, wide and on a phone: it loads without a fault, meets
// WCAG 2.2 AA as far as axe sees, and is not wider than the screen.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { addresses } from "./addresses.mjs";
import { open, start, violations } from "./browser.mjs";

let browser, all;
before(async () => {
  browser = await start();
  all = await addresses();
});
after(() => browser.close());

const looks = { "light and wide": {}, "dark and wide": { dark: true }, "light on a phone": { width: 390, height: 844 }, "dark on a phone": { width: 390, height: 844, dark: true } };
for (const [name, look] of Object.entries(looks)) {
  test(name, async () => {
    const found = [];
    for (const [page, address] of Object.entries(all)) {
      const view = await open(browser, address, look);
      const say = what => found.push(`${page} (${address}): ${what}`);
      view.faults.forEach(say);
      (await violations(view)).forEach(say);
      const headings = await view.locator("main h1").count();
      if (headings !== 1) say(`${headings} first headings`);
      if (await view.locator("main .failed").count()) say(`an error: ${await view.locator("main .failed").first().innerText()}`);
      const over = await view.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      if (over > 0) say(`${over} px wider than the screen`);
      await view.context().close();
    }
    assert.deepEqual(found, []);
  });
}

test("an address without a page says so and leads home", async () => {
  for (const address of ["/nothing", "/devices/only-a-tenant", "/devices/tenant-1/no-such-device", "/sessions/tenant-1/%27%22%3Cscript%3E"]) {
    const view = await open(browser, address);
    assert.match(await view.locator("main").innerText(), /no page|no such thing/i, address);
    // A 404 of the interface is no fault of the page.
    assert.deepEqual(view.faults.filter(fault => !fault.includes("404")), [], address);
    await view.context().close();
  }
});
