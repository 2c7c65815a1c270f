// What `burrow mount` or the daemon tells the process that answers the kernel's FUSE client, as JSON in its one argument. Control plane.

/** FD of the socket to who started the server, which ends with it, and the FD of /dev/fuse that the mount is by. */
export const FUSE_LEADER_FD = 3;
export const FUSE_DEVICE_FD = 4;

export interface FuseConfig {
  readonly state: string;
  /** As a bundle's mount has it: a mount of the state directory. */
  readonly source: string;
  readonly isReadOnly: boolean;
  /**
   * The mount is attached nowhere and sandboxes have it: it is served until nobody has it any more, whatever becomes of who started the
   * server. "follows": after a server that was killed, on the same device.
   */
  readonly direct?: "first" | "follows";
}
