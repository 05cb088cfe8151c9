import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** Follows what happens to containers of bottles, to say afterwards whether an agent ever ran without holder and guard. */
export interface EngineEvents {
  /** Starts of each of a bottle's agents, by turn and attempt. */
  agentStarts(owner: string): Record<string, number>;
  /** Each moment at which an agent of this owner ran without its holder or guard. */
  unguarded(owner: string): string[];
  [Symbol.asyncDispose](): Promise<void>;
}

interface Happened {
  action: string;
  id: string;
  role: string;
  uid: string;
  owner: string;
  run: string;
}

const LABEL = "bot-bottle.dev";

/** Resolves when the engine reports, so that nothing that begins afterwards is missed. */
export async function followEngine(): Promise<EngineEvents> {
  const seen: Happened[] = [];
  const filters = ["type=container", "event=start", "event=die", `label=${LABEL}/managed-by=bot-bottle`];
  const args = ["events", "--since", String(Math.floor(Date.now() / 1000)), "--format", "{{json .}}"];
  const child = spawn("docker", [...args, ...filters.flatMap((filter) => ["--filter", filter])], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((resolve) => child.once("close", resolve));
  createInterface({ input: child.stdout }).on("line", (line) => seen.push(read(line)));
  return {
    agentStarts(owner) {
      const starts: Record<string, number> = {};
      for (const { action, role, run } of seen.filter((each) => each.owner === owner)) {
        if (action === "start" && role === "agent") starts[run] = (starts[run] ?? 0) + 1;
      }
      return starts;
    },
    unguarded: (owner) => unguarded(seen.filter((each) => each.owner === owner)),
    async [Symbol.asyncDispose]() {
      child.kill();
      await ended;
    },
  };
}

function read(line: string): Happened {
  const event: { Action: string; Actor: { ID: string; Attributes: Record<string, string> } } = JSON.parse(line);
  const label = (name: string) => event.Actor.Attributes[`${LABEL}/${name}`] ?? "";
  const run = `turn ${label("turn")} attempt ${label("attempt")}`;
  return {
    action: event.Action,
    id: event.Actor.ID,
    role: label("role"),
    uid: label("uid"),
    owner: label("owner"),
    run,
  };
}

function unguarded(happened: readonly Happened[]): string[] {
  const running = new Map<string, Happened>();
  const found: string[] = [];
  for (const now of happened) {
    if (now.action === "start") running.set(now.id, now);
    else running.delete(now.id);
    const beside = [...running.values()].filter(({ uid }) => uid === now.uid);
    const has = (role: string) => beside.some((unit) => unit.role === role);
    if (has("agent") && !(has("holder") && has("guard"))) {
      found.push(
        `${now.action} of ${now.role}: the agent of ${now.uid} ran with ${beside.map(({ role }) => role).join(", ")}`,
      );
    }
  }
  return found;
}
