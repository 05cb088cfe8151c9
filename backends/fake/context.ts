import type { BackendErrorKind, BottleIdentity, DiskPart } from "../../controller/ports/backend.ts";
import { BackendError } from "../../controller/ports/backend.ts";
import type { TurnKey } from "../../controller/ports/journal.ts";
import type { Engine } from "./engine.ts";
import type { Listing, World } from "./world.ts";

/** What the verbs work with. An engine is made for each verb, because each has its own signal. */
export interface FakeContext {
  world: World;
  owner: string;
  engine(signal?: AbortSignal): Engine;
}

/** The parts that are kept. */
export const DISK = ["home", "workspace"] as const satisfies readonly DiskPart["part"][];

/** What this installation has of one bottle, now. */
export async function own(context: FakeContext, uid: string, signal?: AbortSignal): Promise<Listing> {
  const { containers, volumes } = await context.engine(signal).inspect(uid);
  const ours = (object: { owner: string }) => object.owner === context.owner;
  return { containers: containers.filter(ours), volumes: volumes.filter(ours) };
}

export function find(listing: Listing, name: string): Listing["containers"][number] | undefined {
  return listing.containers.find((unit) => unit.engineName === name);
}

export function unitName(uid: string, role: "holder" | "guard"): string {
  return `bot-bottle-${uid}-${role}`;
}

export function agentName(uid: string, key: TurnKey): string {
  return `bot-bottle-${uid}-agent-${key.turn}-${key.attempt}`;
}

export function diskNames(uid: string): string[] {
  return DISK.map((part) => volumeName(uid, part));
}

export function identityOf(object: BottleIdentity): BottleIdentity {
  return { uid: object.uid, namespace: object.namespace, name: object.name };
}

/** A failure of that kind means that what was wanted is already so. */
export async function unless(kind: BackendErrorKind, act: Promise<unknown>): Promise<void> {
  try {
    await act;
  } catch (error) {
    if (!isKind(error, kind)) throw error;
  }
}

export function volumeName(uid: string, part: DiskPart["part"]): string {
  return `bot-bottle-${uid}-${part}`;
}

export function isKind(error: unknown, kind: BackendErrorKind): error is BackendError {
  return error instanceof BackendError && error.kind === kind;
}
