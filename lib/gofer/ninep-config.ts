// What `burrow serve` tells the process that answers 9P, as JSON in its one argument. Control plane.

import type { Access } from "./ninep-access.ts";

/** FD of the socket to who started the server, which ends with it. */
export const LEADER_FD = 3;
/** The FDs that are served, in order, from this one on. */
export const FIRST_SERVED_FD = 4;

export interface NinepConfig {
  readonly state: string;
  /** The first is what an empty aname picks. */
  readonly views: readonly {
    /** UTF-8. */
    readonly name: string;
    /** As a bundle's mount has it: a mount of the state directory. */
    readonly source: string;
    readonly isReadOnly: boolean;
  }[];
  /** Of each FD whether it listens; one that doesn't is a client. */
  readonly listens: readonly boolean[];
  readonly access: Access;
}
