// Owns: a strict reader of Prometheus' text format 0.0.4, for tests: what a lenient collector would take and a strict one would not is
// refused, as is what breaks the conventions for names. prometheus.io/docs/instrumenting/exposition_formats. Plane: control.

export interface Series {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const NAME = /^[a-z][a-z0-9_]*$/;
const LINE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,(?!$)|$)/;
const VALUE = /^-?\d+(\.\d+)?(e[+-]?\d+)?$/;
/** Units are base units: prometheus.io/docs/practices/naming. */
const BAD_UNIT = /_(ms|millis|milliseconds|minutes|kb|mb|kib|mib|ns|us|count|percent)(_|$)/;

/** All series of an exposition. Throws with the number of the line that is wrong. */
export function readExposition(text: string): Series[] {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const series: Series[] = [];
  const seen = new Set<string>();
  const families = new Set<string>();
  let family = { name: "", type: "", samples: 0 };
  const lines = text.slice(0, -1).split("\n");
  for (const [i, line] of lines.entries()) {
    const fail = (why: string) => new Error(`line ${i + 1}: ${why}: ${line}`);
    const help = /^# HELP (\S+) (\S.*)$/.exec(line);
    const type = /^# TYPE (\S+) (counter|gauge)$/.exec(line);
    if (help !== null) {
      const name = help[1]!;
      if (family.name !== "" && family.samples === 0) throw fail(`${family.name} has no samples`);
      if (!NAME.test(name) || BAD_UNIT.test(name)) throw fail("a bad name");
      if (families.has(name)) throw fail("a family that was ended before");
      families.add(name);
      family = { name, type: "", samples: 0 };
    } else if (type !== null) {
      if (type[1] !== family.name || family.type !== "") throw fail("TYPE is not behind its HELP");
      family.type = type[2]!;
      if ((family.type === "counter") !== family.name.endsWith("_total"))
        throw fail("a counter, and nothing else, ends in _total");
    } else {
      const one = sampleOf(line, fail);
      if (one.name !== family.name || family.type === "") throw fail("a sample outside its family");
      if (family.type === "counter" && one.value < 0) throw fail("a counter below 0");
      const key = `${one.name} ${JSON.stringify(Object.entries(one.labels).sort())}`;
      if (seen.has(key)) throw fail("a series twice");
      seen.add(key);
      family.samples++;
      series.push(one);
    }
  }
  if (family.samples === 0) throw new Error("the last family has no samples");
  return series;
}

function sampleOf(line: string, fail: (why: string) => Error): Series {
  const match = LINE.exec(line);
  if (match === null) throw fail("no sample");
  const [, name = "", inner, value = ""] = match;
  if (!VALUE.test(value)) throw fail("no number");
  const labels: Record<string, string> = {};
  for (let rest = inner ?? ""; rest !== ""; ) {
    const label = LABEL.exec(rest);
    if (label === null) throw fail("a bad label");
    const [all, key = "", text = ""] = label;
    if (key in labels || key.startsWith("__")) throw fail("a label twice, or a reserved one");
    labels[key] = text.replace(/\\(.)/g, (_, c: string) => (c === "n" ? "\n" : c));
    rest = rest.slice(all.length);
  }
  if (inner === "") throw fail("no labels in braces");
  return { name, labels, value: Number(value) };
}
