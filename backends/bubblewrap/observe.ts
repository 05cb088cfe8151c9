import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  BackendError,
  type BottleView,
  type DiskPart,
  type Observation,
  type Unit,
} from "../../controller/ports/backend.ts";
import { partDir, readBottle, type Bottle } from "./bottles.ts";
import { refuseAborted, type Context } from "./context.ts";
import { partId } from "./remove.ts";
import { listUnits, namesIn, type UnitEntry } from "./units.ts";

const PARTS = ["home", "workspace", "sockets"] as const;

/**
 * A look at the state directory. Read synchronously: the files are few, tiny and in memory, and asking for each on another thread takes ten times
 * as long; between bottles others get their turn.
 */
export async function observe(context: Context, signal?: AbortSignal): Promise<Observation> {
  const atMs = context.now();
  const bottles = new Map<string, BottleView>();
  for (const name of look(context.stateDir, () => namesIn(context.stateDir))) {
    if (name.startsWith(".")) continue;
    refuseAborted("observe", signal);
    const view = look(join(context.stateDir, name), () => viewOf(context, name));
    if (view !== undefined) bottles.set(view.uid, view);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return { atMs, bottles };
}

/** What cannot be read could be anything: half a view is none. */
function look<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const message = `cannot read "${path}": ${why}; make it readable, or move it away`;
    throw new BackendError("Unavailable", "StateUnreadable", message, { cause: error });
  }
}

function viewOf(context: Context, name: string): BottleView | undefined {
  const bottle = readBottle(join(context.stateDir, name));
  if (bottle === undefined || bottle.meta.owner !== context.owner) return undefined;
  const units = listUnits(bottle).map(toUnit);
  const disk = PARTS.flatMap((part) => toPart(bottle, part));
  // A crash between the removal of the last part and that of the directory leaves this. It is shown as what is not worth keeping, so that it goes.
  if (units.length === 0 && disk.length === 0) disk.push(partOf(bottle, "sockets"));
  const { uid, namespace } = bottle.meta;
  return { uid, namespace, name: bottle.meta.name, units, disk };
}

function toUnit({ spec, state, mark, end }: UnitEntry): Unit {
  const { id, role, specHash, createdMs, run } = spec;
  return {
    id,
    role,
    state,
    specHash,
    createdMs,
    ...(run === undefined ? {} : { turn: { turn: run.turn, attempt: run.attempt } }),
    ...(mark === undefined ? {} : { startedMs: mark.startedMs }),
    ...(end === undefined ? {} : { finishedMs: end.finishedMs }),
    ...(state === "exited" ? { exit: { ...(end === undefined ? {} : { code: end.code }), oom: false } } : {}),
  };
}

function toPart(bottle: Bottle, part: DiskPart["part"]): DiskPart[] {
  if (!existsSync(partDir(bottle, part))) return [];
  return [partOf(bottle, part)];
}

function partOf(bottle: Bottle, part: DiskPart["part"]): DiskPart {
  return { id: partId(bottle, part), part, kind: "Directory", createdMs: bottle.meta.createdMs };
}
