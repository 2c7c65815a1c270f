// Start notes: what is heard of one start over a snapshot until its profile is told: what it asked for and wasn't here, and what it read.
// Bounded. Control plane.

import { PROFILE_ASKS_MAX } from "../base/limits.ts";
import type { ProfileAsk } from "./profile.ts";

/** What a start teaches. */
export interface Lesson extends ProfileAsk {
  /** All of a file that was here already, so that nobody asked for a part of it: where it is large it isn't known what of it is needed. */
  readonly isUnseen?: true;
}

export class StartNotes {
  /** In their order. */
  readonly #asks = new Map<string, ProfileAsk>();
  readonly #touches = new Map<string, Lesson>();
  /** What was foreseen: of large files the blocks. */
  readonly #foreseen = new Map<string, ProfileAsk>();
  /** Rows of what was foreseen to be read whole. */
  readonly #foreseenWhole = new Set<number>();
  #unsaved = 0;

  /** Whether it told what it read. */
  get isTold(): boolean {
    return this.#touches.size > 0;
  }

  /** Notes what wasn't here: 1 when that is new. */
  ask(ask: ProfileAsk): number {
    return this.#note(this.#asks, ask);
  }

  /** Notes what is foreseen to be needed, and wasn't here: no lesson, but it says which blocks of what is mapped. */
  foresee(ask: ProfileAsk): void {
    if (this.#foreseen.size + this.#foreseenWhole.size >= PROFILE_ASKS_MAX) return;
    if (ask.count > 0) this.#foreseen.set(`${ask.row} ${ask.first}`, ask);
    else this.#foreseenWhole.add(ask.row);
  }

  /** Notes what was read, and whether it was here by then: 1 when that is new. */
  touch(ask: ProfileAsk, isLocal = false): number {
    return this.#note(this.#touches, isLocal && ask.count === 0 ? { ...ask, isUnseen: true } : ask);
  }

  /** How much was noted since this was last called. */
  saved(): number {
    const unsaved = this.#unsaved;
    this.#unsaved = 0;
    return unsaved;
  }

  /**
   * What is to be learned so far: what was read, of large blobs that were read whole the blocks that were asked for or foreseen. Of a start that has
   * ended and told nothing, as it does whose server was killed, what it asked for.
   */
  lesson(isEnded: boolean): Lesson[] {
    if (!this.isTold) return isEnded ? [...this.#asks.values()] : [];
    const blocks = new Map<number, ProfileAsk[]>();
    for (const ask of [...this.#foreseen.values(), ...this.#asks.values()]) {
      if (ask.count === 0) continue;
      const some = blocks.get(ask.row);
      if (some === undefined) blocks.set(ask.row, [ask]);
      else some.push(ask);
    }
    const lesson: Lesson[] = [];
    for (const touch of this.#touches.values()) {
      const { row, first, count } = touch;
      // Parts of it were looked at, too; it came whole because all of it is read.
      if (count === 0 && this.#foreseenWhole.has(row)) lesson.push({ row, first, count });
      else
        for (const each of (count === 0 ? blocks.get(row) : undefined) ?? [touch])
          lesson.push(each);
    }
    return lesson;
  }

  #note<Ask extends ProfileAsk>(notes: Map<string, Ask>, ask: Ask): number {
    const key = `${ask.row} ${ask.first}`;
    const before = notes.get(key);
    if (before === undefined ? notes.size >= PROFILE_ASKS_MAX : before.count >= ask.count) return 0;
    notes.set(key, ask);
    if (before !== undefined) return 0;
    this.#unsaved++;
    return 1;
  }
}
