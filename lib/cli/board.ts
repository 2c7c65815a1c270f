// Board: lines at the foot of a terminal that are drawn anew in place, one for each thing under way and one for all; what stays is
// written above them. Control plane.

/** What a board needs of a terminal. */
export interface Screen {
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

const DRAW_MS = 100;
const BAR_CELLS = 20;

export class Board {
  readonly #screen: Screen;
  readonly #lines = new Map<string, string>();
  #last = "";
  #drawn = 0;
  #drawnAtMs = 0;

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  /** Sets the line of a thing; none takes it away. */
  set(key: string, text: string | undefined): void {
    if (text === undefined) this.#lines.delete(key);
    else this.#lines.set(key, text);
    this.#draw(false);
  }

  /** Sets the last line: the whole. */
  total(text: string): void {
    this.#last = text;
    this.#draw(false);
  }

  /** A line that stays, above the others. */
  line(text: string): void {
    this.#erase();
    this.#screen.write(`${text}\n`);
    this.#draw(true);
  }

  /** Takes all away that doesn't stay. */
  end(): void {
    this.#lines.clear();
    this.#last = "";
    this.#erase();
  }

  #erase(): void {
    if (this.#drawn > 0) this.#screen.write(`\x1b[${this.#drawn}A\r\x1b[J`);
    this.#drawn = 0;
  }

  #draw(isNow: boolean): void {
    if (!isNow && Date.now() - this.#drawnAtMs < DRAW_MS) return;
    this.#drawnAtMs = Date.now();
    this.#erase();
    // A terminal that has no size says 0.
    const columns = this.#screen.columns || 80;
    const rows = this.#screen.rows || 24;
    const room = Math.max(0, rows - 2);
    const lines = [...this.#lines.values()].slice(0, Math.max(0, room - 1));
    if (this.#last !== "") lines.push(this.#last);
    if (lines.length === 0) return;
    // A line that wraps would be two, and erased as one.
    const cut = lines.map((text) => text.slice(0, Math.max(1, columns - 1)));
    this.#screen.write(`${cut.join("\n")}\n`);
    this.#drawn = cut.length;
  }
}

/** "[#####-----]  50%"; nothing of it known is an empty bar. */
export function bar(done: number, whole: number): string {
  const part = whole > 0 ? Math.min(1, done / whole) : 0;
  const full = Math.round(part * BAR_CELLS);
  return `[${"#".repeat(full)}${"-".repeat(BAR_CELLS - full)}] ${String(Math.floor(part * 100)).padStart(3)}%`;
}
