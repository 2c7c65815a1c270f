// SharedFigures: what the broker of shared servers tells its daemon over their link: a line of numbers, whenever one has changed. Pure. Plane: control.

/** Servers that are shared, those that get ready among them, and the sandboxes that they serve; sandboxes so far that got such a server, and that were turned away and have one of their own. */
export interface SharedFigures {
  readonly servers: number;
  readonly sandboxes: number;
  readonly placed: number;
  readonly refused: number;
}

const LINE = /^(\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15})$/;
/** No line is longer. */
const LINE_CHARS = 64;

/** With the line's end. */
export function encodeFigures({ servers, sandboxes, placed, refused }: SharedFigures): string {
  return `${servers} ${sandboxes} ${placed} ${refused}\n`;
}

/** Reads lines as they come, in any pieces; what isn't one is passed over. */
export class FiguresReader {
  #rest = "";
  /** Of the last line; undefined while none has come. */
  figures: SharedFigures | undefined;

  take(said: string): void {
    const lines = `${this.#rest}${said}`.split("\n");
    this.#rest = lines.pop()!.slice(-LINE_CHARS);
    for (const line of lines) {
      const found = LINE.exec(line)?.slice(1).map(Number);
      if (found === undefined) continue;
      const [servers, sandboxes, placed, refused] = found as [number, number, number, number];
      this.figures = { servers, sandboxes, placed, refused };
    }
  }
}
