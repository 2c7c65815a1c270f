// The script of the page that burrow trace report writes: the waterfall of a start on one canvas, and tables of what it comes to. All
// that it shows is in the page; names in it are anybody's, and become text, never markup. docs/trace.md. Runs in a browser.

/** What the report put into the page: lib/cli/trace-page.ts has its shape. */
const data = JSON.parse(document.getElementById("trace").textContent);
const { summary, files, packages, names } = data;

const ROW = 12;
const GAP = 26;
const TICKS = 26;
/** Rows of one lane: what runs beside more is drawn over the last. */
const ROWS_MAX = 24;
const FILES_SHOWN = 300;

// Numbers as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB"];
function showBytes(bytes) {
  let unit = 0;
  let value = bytes;
  for (; value >= 1000 && unit < UNITS.length - 1; unit++) value /= 1000;
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}
function showMs(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return ms >= 1 ? `${ms.toFixed(1)} ms` : `${Math.round(ms * 1000)} µs`;
}
const showPercent = (part, all) => (all === 0 ? "–" : `${Math.round((100 * part) / all)} %`);
const pathOf = (file) => (file < 0 ? "" : files[file][0]);
const packageOf = (file) => (file < 0 || files[file][2] < 0 ? "" : packages[files[file][2]].title);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className !== undefined) made.className = className;
  return made;
}

// Lanes: events laid out in rows, so that none hides another of its lane.

function describeRpc([, us, name, file, errno, page, count]) {
  const more = names[name] === "PRead" ? `${showBytes(count)} from ${showBytes(page * 4096)}` : "";
  const failed = errno === 0 ? "" : `errno ${errno}`;
  return [`${names[name]} ${showMs(us / 1000)}`, pathOf(file), packageOf(file), more, failed];
}
function describeMiss([, us, file, errno, block]) {
  const what = block < 0 ? "the whole file" : `from block ${block}`;
  const failed = errno === 0 ? "" : `errno ${errno}`;
  return [`waited ${showMs(us / 1000)}`, pathOf(file), packageOf(file), what, failed];
}
function describeFetch([, us, origin, path, offset, bytes, isDemand]) {
  const how = bytes < 0 ? "failed" : `${showBytes(bytes)} from ${offset}`;
  const why = isDemand ? "demand" : "background";
  return [`fetch (${why}) ${showMs(us / 1000)}`, how, path, data.origins[origin]];
}
function describePrefetch([, , file, block, bytes, isUsed]) {
  const fate = isUsed ? "its file was opened" : "its file was not opened";
  return [`came ahead: ${showBytes(bytes)}`, pathOf(file), packageOf(file), `block ${block}`, fate];
}

const LANES = [
  {
    title: "requests",
    events: data.rpcs,
    describe: describeRpc,
    colour: (event) => (event[4] === 0 ? "--rpc" : "--failed"),
  },
  { title: "waits for bytes", events: data.misses, describe: describeMiss, colour: () => "--miss" },
  {
    title: "fetches from origins",
    events: data.fetches,
    describe: describeFetch,
    colour: (event) => (event[5] < 0 ? "--wasted" : event[6] ? "--fetch" : "--background"),
  },
  {
    title: "brought ahead",
    events: data.prefetches,
    describe: describePrefetch,
    colour: (event) => (event[5] ? "--used" : "--wasted"),
  },
];

/** Gives each event of a lane a row: the first that is free when it begins. */
function layOut(lane) {
  const ends = [];
  lane.rows = [];
  for (const event of lane.events) {
    let row = ends.findIndex((end) => end <= event[0]);
    if (row < 0) row = Math.min(ends.length, ROWS_MAX - 1);
    ends[row] = event[0] + event[1] / 1000;
    lane.rows[row] ??= [];
    lane.rows[row].push(event);
  }
  lane.text = lane.events.map((event) => lane.describe(event).join("\n").toLowerCase());
  lane.number = new Map(lane.events.map((event, i) => [event, i]));
}
let height = TICKS;
for (const lane of LANES) {
  layOut(lane);
  lane.top = height + GAP - 8;
  height = lane.top + Math.max(1, lane.rows.length) * ROW;
}
height += 10;

