import { Command, Option } from "commander";
import { stringify } from "yaml";
import { isStatus } from "../api/errors.ts";
import { KINDS, type KindMap, type KindName } from "../api/kinds.ts";
import { cellOf, columnsOf } from "./columns.ts";
import type { CommandContext } from "./context.ts";
import { perform } from "./perform.ts";
import { CommandError, EXIT, notFound } from "./exit.ts";
import { colored, print, say } from "./io.ts";
import { kindAndNames, singularOf } from "./resolve-kind.ts";
import { columnWidths, renderTable } from "./table.ts";

export type StoredObject = KindMap[KindName];
const FORMATS = ["table", "wide", "json", "yaml", "name"] as const;
type Format = (typeof FORMATS)[number];

export interface GetFlags {
  allNamespaces?: boolean;
  watch?: boolean;
  output?: Format;
  headers?: boolean;
}

export function getCommand(): Command {
  return new Command("get")
    .description("list objects")
    .argument("<kind>", "bottles (bt), agents (bagent), bottletemplates (btt), secrets, events, or all")
    .argument("[names...]", "only these")
    .option("-A, --all-namespaces", "of every namespace")
    .option("-w, --watch", "go on and show changes")
    .addOption(new Option("-o, --output <format>", "how to print").choices([...FORMATS]).default("table"))
    .option("--no-headers", "without the line of headers")
    .action((kind: string, names: string[], flags: GetFlags, command: Command) =>
      perform(command, (context) => runGet(context, [kind, ...names], flags)),
    );
}

export async function runGet(context: CommandContext, words: readonly string[], flags: GetFlags): Promise<number> {
  const isAll = words[0] === "all";
  if (isAll && words.length > 1) throw new CommandError(EXIT.usage, "get all takes no names");
  const wanted = isAll ? { kinds: KINDS.map((facts) => facts.kind), names: [] } : oneKind(words);
  const objects: StoredObject[] = [];
  let version = "";
  for (const kind of wanted.kinds) {
    const listed = await listKind(context, kind, flags.allNamespaces === true);
    // The oldest version: changes between two lists are shown twice rather than never.
    if (version === "") version = listed.resourceVersion;
    objects.push(...listed.items);
  }
  const found =
    wanted.names.length === 0 ? objects : objects.filter((each) => wanted.names.includes(each.metadata.name));
  const missing = wanted.names.filter((name) => !found.some((object) => object.metadata.name === name));
  const view = { flags, isAll, single: wanted.names.length === 1 };
  if (found.length > 0) printObjects(context, found, view);
  else if (wanted.names.length === 0) printNothing(context, flags);
  for (const name of missing) {
    const error = notFound(singularOf(wanted.kinds[0] ?? "Bottle"), name, context.namespace);
    if (flags.watch !== true && missing.length === 1) throw error;
    say(context.io, `error: ${error.message}`);
  }
  if (flags.watch !== true) return missing.length > 0 ? EXIT.notFound : EXIT.ok;
  return await watchObjects(context, { ...wanted, version, headersShown: found.length > 0 }, flags);
}

function oneKind(words: readonly string[]): { kinds: KindName[]; names: string[] } {
  const { kind, names } = kindAndNames(words);
  return { kinds: [kind], names };
}

async function listKind(
  context: CommandContext,
  kind: KindName,
  everywhere: boolean,
): Promise<{ items: StoredObject[]; resourceVersion: string }> {
  const { items, resourceVersion } = await context.store.list(kind, everywhere ? {} : { namespace: context.namespace });
  const objects: StoredObject[] = items;
  return { items: kind === "Event" ? sortedEvents(objects) : objects, resourceVersion };
}

/** The newest last, where a terminal shows it. */
function sortedEvents(objects: readonly StoredObject[]): StoredObject[] {
  const time = (object: StoredObject) => (object.kind === "Event" ? object.lastTimestamp : "");
  return [...objects].sort((a, b) => time(a).localeCompare(time(b)));
}

function printNothing(context: CommandContext, flags: GetFlags): void {
  if (flags.output === "json") print(context.io, JSON.stringify(listOf([]), undefined, 2));
  else if (flags.output === "yaml") context.io.stdout.write(stringify(listOf([])));
  else {
    const where = flags.allNamespaces === true ? "any namespace" : `namespace "${context.namespace}"`;
    say(context.io, `nothing found in ${where}`);
  }
}

