// Owns: that docs/commands.md is what the commands say of themselves, and leads to pages that there are. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { commandPage } from "../suite/command-page.ts";

const DOCS = path.resolve(import.meta.dirname, "../../../docs");

test("the page of commands is what they say", async (t) => {
  const page = commandPage();
  t.equal(
    fs.readFileSync(path.join(DOCS, "commands.md"), "utf8"),
    page,
    "else: npm run docs:commands",
  );
  const prose = page
    .split("\n")
    .filter((line) => !/^( |- |\||\[|What every|"Those of all")/.test(line));
  t.same(
    prose.filter((line) => line.length > 100),
    [],
    "no line of a help is longer than 100 columns, but those of options and examples",
  );
  const links = [...page.matchAll(/\]\(([^)#]+)(#[^)]*)?\)/g)].map(([, name]) => name!);
  t.ok(links.length > 30);
  t.same(
    links.filter((name) => !fs.existsSync(path.join(DOCS, name))),
    [],
  );
});
