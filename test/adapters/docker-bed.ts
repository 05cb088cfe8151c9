import { execFileSync, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { createDockerBackend, type DockerBackendOptions } from "../../backends/docker/index.ts";
import type { AgentRun, Backend, Blueprint, Unit } from "../../controller/ports/backend.ts";
import { BUSYBOX_IMAGE } from "../helpers/busybox-image.ts";

const SILENT = { debug() {}, info() {}, warn() {}, error() {} };
const DEADLINE_MS = 20_000;
const POLL_MS = 30;

/** One installation on the machine's Docker Engine. Disposing it removes everything with its owner label, whatever the test left. */
export class DockerBed {
  readonly owner = `test-${randomUUID()}`;
  readonly backend: Backend;

  constructor(options: Partial<DockerBackendOptions> = {}) {
    this.backend = this.another(options);
  }

  /** Another process of the same installation, as after a restart. */
  another(options: Partial<DockerBackendOptions> = {}): Backend {
    return createDockerBackend({ owner: this.owner, now: Date.now, log: SILENT, ...options });
  }

  blueprint(overrides: Partial<Blueprint> = {}): Blueprint {
    const uid = randomUUID();
    const name = `bottle-${uid.slice(0, 8)}`;
    const fixed = { namespace: "default", generation: 1, specHash: "spec-1", image: BUSYBOX_IMAGE };
    return { uid, name, ...fixed, env: {}, limits: {}, ...overrides };
  }

  async prepared(overrides: Partial<Blueprint> = {}): Promise<Blueprint> {
    const blueprint = this.blueprint(overrides);
    await this.backend.prepare(blueprint);
    return blueprint;
  }

  /** Runs a script as the agent of a prepared bottle, to its end. */
  async ran(blueprint: Blueprint, script: string, turn = "1"): Promise<{ unit: Unit; text: string }> {
    return this.run(blueprint, ["/bin/sh", "-c", script], turn);
  }

  async run(blueprint: Blueprint, argv: readonly string[], turn = "1"): Promise<{ unit: Unit; text: string }> {
    const run: AgentRun = { turn, attempt: 1, argv, env: {} };
    await this.backend.createAgent(blueprint, run);
    await this.backend.startAgent({ uid: blueprint.uid, turn, attempt: 1 });
    const unit = await this.until(
      blueprint.uid,
      (found) => found.role === "agent" && found.turn?.turn === turn && found.state === "exited",
    );
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.backend.logs({ uid: blueprint.uid, turn, attempt: 1 }, { follow: false })) {
      chunks.push(chunk);
    }
    return { unit, text: Buffer.concat(chunks).toString("utf8") };
  }

  async units(uid: string): Promise<readonly Unit[]> {
    return (await this.backend.observe()).bottles.get(uid)?.units ?? [];
  }

  async until(uid: string, holds: (unit: Unit) => boolean): Promise<Unit> {
    const endMs = Date.now() + DEADLINE_MS;
    for (;;) {
      const units = await this.units(uid);
      const found = units.find(holds);
      if (found !== undefined) return found;
      if (Date.now() > endMs) throw new Error(`not within ${DEADLINE_MS} ms: ${JSON.stringify(units)}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** Ids and names of all the engine has with our owner label. */
  leftovers(): string[] {
    const filter = `label=bot-bottle.dev/owner=${this.owner}`;
    return [
      ...docker("ps", "-aq", "--filter", filter).split("\n"),
      ...docker("volume", "ls", "-q", "--filter", filter).split("\n"),
    ].filter((line) => line !== "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const filter = `label=bot-bottle.dev/owner=${this.owner}`;
    const containers = () => docker("ps", "-aq", "--filter", filter).split("\n").filter(Boolean);
    const endMs = Date.now() + DEADLINE_MS;
    // What the engine itself is removing already cannot be removed, and goes a moment later.
    for (let left = containers(); left.length > 0 && Date.now() < endMs; left = containers()) {
      spawnSync("docker", ["rm", "-f", ...left], { timeout: 60_000 });
    }
    const volumes = docker("volume", "ls", "-q", "--filter", filter).split("\n").filter(Boolean);
    if (volumes.length > 0) docker("volume", "rm", "-f", ...volumes);
  }
}

export function docker(...args: string[]): string {
  return execFileSync("docker", args, { encoding: "utf8", timeout: 60_000, stdio: ["ignore", "pipe", "pipe"] }).trim();
}
