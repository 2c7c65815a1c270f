// The frames between a gofer and its daemon: numbers that both ends share. docs/protocol/mailbox.md. Any plane.

export const MAILBOX_VERSION = 1;

/** u32 bytes that follow it, u16 type, u16 flags, u32 id. */
export const FRAME_BYTES = 12;
export const FRAME_MAX_BYTES = 64 * 1024;

export const Frame = {
  hello: 1,
  welcome: 2,
  askBlob: 3,
  askBlocks: 4,
  answer: 5,
  cancel: 6,
  status: 7,
  statusReply: 8,
  stop: 9,
} as const;
