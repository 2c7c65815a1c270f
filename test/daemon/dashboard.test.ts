// Owns: proof that the Grafana dashboard shows metrics that a daemon has, each as what it is, and that its panels fit. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { exposition, METRIC_NAMES } from "../../lib/daemon/exposition.ts";

const ROOT = path.resolve(import.meta.dirname, "../../..");

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: {
    readonly x: number;
    readonly y: number;
    readonly w: number;
    readonly h: number;
  };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[];
}

const dashboard = JSON.parse(
  fs.readFileSync(path.join(ROOT, "docs/grafana/burrow.json"), "utf8"),
) as {
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { readonly name: string }[] };
};
const targets = dashboard.panels.flatMap(({ targets = [] }) => targets);

/** Labels of each metric as docs/metrics.md has them. */
function documentedLabels(): Map<string, string[]> {
  const doc = fs.readFileSync(path.join(ROOT, "docs/metrics.md"), "utf8");
  const labels = new Map<string, string[]>();
  for (const [, name, list] of doc.matchAll(/`(burrow_\w+)(?:\{([^}]*)\})?`/g))
    labels.set(
      name!,
      (list ?? "").split(",").map((label) => label.split("=")[0]!),
    );
  return labels;
}

test("each metric that the dashboard names is one that a daemon has", async (t) => {
  const named = targets.flatMap(({ expr }) => expr.match(/burrow_\w+/g) ?? []);
  t.ok(named.length >= targets.length, "each target asks for one");
  for (const name of named) t.ok(METRIC_NAMES.includes(name), name);
  const made = exposition({
    fetch: { asks: 3 },
    prefetch: { touches: 4 },
    shared: { sandboxes: 5, placed: 6 },
    direct: { views: 7, most: 32, refused: 8 },
  });
  t.match(made, /^burrow_asks_total 3$/m);
  t.match(made, /^burrow_first_reads_total 4$/m);
  t.match(made, /^burrow_shared_sandboxes 5$/m);
  t.match(made, /^burrow_shared_placed_total 6$/m);
  t.match(made, /^burrow_direct_mounts 7$/m);
  t.match(made, /^burrow_direct_mounts_limit 32$/m);
  t.match(made, /^burrow_direct_refused_total 8$/m);
});

test("counters are shown as rates, gauges as they are, and by labels that they have", async (t) => {
  const labels = documentedLabels();
  for (const { expr, legendFormat } of targets) {
    for (const [name] of expr.matchAll(/burrow_\w+/g)) {
      const isRate = new RegExp(`(rate|increase)\\(${name}\\{`).test(expr);
      t.equal(isRate, name.endsWith("_total"), expr);
    }
    const by = [...expr.matchAll(/ by \((\w+)\)/g)].map(([, label]) => label!);
    const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label!);
    t.ok(
      shown.every((label) => by.includes(label)),
      `${legendFormat}: ${expr}`,
    );
    const [name] = /burrow_\w+/.exec(expr)!;
    const known = ["instance", ...(labels.get(name) ?? [])];
    t.ok(
      by.every((label) => known.includes(label)),
      `${name} has ${known}: ${expr}`,
    );
    t.match(expr, /\{instance=~"\$instance"/);
  }
  const variables = dashboard.templating.list.map(({ name }) => name);
  t.same(variables, ["datasource", "instance"]);
});

test("panels have their own places", async (t) => {
  const { panels } = dashboard;
  t.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  t.equal(new Set(panels.map(({ title }) => title)).size, panels.length);
  const taken = new Set<string>();
  for (const { title, gridPos } of panels) {
    const { x, y, w, h } = gridPos;
    t.ok(x >= 0 && x + w <= 24, title);
    for (let i = x; i < x + w; i++)
      for (let j = y; j < y + h; j++) {
        if (taken.has(`${i} ${j}`)) t.fail(`${title} lies over another`);
        taken.add(`${i} ${j}`);
      }
  }
});
