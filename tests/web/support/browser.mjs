// Chromium.

import { chromium } from 'playwright-core';
import { atEnd } from './cleanup.mjs';
import { program } from './process.mjs';

/** Starts a browser that speaks to nobody of its own accord. */
export async function browser(t) {
  const browser = await chromium.launch({
    executablePath: program('CHROMIUM_BIN'),
    headless: true,
    args: [
      ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
      ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
    ],
  });
  atEnd(t, () => browser.close());
  return browser;
}

/** A page that keeps what went wrong in it: errors that nobody caught, and what the console calls an error. */
export async function pageOf(browser, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.wrong = [];
  page.on('pageerror', (error) => page.wrong.push(`${error}`));
  page.on('console', (message) => {
    if (message.type() === 'error') page.wrong.push(message.text());
  });
  return page;
}
