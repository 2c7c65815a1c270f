// Whether this is the long run (BURROW_LONG=1, `npm run test:long`), which takes all cases where the gate takes some.

export const isLong = process.env["BURROW_LONG"] === "1";

/** A soak: what goes on in random order goes on for so many minutes ($BURROW_MINUTES), in ms. 0: as long as the test says. */
export const soakMs = Number(process.env["BURROW_MINUTES"] ?? 0) * 60_000;
