// Count: how many test points passed, failed and were skipped, from tap's own output: `node count.js FILE [AGAIN]` prints the
// three numbers, and on stderr what failed and why others were skipped; `node count.js --failed FILE` which test files failed.
// A point that sums up a subtest isn't counted, unless it failed and nothing in it did (a crash, a timeout). AGAIN is of test
// files of FILE that ran once more by themselves: where all of one passed it counts in place of the first try, whose failures
// are named "flaky".

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** One "ok" or "not ok" that stands for itself. */
interface Point {
  readonly outcome: "passed" | "failed" | "skipped";
  /** "file > test > point". */
  readonly name: string;
  /** Why it was skipped. */
  readonly reason: string;
  /** Lines of the YAML after it. */
  readonly diagnostics: string[];
}

const POINT = /^((?: {4})*)(not )?ok\b(?: \d+)?(?: - )?(.*)$/;
const PLAN = /^((?: {4})+)1\.\.\d+/;
const SUBTEST = /^((?: {4})*)# Subtest: (.*)$/;
const DIRECTIVE = /# (?:SKIP|TODO)\b ?(.*)$/i;
const DIAGNOSTIC_LINES_MAX = 20;

const depthOf = (indent: string) => indent.length / 4;

/** The points of TAP 14 text in their order. Diagnostics may hold anything, also what looks like a point. */
export function pointsOf(tap: string): Point[] {
  const points: Point[] = [];
  /** At each depth: the subtest's name; whether it had points or a plan; how many failed in it. */
  const names: string[] = [];
  const hasInner: boolean[] = [];
  const innerFailed: number[] = [];
  let yamlEnd: string | undefined;
  for (const line of tap.split("\n")) {
    if (yamlEnd !== undefined) {
      if (line === yamlEnd) yamlEnd = undefined;
      else points.at(-1)?.diagnostics.push(line);
      continue;
    }
    const yaml = /^( *)---$/.exec(line);
    if (yaml !== null) yamlEnd = `${yaml[1]}...`;
    const subtest = SUBTEST.exec(line);
    if (subtest !== null) names[depthOf(subtest[1]!)] = subtest[2]!;
    const plan = PLAN.exec(line);
    if (plan !== null) hasInner[depthOf(plan[1]!) - 1] = true;
    const found = POINT.exec(line);
    if (found === null) continue;
    const depth = depthOf(found[1]!);
    const directive = DIRECTIVE.exec(found[3]!);
    const outcome = directive !== null ? "skipped" : found[2] !== undefined ? "failed" : "passed";
    const isSum = hasInner[depth] === true && (outcome === "passed" || innerFailed[depth]! > 0);
    if (!isSum) {
      const name = [...names.slice(0, depth), found[3]].join(" > ");
      points.push({ outcome, name, reason: directive?.[1] ?? "", diagnostics: [] });
    }
    const failed = (innerFailed[depth] ?? 0) + (!isSum && outcome === "failed" ? 1 : 0);
    hasInner[depth] = false;
    innerFailed[depth] = 0;
    if (depth > 0) {
      hasInner[depth - 1] = true;
      innerFailed[depth - 1] = (innerFailed[depth - 1] ?? 0) + failed;
    }
  }
  return points;
}

const fileOf = ({ name }: Point) => name.split(" > ")[0]!.replace(/ # .*$/, "");

/** The test files that points failed in. */
export function failedFiles(points: Point[]): string[] {
  const failed = points.filter(({ outcome }) => outcome === "failed");
  return [...new Set(failed.map(fileOf))];
}

/** The points, and with what a second try gave in place of files that failed and then passed whole; and what failed at first there. */
export function withSecondTry(
  points: Point[],
  again: Point[],
): { points: Point[]; flaky: Point[] } {
  const still = new Set(failedFiles(again));
  const tried = new Set(again.map(fileOf));
  const mended = new Set(failedFiles(points).filter((file) => tried.has(file) && !still.has(file)));
  const isMended = (point: Point) => mended.has(fileOf(point));
  return {
    points: [...points.filter((point) => !isMended(point)), ...again.filter(isMended)],
    flaky: points.filter((point) => isMended(point) && point.outcome === "failed"),
  };
}

const read = (path: string) => pointsOf(readFileSync(path, "utf8"));

function main(path: string, second: string | undefined): void {
  const again = second === undefined ? [] : read(second);
  const { points, flaky } = withSecondTry(read(path), again);
  const those = (outcome: Point["outcome"]) => points.filter((point) => point.outcome === outcome);
  for (const { name, diagnostics } of [...flaky, ...those("failed")]) {
    const shown = diagnostics.slice(0, DIAGNOSTIC_LINES_MAX).filter((line) => line.trim() !== "");
    process.stderr.write(`${[name, ...shown].join("\n")}\n\n`);
  }
  for (const { name } of those("failed")) process.stderr.write(`not ok: ${name}\n`);
  for (const { name } of flaky) process.stderr.write(`flaky: ${name}\n`);
  const skips = those("skipped").map(({ reason, name }) => `${reason} (${name.split(" > ")[0]})`);
  for (const skip of new Set(skips)) process.stderr.write(`skipped: ${skip}\n`);
  const [passed, failed] = [those("passed").length, those("failed").length];
  process.stdout.write(`${passed} ${failed} ${skips.length}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [first, second] = process.argv.slice(2);
  if (first === "--failed") for (const file of failedFiles(read(second!))) console.log(file);
  else main(first!, second);
}
