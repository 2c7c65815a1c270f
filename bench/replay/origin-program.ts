// The origin of OriginProcess: a web server in a process of its own. Folders by name are the JSON in the first argument.

import { Origin } from "./origin.ts";
import type { OriginOrder } from "./origin-process.ts";

const origin = new Origin(JSON.parse(process.argv[2] ?? "{}") as Record<string, string>);
process.send!(await origin.listen());
process.on("message", (order: OriginOrder) => {
  if (order.kind === "begin") origin.begin(order.delayMs, order.bitsPerSecond);
  const { requests, sent } = origin;
  process.send!({ requests, sent });
});
process.on("disconnect", () => process.exit(0));
