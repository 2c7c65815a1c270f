// docs/commands.md: the help of every command as one page, written from the commands themselves: `npm run docs:commands`. A test keeps the
// two the same. Control plane.

import { type Command, Help } from "commander";
import { makeProgram } from "../../lib/cli/program.ts";

const HEAD = `# Commands

What every command says of itself, written by \`npm run docs:commands\`. Results go to stdout, everything else to stderr; [errors.md](errors.md) has the codes of errors, what they are as JSON, and exit codes.

"Those of all" among a command's options are these; \`burrow COMMAND --help\` prints them, too. Where a command lists a store or writes to it, that can't be behind http(s).
`;
/** What nearly all commands take: said once. */
const COMMON = ["--state", "--cache", "--store", "--json"];
const WIDTH = 120;
/** Pages that say more, by command or group. */
const PAGES: Readonly<Record<string, readonly string[]>> = {
  run: ["trace.md", "daemon.md#shared-servers", "design/0017-overlay.md"],
  bundle: ["format/mount.md", "integrations/containerd.md", "integrations/docker.md"],
  annotate: ["format/annotations.md"],
  serve: ["protocol/9p2000l.md"],
  mount: ["mount.md"],
  umount: ["mount.md"],
  explain: ["explain.md"],
  env: ["conda.md"],
  preload: ["preload.md"],
  profile: ["daemon.md#starts-that-are-fetched-ahead", "design/0027-learned-starts.md"],
  trace: ["trace.md"],
  top: ["top.md"],
  layer: ["sources.md", "format/layer-index.md"],
  stage: ["s3.md#stages"],
  store: ["format/store.md", "s3.md", "origins.md", "design/0009-collection.md"],
  cache: ["cache.md", "format/cache.md"],
  daemon: ["daemon.md", "metrics.md", "origins.md"],
  gofer: ["design/0016-hot-restart.md"],
};

/** Commands that do something, not groups of them, with the words that name each. */
function* commandsOf(command: Command, above = ""): Generator<[words: string, command: Command]> {
  for (const child of command.commands) {
    const words = `${above}${child.name()}`;
    if (child.commands.length === 0) yield [words, child];
    yield* commandsOf(child, `${words} `);
  }
}

export function commandPage(): string {
  const commands = [...commandsOf(makeProgram())];
  const rows = commands.map(([words, command]) => {
    const pages = PAGES[words] ?? PAGES[words.split(" ")[0]!] ?? [];
    const links = pages.map((page) => `[${page.replace(/#.*/, "")}](${page})`);
    const anchor = `burrow-${words.replaceAll(" ", "-")}`;
    return `| [\`burrow ${words}\`](#${anchor}) | ${command.description()} | ${links.join(", ")} |`;
  });
  const table = ["| command | does | more |", "| --- | --- | --- |", ...rows].join("\n");
  const sections = commands.map(([words, command]) => {
    return `\n## burrow ${words}\n\n\`\`\`\n${pageOf(command).trimEnd()}\n\`\`\`\n`;
  });
  return `${HEAD}\n${commonOptions(commands[0]![1])}\n\n${table}\n${sections.join("")}`;
}

function commonOptions(command: Command): string {
  const rows = command.options.filter(({ long }) => COMMON.includes(long!));
  return rows.map(({ flags, description }) => `- \`${flags}\`: ${description}`).join("\n");
}

/** Its help without the options that all have. */
function pageOf(command: Command): string {
  const help = new Help();
  const isUsual = COMMON.every((name) => command.options.some(({ long }) => long === name));
  const omitted = isUsual ? ["--help", ...COMMON] : ["--help"];
  const visibleOptions = (of: Command) =>
    help.visibleOptions(of).filter(({ long }) => !omitted.includes(long ?? ""));
  command.configureHelp({ visibleOptions });
  const text = helpOf(command);
  if (!isUsual) return text;
  // Behind the last of its lists, or else behind what it does.
  const hasOptions = text.includes("\nOptions:\n");
  const list = text.indexOf(hasOptions ? "\nOptions:\n" : "\nArguments:\n");
  const end = text.indexOf("\n\n", list < 0 ? text.indexOf("\n\n") + 2 : list);
  const line = hasOptions ? "\n  and those of all" : "\n\nOptions: those of all";
  return `${text.slice(0, end)}${line}${text.slice(end)}`;
}

/** What --help prints on a terminal of WIDTH columns. */
export function helpOf(command: Command): string {
  let text = "";
  const writeOut = (more: string) => {
    text += more;
  };
  command.configureOutput({ writeOut, getOutHelpWidth: () => WIDTH }).outputHelp();
  return text;
}

if (import.meta.filename === process.argv[1]) process.stdout.write(commandPage());
