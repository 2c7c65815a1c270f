// Plot: the whole time of a cold start against the latency of its store, as an SVG, from the JSON lines of the cold-start bench:
// `node dist/bench/plot.js LINES >docs/benchmarks/cold-start.svg` (npm run bench:plot does it for those that are committed).

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

interface Point {
  readonly mode: string;
  readonly delayMs: number;
  readonly runMedianSeconds: number;
}

const WIDTH = 720;
const HEIGHT = 400;
const LEFT = 56;
const RIGHT = 150;
const TOP = 44;
const BOTTOM = 52;
/** Told apart by who sees no red or green, too (Okabe and Ito); and by their dashes. */
const STROKES = [
  ["#000000", ""],
  ["#0072b2", ""],
  ["#d55e00", ""],
  ["#009e73", "6 4"],
  ["#cc79a7", "2 3"],
] as const;
/** Labels at the lines' ends stand this far apart at least. */
const LABEL_STEP = 16;

/** The points in JSON lines of the bench; of lines that say something else, none. */
export function pointsOf(lines: string): Point[] {
  return lines
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter(
      (line) => line["bench"] === "cold-start" && typeof line["runMedianSeconds"] === "number",
    )
    .map((line) => line as unknown as Point);
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

/** A line for each mode in the order of first use, from the left end (the least latency) to the right one. Both axes begin at 0. */
export function plot(points: readonly Point[]): string {
  const modes = [...new Set(points.map(({ mode }) => mode))];
  const delays = [...new Set(points.map(({ delayMs }) => delayMs))].sort((a, b) => a - b);
  const topSeconds = Math.ceil(Math.max(1, ...points.map((point) => point.runMedianSeconds)));
  const x = (ms: number) =>
    Math.round(LEFT + (ms / Math.max(1, delays.at(-1) ?? 1)) * (WIDTH - LEFT - RIGHT));
  const y = (seconds: number) =>
    Math.round(HEIGHT - BOTTOM - (seconds / topSeconds) * (HEIGHT - TOP - BOTTOM));
  const out = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<title>Cold start against latency</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    `<text x="${LEFT}" y="22" font-size="14">Cold start: import numpy, pandas in a sandbox, seconds from command to exit</text>`,
  ];
  for (let seconds = 0; seconds <= topSeconds; seconds++) {
    out.push(`<path d="M${LEFT} ${y(seconds)}H${WIDTH - RIGHT}" stroke="#dddddd"/>`);
    out.push(`<text x="${LEFT - 8}" y="${y(seconds) + 4}" text-anchor="end">${seconds}</text>`);
  }
  const foot = HEIGHT - BOTTOM;
  for (const ms of delays)
    out.push(`<text x="${x(ms)}" y="${foot + 18}" text-anchor="middle">${ms}</text>`);
  const middle = Math.round((LEFT + WIDTH - RIGHT) / 2);
  out.push(
    `<text x="${middle}" y="${foot + 38}" text-anchor="middle">ms before each answer of the store</text>`,
  );
  const ends: { mode: string; color: string; at: number }[] = [];
  for (const [i, mode] of modes.entries()) {
    const [color, dash] = STROKES[i % STROKES.length]!;
    const own = points
      .filter((point) => point.mode === mode)
      .sort((a, b) => a.delayMs - b.delayMs)
      .map(({ delayMs, runMedianSeconds }) => [x(delayMs), y(runMedianSeconds)] as const);
    const path = own.map(([px, py], at) => `${at === 0 ? "M" : "L"}${px} ${py}`).join("");
    const dashed = dash === "" ? "" : ` stroke-dasharray="${dash}"`;
    out.push(`<path d="${path}" fill="none" stroke="${color}" stroke-width="2"${dashed}/>`);
    for (const [px, py] of own) out.push(`<circle cx="${px}" cy="${py}" r="3" fill="${color}"/>`);
    ends.push({ mode, color, at: own.at(-1)![1] });
  }
  let above = Number.NEGATIVE_INFINITY;
  for (const { mode, color, at } of ends.sort((a, b) => a.at - b.at)) {
    above = Math.max(at, above + LABEL_STEP);
    out.push(
      `<text x="${WIDTH - RIGHT + 10}" y="${above + 4}" fill="${color}">${escaped(mode)}</text>`,
    );
  }
  return `${[...out, "</svg>"].join("\n")}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  process.stdout.write(plot(pointsOf(readFileSync(process.argv[2] ?? 0, "utf8"))));
