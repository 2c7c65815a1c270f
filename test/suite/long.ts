// Whether this is the long run (BURROW_LONG=1, `npm run test:long`), which takes all cases where the gate takes some.

export const isLong = process.env["BURROW_LONG"] === "1";
