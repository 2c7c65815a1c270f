// What a run took, as burrow run --stats and the API say it. Any plane.

/** What a run took. */
export interface RunStats {
  /** From runsc's start to its end. */
  readonly seconds: number;
  /** As the run ended. */
  readonly exitCode: number;
  /** What the gofer answered: requests by name, and other counts; zeros are left out. */
  readonly counters: {
    readonly requests: Readonly<Record<string, number>>;
    readonly others: Readonly<Record<string, number>>;
  };
  /** What this node's daemon asked of stores and stages meanwhile, for whomever. */
  readonly fetched: { readonly requests: number; readonly bytes: number };
  /** Content of all files of the view. */
  readonly viewBytes: number;
}
