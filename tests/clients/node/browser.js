'use strict';
// Controls Chromium: `browser.js URL`. Each window has separate cookies.
//
// Each line of JSON on standard input is an action of a user: id, window, and one of
//   type      texts for the fields, by their names; the form is then sent
//   press     the text of a button
//   reload    loads the page again
//   wait      a text that the page must show within some seconds
//   labels    the answer has the texts of the visible fields and buttons as well
//   picture   a file that a picture of the whole page is written to (PNG, two pixels for each point)
// The first action of a window may name the language of its browser, `language`, and its width in points, `width`.
// The answer is a line of JSON: the id, the page's text for the user, and its visible part.

const readline = require('readline');
const { chromium } = require('playwright-core');

const PATIENCE = 30_000;

async function open(browser, url, { language = 'en-US', width }) {
  const size = width ? { viewport: { width, height: 1 }, deviceScaleFactor: 2 } : {};
  const page = await (await browser.newContext({ locale: language, ...size })).newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.goto(url);
  return page;
}

// Performs an action, and returns the result.
async function act(page, { type, press, reload, wait, labels, picture }) {
  if (reload) await page.reload();
  if (press) await page.getByRole('button', { name: press }).click();
  for (const [name, text] of Object.entries(type ?? {})) await page.locator(`[name=${name}]`).fill(text);
  if (type) await page.locator('[name=password]').press('Enter');
  await page.locator('body:not([aria-busy=true])').waitFor();
  if (wait) await page.getByText(wait).waitFor();
  if (picture) await page.screenshot({ path: picture, fullPage: true });
  const seen = (id) => page.locator(`#${id}`).isVisible();
  const view = (await seen('home')) ? 'home' : (await seen('change')) ? 'change' : 'login';
  const named = labels ? { labels: await page.locator('[data-text]:visible').allInnerTexts() } : {};
  return { view, text: await page.locator('#text').textContent(), ...named };
}

async function main() {
  // Chromium has no sandbox as an ordinary user in a container, and there is no network to reach.
  const args = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update'];
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args });
  const windows = new Map();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const step = JSON.parse(line);
    let seen;
    try {
      if (!windows.has(step.window)) windows.set(step.window, await open(browser, process.argv[2], step));
      seen = await act(windows.get(step.window), step);
    } catch (error) {
      seen = { error: String(error.message) };
    }
    console.log(JSON.stringify({ id: step.id, ...seen }));
  }
  await browser.close();
}

main();
