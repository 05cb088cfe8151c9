import type { BottleIdentity, DiskPart, ProbeReport, UnitExit } from "../../controller/ports/backend.ts";
import { BackendError } from "../../controller/ports/backend.ts";
import type { AuditPage, AuditRequest, GuardConfig, GuardConfigured } from "../../controller/ports/guard.ts";
import { ControllerCrash, unavailable, underFault, type ControllerProcess, type WorldVerb } from "./faults.ts";
import type { FileNode } from "./file-tree.ts";
import { applySettings, auditPage, type FakeGuard } from "./guard.ts";
import { stopViolations, volumeRemovalViolations } from "./invariants.ts";
import type { Container, Listing, Volume, World } from "./world.ts";

/** Who calls: one controller process, and the signal that ends the verb it is in. */
export interface Caller {
  world: World;
  process: ControllerProcess;
  signal?: AbortSignal;
}

export type ContainerDraft = Pick<
  Container,
  | keyof BottleIdentity
  | "engineName"
  | "owner"
  | "role"
  | "specHash"
  | "turn"
  | "argv"
  | "env"
  | "tty"
  | "joins"
  | "volumes"
>;
export type VolumeDraft = Pick<Volume, keyof BottleIdentity | "id" | "owner"> & { part: DiskPart["part"] };

/** A guard of one installation. */
export interface GuardPlace {
  uid: string;
  guardId: string;
  owner: string;
}

/**
 * The primitive calls, with the semantics of the Docker Engine: names collide for containers and not for volumes, stopping and removing what is
 * absent is NotFound, a volume in use cannot be removed, and an exited container *can* be started again: refusing that is the backend's duty.
 * Each call gives way once, so that calls of several workers interleave, and is followed by a check of all invariants.
 */
export class Engine {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  ping(): Promise<void> {
    return this.#call("ping", "", "engine", () => {});
  }

