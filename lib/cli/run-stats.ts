// What a run took, as burrow run --stats and the API say it. Any plane.

/** Whether a sandbox that asked for it shared a server. */
export interface Sharing {
  /** Whether it had a server of its tenant's, and not one of its own. */
  readonly isShared: boolean;
  /** Why not. */
  readonly reason?: string;
}

/** What a run took. */
export interface RunStats {
  /** From runsc's start to its end. */
  readonly seconds: number;
  /** As the run ended. */
  readonly exitCode: number;
  /** What the gofer answered; zeros are left out. */
  readonly counters: {
    /** Requests by the protocol's names. */
    readonly requests: Readonly<Record<string, number>>;
    /** All else that it counts, such as files `donated`. */
    readonly others: Readonly<Record<string, number>>;
  };
  /** What this node's daemon asked of stores and stages meanwhile, for whomever. */
  readonly fetched: {
    /** Each try of each. */
    readonly requests: number;
    /** Of objects, as they came. */
    readonly bytes: number;
  };
  /** Content of all files of the view. */
  readonly viewBytes: number;
  /** Of a run that asked to share a server. */
  readonly sharing?: Sharing;
}
