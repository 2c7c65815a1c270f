// Crowd: so many connections at most, and who has to go past that: one of the user who has the most. So no user of the node can take
// what all may have, and one who is alone may have it all. Control plane.

/** Which of a user's own goes: the one that came first, or the one that came last. */
export type Leaver = "oldest" | "newest";

export class Crowd<Member> {
  readonly #max: number;
  readonly #leaver: Leaver;
  /** By user, in the order in which they came. */
  readonly #users = new Map<number, Set<Member>>();
  #size = 0;

  constructor(max: number, leaver: Leaver) {
    this.#max = max;
    this.#leaver = leaver;
  }

  get size(): number {
    return this.#size;
  }

  /** Takes one in: who is put out for it, perhaps the new one itself. */
  add(user: number, member: Member): Member | undefined {
    const own = this.#users.get(user) ?? new Set<Member>();
    this.#users.set(user, own.add(member));
    this.#size++;
    if (this.#size <= this.#max) return undefined;
    let [most, members] = [user, own];
    for (const [each, theirs] of this.#users) {
      if (theirs.size > members.size) [most, members] = [each, theirs];
    }
    const all = [...members];
    const leaver = this.#leaver === "oldest" ? all[0]! : all[all.length - 1]!;
    this.delete(most, leaver);
    return leaver;
  }

  delete(user: number, member: Member): void {
    const own = this.#users.get(user);
    if (own?.delete(member) !== true) return;
    this.#size--;
    if (own.size === 0) this.#users.delete(user);
  }
}
