import { PassThrough } from "node:stream";
import type { Blueprint, ExecRequest, ExecSession } from "../../controller/ports/backend.ts";
import { BackendError } from "../../controller/ports/backend.ts";
import { diskNames, find, identityOf, own, unitName, unless, type FakeContext } from "./context.ts";
import { changeAfter } from "./logs.ts";

/** Runs a command as a unit of its own beside the agent, and removes the unit when the command has ended. */
export async function openSession(
  context: FakeContext,
  blueprint: Blueprint,
  options: { request: ExecRequest; signal?: AbortSignal },
): Promise<ExecSession> {
  const { uid } = blueprint;
  const engine = context.engine(options.signal);
  const listing = await own(context, uid, options.signal);
  for (const role of ["holder", "guard"] as const) {
    if (find(listing, unitName(uid, role))?.state === "running") continue;
    const what = `cannot run "${options.request.argv[0] ?? ""}" in bottle "${blueprint.name}"`;
    throw new BackendError("Unavailable", "BottleNotRunning", `${what}: its ${role} does not run: wake the bottle`);
  }
  const id = await engine.createContainer({
    ...identityOf(blueprint),
    engineName: `bot-bottle-${uid}-session-${context.world.nextId()}`,
    owner: context.owner,
    role: "session",
    specHash: blueprint.specHash,
    argv: options.request.argv,
    env: blueprint.env,
    tty: options.request.tty,
    joins: find(listing, unitName(uid, "holder"))?.id,
    volumes: diskNames(uid),
  });
  try {
    await engine.startContainer(uid, id);
  } catch (error) {
    await unless("NotFound", engine.removeContainer(uid, id));
    throw error;
  }
  return attach(context, { uid, id });
}

/** The session outlives the verb that opened it, and so is not bound to its signal. */
function attach(context: FakeContext, unit: { uid: string; id: string }): ExecSession {
  const { world } = context;
  const engine = context.engine();
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const container = world.containers.get(unit.id);
  if (container?.echo === true) {
    stdin.on("data", (chunk: Uint8Array) => world.write(container, chunk));
    stdin.on("end", () => {
      if (container.state === "running") world.finish(container, { code: 0, oom: false });
    });
  } else {
    stdin.resume();
  }
  return {
    stdin,
    stdout,
    stderr,
    resize: async () => {},
    exit: pump(context, unit, [stdout, stderr]),
    kill: () => unless("NotFound", engine.stopContainer(unit.uid, unit.id, { code: 137, oom: false })),
  };
}

async function pump(
  context: FakeContext,
  unit: { uid: string; id: string },
  outputs: readonly [PassThrough, PassThrough],
): Promise<number> {
  const engine = context.engine();
  const container = context.world.containers.get(unit.id);
  try {
    let next = 0;
    for (;;) {
      const seen = context.world.version;
      const { chunks, ended } = await engine.readLogs(unit.uid, unit.id, next);
      for (const chunk of chunks) outputs[0].write(chunk);
      next += chunks.length;
      if (ended) break;
      await changeAfter(context.world, seen);
    }
  } finally {
    for (const output of outputs) output.end();
  }
  await unless("NotFound", engine.removeContainer(unit.uid, unit.id));
  return container?.exit?.code ?? 137;
}