  ensureImage(uid: string, image: string): Promise<void> {
    return this.#call("ensureImage", uid, image, (world) => {
      if (!world.missingImages.has(image)) return;
      throw new BackendError("Invalid", "ImageNotFound", `image "${image}" does not exist: correct spec.image`);
    });
  }

  /** Everything, as a cheap look shows it: the only call whose answer may be stale. */
  list(): Promise<Listing> {
    return this.#call("list", "", "all", (world, staleSteps) => world.list(staleSteps));
  }

  /** One bottle as it is now. */
  inspect(uid: string): Promise<Listing> {
    return this.#call("inspect", uid, uid, (world) => {
      const { containers, volumes } = world.list();
      return {
        containers: containers.filter((unit) => unit.uid === uid),
        volumes: volumes.filter((volume) => volume.uid === uid),
      };
    });
  }

  createVolume(draft: VolumeDraft): Promise<void> {
    return this.#call("createVolume", draft.uid, draft.id, (world) => {
      if (world.volumes.has(draft.id)) return;
      world.volumes.set(draft.id, { ...draft, createdMs: world.now(), seeded: false, files: new Map() });
      world.changed(draft.uid);
    });
  }

  seedVolume(uid: string, id: string): Promise<void> {
    return this.#call("seedVolume", uid, id, (world) => {
      volumeOf(world, id).seeded = true;
      world.changed(uid);
    });
  }

  removeVolume(uid: string, id: string): Promise<void> {
    return this.#call("removeVolume", uid, id, (world) => {
      const volume = volumeOf(world, id);
      const user = [...world.containers.values()].find((unit) => unit.volumes.includes(id));
      if (user !== undefined) {
        throw new BackendError(
          "Conflict",
          "VolumeInUse",
          `volume "${id}" is in use by "${user.engineName}": remove that first`,
        );
      }
      world.violations.push(...volumeRemovalViolations(world, volume));
      world.volumes.delete(id);
      world.changed(uid);
    });
  }

  createContainer(draft: ContainerDraft): Promise<string> {
    return this.#call("createContainer", draft.uid, draft.engineName, (world) => {
      if ([...world.containers.values()].some((unit) => unit.engineName === draft.engineName)) {
        throw new BackendError("Conflict", "NameTaken", `container "${draft.engineName}" exists already`);
      }
      for (const name of draft.volumes) volumeOf(world, name);
      if (draft.joins !== undefined) containerOf(world, draft.joins);
      const id = world.nextId();
      world.containers.set(id, { ...draft, id, state: "created", starts: 0, createdMs: world.now(), output: [] });
      world.changed(draft.uid);
      return id;
    });
  }

  startContainer(uid: string, id: string): Promise<void> {
    return this.#call("startContainer", uid, id, (world) => {
      const unit = containerOf(world, id);
      if (unit.state === "running") return;
      if (unit.joins !== undefined && world.containers.get(unit.joins)?.state !== "running") {
        throw new BackendError("Conflict", "HolderNotRunning", `"${unit.engineName}" joins a namespace that is gone`);
      }
      world.start(unit);
    });
  }

  /** The grace period is the program's matter: here every program ends at once. */
  stopContainer(uid: string, id: string, exit: UnitExit): Promise<void> {
    return this.#call("stopContainer", uid, id, (world) => {
      const unit = containerOf(world, id);
      if (unit.state !== "running") return;
      world.violations.push(...stopViolations(world, unit));
      world.finish(unit, exit);
    });
  }

  removeContainer(uid: string, id: string): Promise<void> {
    return this.#call("removeContainer", uid, id, (world) => {
      const unit = containerOf(world, id);
      world.violations.push(...stopViolations(world, unit));
      world.containers.delete(unit.id);
      world.changed(uid);
    });
  }

  probe(uid: string, holderId: string): Promise<ProbeReport> {
    return this.#call("probe", uid, holderId, (world) => {
      const holder = containerOf(world, holderId);
      if (holder.state !== "running") {
        throw new BackendError(
          "Conflict",
          "HolderNotRunning",
          `holder "${holder.engineName}" is ${holder.state}: look again`,
        );
      }
      if (!world.running(uid, "guard")) return { passed: false, detail: "the guard does not answer" };
      return world.probe(uid);
    });
  }

  configureGuard(place: GuardPlace, config: GuardConfig): Promise<GuardConfigured> {
    return this.#call("configureGuard", place.uid, place.guardId, (world) => {
      const answer = applySettings(guardAt(world, place), config);
      world.changed(place.uid);
      return answer;
    });
  }

  readAudit(place: GuardPlace, request: AuditRequest): Promise<AuditPage> {
    return this.#call("readAudit", place.uid, place.guardId, (world) => auditPage(guardAt(world, place), request));
  }

  /** Copies of the chunks from `from` on, and whether more may come. */
  readLogs(uid: string, id: string, from: number): Promise<{ chunks: Uint8Array[]; ended: boolean }> {
    return this.#call("readLogs", uid, id, (world) => {
      const unit = containerOf(world, id);
      return { chunks: unit.output.slice(from), ended: unit.state !== "running" };
    });
  }

  putArchive(uid: string, id: string, nodes: ReadonlyMap<string, FileNode>): Promise<void> {
    return this.#call("putArchive", uid, id, (world) => {
      const volume = volumeOf(world, id);
      for (const [path, node] of nodes) volume.files.set(path, node);
      world.changed(uid);
    });
  }

  getArchive(uid: string, id: string): Promise<Map<string, FileNode>> {
    return this.#call("getArchive", uid, id, (world) => new Map(volumeOf(world, id).files));
  }

  async #call<T>(
    verb: WorldVerb,
    uid: string,
    target: string,
    effect: (world: World, staleSteps: number) => T,
  ): Promise<T> {
    await Promise.resolve();
    const { world, process, signal } = this.#caller;
    const call = { number: world.calls.length + 1, verb, uid, target };
    if (process.crashed) throw new ControllerCrash(call);
    if (signal?.aborted === true) {
      throw new BackendError("Transient", "Aborted", `${verb} "${target}" was not made: the caller gave up`);
    }
    world.calls.push(call);
    try {
      if (world.down) throw unavailable();
      return underFault(call, world.faults.beforeCall?.(call), process, (staleSteps) => effect(world, staleSteps));
    } finally {
      world.check();
    }
  }
}

function containerOf(world: World, id: string): Container {
  const unit = world.containers.get(id);
  if (unit === undefined) throw new BackendError("NotFound", "UnitNotFound", `container "${id}" does not exist`);
  return unit;
}

function guardAt(world: World, { uid, guardId, owner }: GuardPlace): FakeGuard {
  const unit = world.containers.get(guardId);
  if (unit?.uid === uid && unit.owner === owner && unit.state === "running" && unit.guard !== undefined) {
    return unit.guard;
  }
  throw new BackendError("NotFound", "GuardNotFound", `guard "${guardId}" of bottle "${uid}" does not run: look again`);
}

function volumeOf(world: World, id: string): Volume {
  const volume = world.volumes.get(id);
  if (volume === undefined) throw new BackendError("NotFound", "DiskNotFound", `volume "${id}" does not exist`);
  return volume;
}
