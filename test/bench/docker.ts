import type { Bottle, Turn } from "../../controller/api/bottle.ts";
import { conditionOf } from "../../controller/api/conditions.ts";
import { API_VERSION } from "../../controller/api/meta.ts";
import type { AgentRun } from "../../controller/ports/backend.ts";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { cliBottle, cliSurroundings, runScript, startedMs, type CliBottle } from "./cli-bottle.ts";
import { startInstallation, wallMs, type Installation } from "./installation.ts";
import { limited, measured, type Measurement } from "./measurement.ts";

const ROUNDS = 9;
/** Ends after a moment, or works until it is told to end, as its prompt says. */
const COMMAND = ["sh", "-c", 'if [ "$0" = end ]; then sleep 0.5; else trap "exit 0" TERM; sleep 600 & wait; fi'];

/** Milliseconds of one life: launched, ended by itself and frozen, woken, frozen in the middle of a turn. */
interface Life {
  launch: number;
  freezeAfterTurn: number;
  wake: number;
  freezeInTurn: number;
}

/** The peer's variants of what the controller does in one way only. */
interface CliLife extends Life {
  /** Without the time until it knew that the agent had ended. */
  stopAndRemove: number;
  /** Does not wait until the guard answers. */
  wakeUnguarded: number;
  /** The agent loses its guard while it ends. */
  freezeAtOnce: number;
}

/** A bottle's life with the whole controller against shell scripts that do the same to the same engine, in turns. */
export async function benchDocker(): Promise<Measurement[]> {
  const image = ensureBusyboxImage();
  const installation = await startInstallation({ image });
  const ours: Life[] = [];
  const peer: CliLife[] = [];
  try {
    const around = await cliSurroundings(`${installation.owner}-peer`);
    await ourLife(installation, "warm-up");
    for (let round = 0; round < ROUNDS; round += 1) {
      ours.push(await ourLife(installation, `round-${round}`));
      const bottle = cliBottle(around, image);
      try {
        peer.push(await cliLife(bottle));
      } finally {
        bottle.remove();
      }
    }
  } finally {
    await installation.end();
  }
  const rounds = (of: keyof Life, as: keyof CliLife = of) => ({
    ours: ours.map((life) => life[of]),
    peer: peer.map((life) => life[as]),
  });
  return [
    measured("launch: create to first instruction, ms", rounds("launch"), { atMost: 1.25 }),
    limited("launch, p50, ms", rounds("launch"), { atMost: 1000, unit: "ms" }),
    measured("freeze after a turn: its end to Frozen, ms", rounds("freezeAfterTurn"), { atMost: 1.2 }),
    measured("- against stop and rm alone, ms", rounds("freezeAfterTurn", "stopAndRemove"), { atMost: 1.2 }),
    measured("freeze in a turn: update to Frozen, ms", rounds("freezeInTurn"), { atMost: 1.2 }),
    measured("- against a stop of all three at once, ms", rounds("freezeInTurn", "freezeAtOnce"), { atMost: 1.2 }),
    measured("wake: new turn to first instruction, ms", rounds("wake"), { atMost: 1.2 }),
    measured("- against no wait for the guard, ms", rounds("wake", "wakeUnguarded"), { atMost: 1.2 }),
  ];
}

/** Every request to the engine and every step of one life, with the milliseconds since its part of the life began. */
export async function traceDocker(): Promise<string> {
  const image = ensureBusyboxImage();
  const lines: string[] = [];
  let part = wallMs();
  const trace = (what: string): void => void lines.push(`${(wallMs() - part).toFixed(1).padStart(9)}  ${what}\n`);
  const installation = await startInstallation({ image, trace });
  try {
    await ourLife(installation, "warm-up");
    lines.length = 0;
    await ourLife(installation, "traced", (name) => {
      lines.push(`${name}\n`);
      part = wallMs();
    });
    return lines.join("");
  } finally {
    await installation.end();
  }
}

