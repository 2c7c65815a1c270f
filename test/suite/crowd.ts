// Eight clients of a daemon that read one large file together, so that something can be done to what it comes from meanwhile. Test support.

import type { TestNode } from "./daemon-node.ts";
import { until } from "./wait.ts";

const READERS = 8;

export class Crowd {
  /** Asks that were answered by an error. */
  failures = 0;
  /** When all is read. */
  readonly done: Promise<void>;
  readonly #node: TestNode;
  readonly #mountId: string;
  readonly #row: number;
  readonly #blocks: number;
  #next = 0;

  /** Sets out to read so many first blocks of a file: every second one, so that nobody reads in order. */
  constructor(node: TestNode, mountId: string, row: number, blocks: number) {
    this.#node = node;
    this.#mountId = mountId;
    this.#row = row;
    this.#blocks = blocks;
    this.done = this.#read();
  }

  /** Waits until a block is asked for; false when that doesn't come. */
  async reaches(block: number): Promise<boolean> {
    return await until(() => this.#next >= block);
  }

  async #read(): Promise<void> {
    await Promise.all(Array.from({ length: READERS }, () => this.#readSome()));
  }

  async #readSome(): Promise<void> {
    const client = await this.#node.connect(this.#mountId);
    for (let block = this.#next; block < this.#blocks; block = this.#next) {
      this.#next += 2;
      const { errno } = await client.askBlocks(0, this.#row, block, 1);
      if (errno !== 0) this.failures++;
    }
  }
}