// The chart.

const canvas = document.querySelector("canvas");
const tip = document.getElementById("tip");
const context = canvas.getContext("2d");
const whole = { from: 0, to: Math.max(1, summary.ms * 1.02) };
const view = { ...whole };
let filter = "";
let width = 0;
let isQueued = false;

const xOf = (ms) => ((ms - view.from) / (view.to - view.from)) * width;
const msOf = (x) => view.from + (x / width) * (view.to - view.from);
const matches = (lane, event) =>
  filter === "" || lane.text[lane.number.get(event)].includes(filter);

function drawRow(lane, row, y, colours) {
  const faint = [];
  for (const event of row) {
    const left = xOf(event[0]);
    const right = xOf(event[0] + event[1] / 1000);
    if (right < 0 || left > width) continue;
    const wide = Math.max(0.7, right - left);
    if (!matches(lane, event)) faint.push([left, wide]);
    else {
      context.fillStyle = colours(lane.colour(event));
      context.fillRect(left, y, wide, ROW - 2);
    }
  }
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = colours("--dimmed");
  for (const [left, wide] of faint) context.fillRect(left, y, wide, ROW - 2);
  context.globalCompositeOperation = "source-over";
}

/** A round step of which some ten fit. */
function stepOf(ms) {
  const power = 10 ** Math.floor(Math.log10(ms / 10));
  return [1, 2, 5, 10].map((of) => of * power).find((step) => ms / step <= 10);
}

function drawTimes(colours) {
  const step = stepOf(view.to - view.from);
  context.strokeStyle = colours("--line");
  context.fillStyle = colours("--faint");
  context.beginPath();
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
    context.moveTo(xOf(at), 0);
    context.lineTo(xOf(at), height);
    context.fillText(showMs(at), xOf(at) + 3, 10);
  }
  context.stroke();
}

function drawMarks(colours) {
  context.strokeStyle = colours("--text");
  context.fillStyle = colours("--text");
  let free = 0;
  for (const { ms, name } of data.marks) {
    const x = xOf(ms);
    if (x < 0 || x > width) continue;
    context.beginPath();
    context.moveTo(x, 13);
    context.lineTo(x, height);
    context.setLineDash([2, 3]);
    context.stroke();
    context.setLineDash([]);
    const wide = context.measureText(name).width;
    const left = Math.min(Math.max(x + 3, free), width - wide);
    context.fillText(name, left, 22);
    free = left + wide + 8;
  }
}

function draw() {
  isQueued = false;
  const ratio = window.devicePixelRatio || 1;
  width = canvas.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const style = getComputedStyle(document.documentElement);
  const known = new Map();
  const colours = (name) => {
    if (!known.has(name)) known.set(name, style.getPropertyValue(name));
    return known.get(name);
  };
  context.font = "11px system-ui, sans-serif";
  for (const lane of LANES) {
    for (const [i, row] of lane.rows.entries()) drawRow(lane, row, lane.top + i * ROW, colours);
    context.fillStyle = colours("--faint");
    context.fillText(`${lane.title} (${lane.events.length})`, 4, lane.top - 4);
  }
  drawTimes(colours);
  drawMarks(colours);
  document.body.dataset.drawn = String(LANES.reduce((sum, { events }) => sum + events.length, 0));
}

function redraw() {
  if (isQueued) return;
  isQueued = true;
  requestAnimationFrame(draw);
}

/** The event under a place of the chart: of several the one that began last. */
function eventAt(x, y) {
  const slack = 2 * ((view.to - view.from) / width);
  for (const lane of LANES) {
    const row = lane.rows[Math.floor((y - lane.top) / ROW)];
    if (y < lane.top || row === undefined) continue;
    const ms = msOf(x);
    const isHit = (event) => event[0] - slack <= ms && ms <= event[0] + event[1] / 1000 + slack;
    const event = row.findLast((one) => isHit(one) && matches(lane, one));
    return event === undefined ? undefined : { lane, event };
  }
  return undefined;
}