/** One life under the controller. `trace` is told where its parts begin. */
async function ourLife(
  { store, until }: Installation,
  name: string,
  trace: (what: string) => void = () => {},
): Promise<Life> {
  const turns: Turn[] = [{ id: "1", prompt: "end" }];
  const agent = { provider: { type: "Custom" as const, custom: { command: COMMAND } } };
  trace("launch");
  const createdMs = wallMs();
  await store.create<"Bottle">({
    apiVersion: API_VERSION,
    kind: "Bottle",
    metadata: { name },
    spec: { operatingMode: "Running", agent, turns },
  });
  const frozen = await until(name, isFrozen);
  const first = timesOf(frozen.bottle, "1");

  trace("wake");
  const wokenMs = wallMs();
  await store.update<"Bottle">(withSpec(frozen.bottle, { turns: [...turns, { id: "2", prompt: "work" }] }));
  const woken = await until(name, (bottle) => turnOf(bottle, "2")?.startTime !== undefined);

  trace("freeze in a turn");
  const asked = wallMs();
  await store.update<"Bottle">(withSpec(woken.bottle, { operatingMode: "Frozen" }));
  const stopped = await until(name, isFrozen);
  trace("delete");
  await store.delete("Bottle", { namespace: "default", name });
  await until(name, (bottle) => bottle === undefined);
  return {
    launch: first.startMs - createdMs,
    freezeAfterTurn: frozen.atMs - first.endMs,
    wake: timesOf(woken.bottle, "2").startMs - wokenMs,
    freezeInTurn: stopped.atMs - asked,
  };
}

async function cliLife(bottle: CliBottle): Promise<CliLife> {
  const untilStarted = async (text: string, agent: AgentRun) => {
    const began = wallMs();
    await runScript(text);
    return (await startedMs(bottle.agentName(agent))) - began;
  };
  const ending = agentRun("1", "end");
  const working = agentRun("2", "work");
  const launch = await untilStarted(bottle.launchScript(ending), ending);
  const { freezeAfterTurn, stopAndRemove } = endTimes(await runScript(bottle.endScript(ending)));
  const wake = await untilStarted(bottle.wakeScript(working, { waitsForGuard: true }), working);
  const freezeInTurn = await took(bottle.stopScript(working, { agentFirst: true }));
  const wakeUnguarded = await untilStarted(bottle.wakeScript(working, { waitsForGuard: false }), working);
  const freezeAtOnce = await took(bottle.stopScript(working, { agentFirst: false }));
  return { launch, freezeAfterTurn, stopAndRemove, wake, wakeUnguarded, freezeInTurn, freezeAtOnce };
}

/** As the controller makes it of a custom agent. */
function agentRun(turn: string, prompt: string): AgentRun {
  const env = { BOT_BOTTLE_PROMPT: prompt, BOT_BOTTLE_TURN: turn, BOT_BOTTLE_ATTEMPT: "1" };
  return { turn, attempt: 1, argv: [...COMMAND, prompt], env };
}

async function took(script: string): Promise<number> {
  const began = wallMs();
  await runScript(script);
  return wallMs() - began;
}

/** The script asks for the time of the end between its waiting and its stopping; that question is left out. */
function endTimes(printed: string): Pick<CliLife, "freezeAfterTurn" | "stopAndRemove"> {
  const [finished = "", times = ""] = printed.trim().split("\n");
  const [waited = Number.NaN, began = Number.NaN, ended = Number.NaN] = times.split(" ").map((ns) => Number(ns) / 1e6);
  const stopAndRemove = ended - began;
  return { stopAndRemove, freezeAfterTurn: waited - Date.parse(finished) + stopAndRemove };
}

function isFrozen(bottle: Bottle | undefined): boolean {
  return (
    conditionOf(bottle?.status?.conditions, "Frozen")?.status === "True" &&
    bottle?.status?.observedGeneration === bottle?.metadata.generation
  );
}

function turnOf(bottle: Bottle | undefined, id: string) {
  return bottle?.status?.turns?.find((turn) => turn.id === id);
}

function timesOf(bottle: Bottle | undefined, id: string): { startMs: number; endMs: number } {
  const turn = turnOf(bottle, id);
  return { startMs: Date.parse(turn?.startTime ?? ""), endMs: Date.parse(turn?.completionTime ?? "") };
}

function withSpec(bottle: Bottle | undefined, change: Partial<Bottle["spec"]>): Bottle {
  if (bottle === undefined) throw new Error("the bottle is gone");
  return { ...bottle, spec: { ...bottle.spec, ...change } };
}
