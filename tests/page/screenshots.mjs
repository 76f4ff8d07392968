// Pictures of every page for the documents, in the folder that IMAGES names.
import { join } from "node:path";
import { test } from "node:test";
import { addresses } from "./addresses.mjs";
import { open, start } from "./browser.mjs";

test("pictures", async () => {
  const browser = await start();
  for (const [name, address] of Object.entries(await addresses())) {
    for (const [suffix, look] of Object.entries({ "": { height: 860 }, "-phone": { width: 390, height: 844 } })) {
      const page = await open(browser, address, look);
      // Charts are drawn after their code has arrived.
      await page.waitForFunction(() => [...document.querySelectorAll("figure .picture")].every(box => box.querySelector("svg")));
      await page.evaluate(() => new Promise(requestAnimationFrame));
      await page.screenshot({ path: join(process.env.IMAGES, `${name}${suffix}.png`) });
      await page.context().close();
    }
  }
  await browser.close();
});