function printObjects(
  context: CommandContext,
  objects: readonly StoredObject[],
  view: { flags: GetFlags; isAll: boolean; single: boolean },
): void {
  const { io } = context;
  switch (view.flags.output) {
    case "json":
      return print(io, JSON.stringify(view.single ? objects[0] : listOf(objects), undefined, 2));
    case "yaml":
      return void io.stdout.write(stringify(view.single ? objects[0] : listOf(objects), { lineWidth: 0 }));
    case "name":
      return print(io, objects.map((object) => `${singularOf(object.kind)}/${object.metadata.name}`).join("\n"));
    default:
      return printTables(context, objects, view);
  }
}

function listOf(items: readonly StoredObject[]): object {
  return { apiVersion: "v1", kind: "List", items };
}

function printTables(
  context: CommandContext,
  objects: readonly StoredObject[],
  view: { flags: GetFlags; isAll: boolean },
): void {
  const kinds = [...new Set(objects.map((object) => object.kind))];
  const tables = kinds.map((kind) => {
    const rows = objects.filter((object) => object.kind === kind).map((each) => rowOf(context, each, view));
    const table = renderTable(rows, view.flags.headers === false ? undefined : headersOf(kind, view.flags));
    return highlighted(context, table, view.flags.headers !== false);
  });
  print(context.io, tables.join("\n\n"));
}

function highlighted(context: CommandContext, table: string, hasHeaders: boolean): string {
  const end = table.indexOf("\n");
  if (!hasHeaders || end < 0) return table;
  return colored(context.io, "bold", table.slice(0, end)) + table.slice(end);
}

function headersOf(kind: KindName, flags: GetFlags): string[] {
  const columns = columnsOf(kind, flags.output === "wide").map((column) => column.name);
  const name = kind === "Event" ? [] : ["Name"];
  return [...(flags.allNamespaces === true ? ["Namespace"] : []), ...name, ...columns];
}

function rowOf(context: CommandContext, object: StoredObject, view: { flags: GetFlags; isAll: boolean }): string[] {
  const { name, namespace } = object.metadata;
  const cells = columnsOf(object.kind, view.flags.output === "wide").map((each) => cellOf(object, each, context.now()));
  const shownName = view.isAll ? `${singularOf(object.kind)}/${name}` : name;
  return [
    ...(view.flags.allNamespaces === true ? [namespace] : []),
    ...(object.kind === "Event" ? [] : [shownName]),
    ...cells,
  ];
}

/** Rows as they change, in the columns' widths of what was seen so far, until Ctrl-C. */
async function watchObjects(
  context: CommandContext,
  wanted: { kinds: KindName[]; names: string[]; version: string; headersShown: boolean },
  flags: GetFlags,
): Promise<number> {
  const isAll = wanted.kinds.length > 1;
  const single = true;
  let headers = flags.headers !== false && !wanted.headersShown;
  let widths: number[] = [];
  let resourceVersion = wanted.version;
  while (!context.signal.aborted) {
    try {
      for await (const event of context.store.watch(wanted.kinds, { resourceVersion, signal: context.signal })) {
        if (event.type === "BOOKMARK") continue;
        const { object } = event;
        if (flags.allNamespaces !== true && object.metadata.namespace !== context.namespace) continue;
        if (wanted.names.length > 0 && !wanted.names.includes(object.metadata.name)) continue;
        if (flags.output !== "table" && flags.output !== "wide" && flags.output !== undefined) {
          printObjects(context, [object], { flags, isAll, single });
          continue;
        }
        const row = rowOf(context, object, { flags, isAll });
        const lines = headers ? [headersOf(object.kind, flags).map((header) => header.toUpperCase()), row] : [row];
        headers = false;
        widths = columnWidths([widths.map((width) => " ".repeat(width)), ...lines]);
        const pad = widths.map((width) => "x".repeat(width));
        print(
          context.io,
          renderTable([pad, ...lines])
            .split("\n")
            .slice(1)
            .join("\n"),
        );
      }
    } catch (error) {
      if (context.signal.aborted) break;
      if (!isStatus(error, "Gone")) throw error;
      resourceVersion = (await context.store.list("Bottle", { namespace: context.namespace })).resourceVersion;
    }
  }
  return EXIT.interrupted;
}
