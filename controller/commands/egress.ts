import { Command, InvalidArgumentError, Option } from "commander";
import type { Bottle } from "../api/bottle.ts";
import { keyOf } from "../api/meta.ts";
import { pause } from "../loop/slots.ts";
import { AUDIT_LINES_MAX, type StoredAuditLine } from "../ports/audit.ts";
import { getBottle } from "./bottles.ts";
import type { CommandContext } from "./context.ts";
import { parseDuration } from "./duration.ts";
import { countersLine, egressHeaders, egressRow, isDenied } from "./egress-text.ts";
import { EXIT } from "./exit.ts";
import { colored, print, say } from "./io.ts";
import { perform } from "./perform.ts";
import { safeJson } from "./safe-output.ts";
import { columnWidths, renderTable } from "./table.ts";

const FORMATS = ["table", "wide", "json"] as const;
const PAGE_LINES = 1000;
const LIMIT = 1000;
/** With -f the store is asked this often for what the controller brought in. */
const POLL_MS = 300;

export interface EgressFlags {
  follow?: boolean;
  output?: (typeof FORMATS)[number];
  denied?: boolean;
  since?: number;
  limit?: number;
}

export function egressCommand(): Command {
  return new Command("egress")
    .description("show what left a bottle, and what was refused")
    .argument("<name>", "the bottle")
    .option("-f, --follow", "go on and show what comes, until Ctrl-C or the bottle is gone")
    .addOption(new Option("-o, --output <format>", "how to print").choices([...FORMATS]).default("table"))
    .option("--denied", "only what was refused or needs an approval")
    .option("--since <duration>", "only what is younger, e.g. 10m", parseDuration)
    .option("--limit <n>", `at most the newest n lines (default ${LIMIT})`, parseLimit)
    .addHelpText(
      "after",
      `
One line for each request, or for each tunnel that is passed on unread. -o json prints one JSON object a line.
Of a bottle the newest ${AUDIT_LINES_MAX} lines are kept; the counters at the end count all there ever were.
To see which rule would decide: bot-bottle policy explain NAME URL`,
    )
    .action((name: string, flags: EgressFlags, command: Command) =>
      perform(command, (context) => runEgress(context, name, flags)),
    );
}

export function parseLimit(text: string): number {
  if (!/^[1-9][0-9]{0,5}$/.test(text)) throw new InvalidArgumentError("Write a number from 1 on.");
  return Number(text);
}

export async function runEgress(context: CommandContext, name: string, flags: EgressFlags): Promise<number> {
  const bottle = await getBottle(context, name);
  const printer = createPrinter(context, flags);
  const start = await readAfter(context, bottle, { flags, afterSeq: 0 });
  printer.show(start.lines.slice(-(flags.limit ?? LIMIT)));
  if (start.dropped > 0) say(context.io, `note: ${start.dropped} older lines are no longer kept`);
  const isJson = flags.output === "json";
  if (start.lines.length === 0 && !isJson) say(context.io, nothingYet(bottle, flags));
  const exitCode = flags.follow === true ? await follow(context, bottle, { flags, ...start, printer }) : EXIT.ok;
  if (!isJson) {
    const counters = await context.auditLog.counters(bottle.metadata.uid);
    say(context.io, countersLine(counters, context.now()));
  }
  return exitCode;
}

function nothingYet(bottle: Bottle, flags: EgressFlags): string {
  const what = flags.denied === true || flags.since !== undefined ? "nothing like this left" : "nothing has left";
  return `${what} bottle "${bottle.metadata.name}" so far`;
}

interface Read {
  lines: StoredAuditLine[];
  lastSeq: number;
  /** Lines that were dropped before the first one. */
  dropped: number;
}

/** Everything after `afterSeq` that the flags ask for, page by page. */
async function readAfter(
  context: CommandContext,
  bottle: Bottle,
  { flags, afterSeq }: { flags: EgressFlags; afterSeq: number },
): Promise<Read> {
  const sinceMs = context.now() - (flags.since ?? 0);
  const isYoung = (time: string) => flags.since === undefined || Date.parse(time) >= sinceMs;
  const read: Read = { lines: [], lastSeq: afterSeq, dropped: 0 };
  for (;;) {
    const options = { afterSeq: read.lastSeq, limit: PAGE_LINES };
    const page = await context.auditLog.read(bottle.metadata.uid, options);
    const [first] = page;
    if (first === undefined) return read;
    read.dropped += first.seq - read.lastSeq - 1;
    read.lastSeq = page.at(-1)?.seq ?? read.lastSeq;
    read.lines.push(...page.filter(({ line }) => isYoung(line.time) && (flags.denied !== true || isDenied(line))));
    if (page.length < PAGE_LINES) return read;
  }
}

interface Printer {
  show(lines: readonly StoredAuditLine[]): void;
}

async function follow(
  context: CommandContext,
  bottle: Bottle,
  at: { flags: EgressFlags; lastSeq: number; printer: Printer },
): Promise<number> {
  const { uid, name } = bottle.metadata;
  let afterSeq = at.lastSeq;
  while (!context.signal.aborted) {
    await pause(POLL_MS, context.signal);
    // Looked at first: the lines of a bottle that is there now cannot be the leavings of one that is gone.
    const now = await context.store.get("Bottle", keyOf(bottle));
    const read = await readAfter(context, bottle, { flags: at.flags, afterSeq });
    afterSeq = read.lastSeq;
    at.printer.show(read.lines);
    if (now?.metadata.uid === uid) continue;
    say(context.io, `bottle "${name}" is gone`);
    return EXIT.ok;
  }
  return EXIT.interrupted;
}

/** Rows in the columns' widths of what was seen so far, the headers once. */
function createPrinter(context: CommandContext, flags: EgressFlags): Printer {
  const { io } = context;
  const isWide = flags.output === "wide";
  let widths: number[] = [];
  let hasHeaders = false;
  return {
    show(lines) {
      if (lines.length === 0) return;
      if (flags.output === "json") {
        for (const { seq, line } of lines) print(io, safeJson({ seq, ...line }));
        return;
      }
      const rows = lines.map(({ line }) => egressRow(line, isWide));
      const shown = hasHeaders ? rows : [egressHeaders(isWide), ...rows];
      widths = columnWidths([widths.map((width) => "x".repeat(width)), ...shown]);
      // A row as wide as everything so far keeps later rows in the columns of the earlier ones.
      const table = renderTable([widths.map((width) => "x".repeat(width)), ...shown]).split("\n");
      for (const [index, text] of table.slice(1).entries()) {
        print(io, !hasHeaders && index === 0 ? colored(io, "bold", text) : text);
      }
      hasHeaders = true;
    },
  };
}
