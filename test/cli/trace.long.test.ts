// Owns: proof that the page of burrow trace report works in a real browser, with 50,000 events, and that names of files and packages do
// nothing there. Needs chromium; skipped with the reason otherwise. Plane: control.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { type Test, test } from "tap";
import { tracePage } from "../../lib/cli/trace-page.ts";
import { temporary } from "../suite/served.ts";
import { madeTrace } from "../suite/traces.ts";

const EVENTS = 50_000;
/** A machine that does much else. */
const BROWSER_MS = 120_000;
const BROWSERS = ["chromium", "chromium-browser", "google-chrome"];

const browser = BROWSERS.find((name) => spawnSync(name, ["--version"]).status === 0);
const skip = browser === undefined ? `none of ${BROWSERS.join(", ")} is installed` : false;

/** What the browser prints of a page. */
function browse(t: Test, folder: string, url: string, ...words: readonly string[]): string {
  const own = [
    "--headless",
    "--disable-gpu",
    "--hide-scrollbars",
    `--user-data-dir=${folder}/profile`,
  ];
  // It refuses to be root's with its sandbox.
  if (process.getuid?.() === 0) own.push("--no-sandbox");
  const options = { encoding: "utf8", timeout: BROWSER_MS, maxBuffer: 1 << 28 } as const;
  const { status, stdout, stderr } = spawnSync(browser!, [...own, ...words, url], options);
  t.equal(status, 0, stderr);
  return `${stdout}\n${stderr}`;
}

test("a page of 50,000 events is drawn, filtered, and runs nothing but its own", {
  skip,
  timeout: 300_000,
}, (t) => {
  const folder = temporary(t);
  const paths = Array.from({ length: 2_000 }, (_, i) => `/opt/env/lib/module${i}.py`);
  paths[7] = "/opt/env/</script><script>document.title='owned'</script>";
  paths[8] = "/opt/env/<img src=x onerror=\"document.title='owned'\">";
  const made = madeTrace(EVENTS, paths);
  fs.writeFileSync(`${folder}/page.html`, tracePage(made));
  const url = `file://${folder}/page.html`;
  const all = browse(t, folder, url, "--dump-dom", "--enable-logging=stderr");
  const count = EVENTS + made.misses.length + made.fetches.length + made.prefetches.length;
  t.match(all, new RegExp(`data-drawn="${count}"`), "all of it is drawn");
  t.match(all, /the first 300 of 2000 of 2000 files/);
  t.ok((all.match(/<tr>/g) ?? []).length < 400, "and the tables are short");
  t.match(all, /<title>Trace of python3/, "no name became a script");
  t.match(all, /<td>\/opt\/env\/&lt;img/, "but text");
  t.notMatch(all, /Uncaught|Refused to|violates the following/);
  const some = browse(t, folder, `${url}#module199`, "--dump-dom");
  t.match(some, /11 of 2000 files/, "a link may say what to look at");
  const shot = `${folder}/shot.png`;
  browse(t, folder, url, "--window-size=1400,1200", `--screenshot=${shot}`);
  const png = fs.readFileSync(shot);
  t.equal(png.subarray(1, 4).toString(), "PNG");
  t.equal(png.readUInt32BE(16), 1400, "its width");
  t.end();
});