function showTip({ offsetX, offsetY }) {
  const found = eventAt(offsetX, offsetY);
  tip.hidden = found === undefined;
  if (found === undefined) return;
  const { lane, event } = found;
  const lines = [`at ${showMs(event[0])}`, ...lane.describe(event)];
  tip.textContent = lines.filter((line) => line !== "").join("\n");
  const isRight = offsetX > width / 2;
  tip.style.left = isRight ? "" : `${offsetX + 14}px`;
  tip.style.right = isRight ? `${width - offsetX + 14}px` : "";
  tip.style.top = `${offsetY + 14}px`;
}

function zoom(factor, at) {
  const span = Math.min(whole.to, Math.max(0.05, (view.to - view.from) * factor));
  const share = (at - view.from) / (view.to - view.from);
  move(at - share * span, span);
}
function move(from, span) {
  view.from = Math.min(Math.max(0, from), whole.to - span);
  view.to = view.from + span;
  redraw();
}

function listen() {
  let dragged;
  canvas.style.height = `${height}px`;
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (event.shiftKey)
        move(view.from + (event.deltaY / width) * (view.to - view.from), view.to - view.from);
      else zoom(event.deltaY > 0 ? 1.25 : 0.8, msOf(event.offsetX));
    },
    { passive: false },
  );
  canvas.addEventListener("pointerdown", (event) => {
    dragged = { x: event.offsetX, from: view.from };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", () => {
    dragged = undefined;
  });
  canvas.addEventListener("pointermove", (event) => {
    const span = view.to - view.from;
    if (dragged === undefined) showTip(event);
    else move(dragged.from - ((event.offsetX - dragged.x) / width) * span, span);
  });
  canvas.addEventListener("pointerleave", () => {
    tip.hidden = true;
  });
  canvas.addEventListener("dblclick", reset);
  document.getElementById("reset").addEventListener("click", () => {
    document.querySelector("input").value = "";
    setFilter("");
    reset();
  });
  document
    .querySelector("input")
    .addEventListener("input", (event) => setFilter(event.target.value));
  window.addEventListener("resize", redraw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
function reset() {
  Object.assign(view, whole);
  redraw();
}
function setFilter(text) {
  filter = text.trim().toLowerCase();
  showFiles();
  redraw();
}

// Tables.

const waste = ({ prefetchedBytes, wastedBytes }) =>
  prefetchedBytes === 0 ? "" : `${showBytes(wastedBytes)} of ${showBytes(prefetchedBytes)}`;
const COUNTS = [
  ["requests", (of) => of.requests],
  ["waits", (of) => of.misses || ""],
  ["waited", (of) => (of.waitedMs === 0 ? "" : showMs(of.waitedMs)), (of) => of.waitedMs],
  ["brought in vain", waste, (of) => of.wastedBytes],
];
const PACKAGE_COLUMNS = [
  ["package", (of) => of.title],
  ["files read", (of) => `${of.filesRead} of ${of.files}`, (of) => of.filesRead],
  [
    "bytes read",
    (of) => `${showBytes(of.readBytes)} of ${showBytes(of.bytes)}`,
    (of) => of.readBytes,
  ],
  ["share", (of) => showPercent(of.readBytes, of.bytes), (of) => of.readBytes / (of.bytes || 1)],
  ...COUNTS,
];
const FILE_COLUMNS = [
  ["file", (of) => of.path],
  ["package", (of) => of.package],
  ["bytes", (of) => (of.bytes === 0 ? "" : showBytes(of.bytes)), (of) => of.bytes],
  ...COUNTS,
];

/** A table whose columns sort it; a row that is chosen becomes the filter. */
function fillTable(table, columns, rows, limit) {
  const sorting = table.sorting ?? { by: columns.length - 2, isDown: true };
  table.sorting = sorting;
  const [, show, value = show] = columns[sorting.by];
  const sorted = [...rows].sort((a, b) => {
    const [one, other] = [value(a), value(b)];
    const order = typeof one === "string" ? one.localeCompare(other) : (one || 0) - (other || 0);
    return sorting.isDown ? -order : order;
  });
  const head = element("tr");
  for (const [i, [title]] of columns.entries()) {
    const cell = head.appendChild(element("th", title));
    cell.addEventListener("click", () => {
      table.sorting = { by: i, isDown: sorting.by === i ? !sorting.isDown : i > 0 };
      fillTable(table, columns, rows, limit);
    });
  }
  const body = element("tbody");
  for (const row of sorted.slice(0, limit)) {
    const line = body.appendChild(element("tr"));
    for (const [, text] of columns) line.appendChild(element("td", String(text(row))));
    line.addEventListener("click", () => {
      document.querySelector("input").value = columns[0][1](row);
      setFilter(columns[0][1](row));
    });
  }
  table.replaceChildren(element("thead"), body);
  table.firstChild.appendChild(head);
}

const fileRows = data.fileTallies.map(
  ([file, requests, misses, waitedMs, prefetchedBytes, wastedBytes]) => {
    const tally = { requests, misses, waitedMs, prefetchedBytes, wastedBytes };
    return { path: pathOf(file), package: packageOf(file), bytes: files[file][1], ...tally };
  },
);
function showFiles() {
  const isShown = ({ path, package: of }) => `${path}\n${of}`.toLowerCase().includes(filter);
  const shown = filter === "" ? fileRows : fileRows.filter(isShown);
  fillTable(document.getElementById("files"), FILE_COLUMNS, shown, FILES_SHOWN);
  const cut = shown.length > FILES_SHOWN ? `the first ${FILES_SHOWN} of ` : "";
  document.getElementById("shown").textContent =
    `${cut}${shown.length} of ${fileRows.length} files`;
}

function showTotals() {
  const { ms, rpcs, rpcMs, misses, waitedMs, blockedMs, firstReads, firstReadsLocal } = summary;
  const { fetches, fetchedBytes, prefetchedBytes, wastedBytes } = summary;
  const totals = [
    [showMs(ms), "from start to end"],
    [showMs(blockedMs), `something waited for bytes (${showMs(waitedMs)} in ${misses} waits)`],
    [`${rpcs}`, `requests, ${showMs(rpcMs)} in the gofer`],
    [showPercent(firstReadsLocal, firstReads), `of ${firstReads} files were here when first read`],
    [showBytes(fetchedBytes), `fetched in ${fetches} requests`],
    [
      showPercent(prefetchedBytes - wastedBytes, prefetchedBytes),
      `of ${showBytes(prefetchedBytes)} brought ahead are of files that were opened`,
    ],
  ];
  for (const [figure, text] of totals) {
    const box = document.getElementById("totals").appendChild(element("div"));
    box.append(element("b", figure), element("span", text));
  }
}

function main() {
  const { command, startedAt, exitCode, notes, dropped } = data.head;
  document.querySelector("h1").textContent = command.join(" ");
  const lost = dropped === 0 ? "" : `; ${dropped} events found no room`;
  document.getElementById("about").textContent = `${startedAt}, exit code ${exitCode}${lost}`;
  for (const note of notes) document.getElementById("about").after(element("p", note));
  // A link to a page may say what to look at: start.html#pandas.
  filter = decodeURIComponent(location.hash.slice(1)).trim().toLowerCase();
  document.querySelector("input").value = filter;
  showTotals();
  fillTable(document.getElementById("packages"), PACKAGE_COLUMNS, summary.packages, Infinity);
  const never = summary.neverRead;
  document.getElementById("never").textContent =
    never.length === 0 ? "" : `Never read: ${never.join(", ")}`;
  showFiles();
  listen();
  draw();
}

main();
