import { randomBytes } from "node:crypto";
import { PassThrough, Writable, type Duplex } from "node:stream";
import {
  BackendError,
  HOME,
  type Blueprint,
  type ExecRequest,
  type ExecSession,
} from "../../controller/ports/backend.ts";
import { listUnits, surroundings, type Context } from "./context.ts";
import { demultiplex } from "./demultiplex.ts";
import { isKind, orAbsent } from "./errors.ts";
import { namingImage } from "./image.ts";
import { sessionName } from "./names.ts";
import { openDuplex, openStream } from "./raw.ts";
import { removeContainer } from "./remove.ts";
import { AGENT_GID, AGENT_UID, sessionSpec } from "./specs.ts";

const EXIT_MS_MAX = 10_000;
const EXIT_POLL_MS = 10;
const KILLED = 137;

/** Inside the running agent's container, else in a session container of its own while holder and guard run. */
export async function exec(
  context: Context,
  blueprint: Blueprint,
  request: ExecRequest,
  signal?: AbortSignal,
): Promise<ExecSession> {
  const units = await listUnits(context, blueprint.uid, signal);
  const running = (role: string) => units.find(({ facts, state }) => facts.role === role && state === "running");
  if (running("holder") === undefined || running("guard") === undefined) {
    throw new BackendError(
      "Unavailable",
      "BottleNotRunning",
      `bottle "${blueprint.name}" is not running: give it a turn, or set lifecycle.afterTurn: Keep so that it stays up between turns`,
    );
  }
  const agent = running("agent");
  if (agent === undefined) return execInSession(context, blueprint, request, signal);
  return execInAgent(context, agent.id, { blueprint, request }, signal);
}

/**
 * The engine cannot end a command it started this way. `kill` closes its streams, which ends a shell or whatever reads or writes them; a
 * command that does neither ends with the agent's container at the latest.
 */
async function execInAgent(
  context: Context,
  agentId: string,
  { blueprint, request }: { blueprint: Blueprint; request: ExecRequest },
  signal?: AbortSignal,
): Promise<ExecSession> {
  const { docker, call } = context.engine;
  const env = Object.entries({ HOME, ...blueprint.env }).map(([name, value]) => `${name}=${value}`);
  const created = await call(
    "exec.create",
    (abortSignal) =>
      docker.getContainer(agentId).exec({
        Cmd: [...request.argv],
        Env: env,
        User: `${AGENT_UID}:${AGENT_GID}`,
        AttachStdin: true,
        AttachStdout: true,
        AttachStderr: true,
        Tty: request.tty,
        abortSignal,
      }),
    { signal, subject: agentId },
  );
  const duplex = await call(
    "exec.start",
    () => created.start({ hijack: true, stdin: true, Tty: request.tty, Detach: false }),
    { signal, subject: agentId },
  );
  const state = { killed: false };
  const kill = async () => {
    state.killed = true;
    duplex.destroy();
  };
  const exitCode = async () => {
    const deadline = performance.now() + EXIT_MS_MAX;
    for (;;) {
      const found = await call("exec.inspect", () => created.inspect(), { subject: agentId });
      if (found.ExitCode !== null && !found.Running) return found.ExitCode;
      if (state.killed || performance.now() > deadline) return KILLED;
      await new Promise((resolve) => setTimeout(resolve, EXIT_POLL_MS));
    }
  };
  const resize = async ({ columns, rows }: { columns: number; rows: number }) => {
    await call("exec.resize", () => created.resize({ w: columns, h: rows }), { subject: agentId });
  };
  return openSession(request, duplex, { exitCode, resize, kill }, signal);
}

async function execInSession(
  context: Context,
  blueprint: Blueprint,
  request: ExecRequest,
  signal?: AbortSignal,
): Promise<ExecSession> {
  const { engine } = context;
  const { docker, call } = engine;
  const name = sessionName(blueprint.uid, randomBytes(6).toString("hex"));
  const spec = sessionSpec(blueprint, { name, ...request }, await surroundings(context));
  const options = { signal, subject: name };
  try {
    await call("container.create:session", (abortSignal) => docker.createContainer({ ...spec, abortSignal }), options);
  } catch (error) {
    throw namingImage(error, blueprint.image ?? "");
  }
  try {
    const attach = `/containers/${name}/attach?stream=1&stdin=1&stdout=1&stderr=1`;
    const duplex = await call(
      "container.attach:session",
      (abortSignal) => openDuplex(engine, { path: attach, method: "POST" }, abortSignal),
      options,
    );
    // Accepted before the start: a wait that begins after a quick command has ended would wait for ever.
    const waiting = await call(
      "container.wait:session",
      (abortSignal) =>
        openStream(engine, { path: `/containers/${name}/wait?condition=next-exit`, method: "POST" }, abortSignal),
      options,
    );
    await call("container.start:session", (abortSignal) => docker.getContainer(name).start({ abortSignal }), options);
    const resize = async ({ columns, rows }: { columns: number; rows: number }) => {
      await call("container.resize:session", () => docker.getContainer(name).resize({ w: columns, h: rows }), options);
    };
    const kill = async () => {
      try {
        await orAbsent(call("container.kill:session", () => docker.getContainer(name).kill(), { subject: name }));
      } catch (error) {
        if (!isKind(error, "Conflict")) throw error;
      }
    };
    return await openSession(request, duplex, { exitCode: () => readWait(waiting), resize, kill }, signal);
  } catch (error) {
    await removeContainer(context, name, "session");
    throw error;
  }
}

async function readWait(waiting: AsyncIterable<unknown>): Promise<number> {
  let text = "";
  for await (const chunk of waiting) text += String(chunk);
  const { StatusCode }: { StatusCode: number } = JSON.parse(text);
  return StatusCode;
}

interface Controls {
  /** Called once the output has ended. */
  exitCode(): Promise<number>;
  resize(size: { columns: number; rows: number }): Promise<void>;
  kill(): Promise<void>;
}

async function openSession(
  request: ExecRequest,
  duplex: Duplex,
  controls: Controls,
  signal?: AbortSignal,
): Promise<ExecSession> {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const abort = () => void controls.kill().catch(() => duplex.destroy());
  signal?.addEventListener("abort", abort, { once: true });
  const exit = (async () => {
    await pump(duplex, request.tty, { stdout, stderr });
    signal?.removeEventListener("abort", abort);
    return controls.exitCode();
  })();
  // Whoever only reads the output need not look at the exit code.
  exit.catch(() => {});
  if (request.size !== undefined && request.tty) await controls.resize(request.size).catch(() => {});
  return { stdin: toStdin(duplex), stdout, stderr, resize: controls.resize, exit, kill: controls.kill };
}

/** A connection that breaks is the end of the output; the exit code tells what happened. */
async function pump(duplex: Duplex, tty: boolean, out: { stdout: PassThrough; stderr: PassThrough }): Promise<void> {
  try {
    if (tty) {
      for await (const chunk of duplex) await push(out.stdout, chunk);
    } else {
      for await (const frame of demultiplex(duplex)) await push(out[frame.stream], frame.data);
    }
  } catch {
    // Ended below, as any other end.
  }
  out.stdout.end();
  out.stderr.end();
  duplex.destroy();
}

function push(stream: PassThrough, chunk: unknown): Promise<void> | undefined {
  if (stream.destroyed || stream.write(chunk)) return undefined;
  return new Promise((resolve) => {
    const end = () => {
      stream.off("drain", end);
      stream.off("close", end);
      resolve();
    };
    stream.on("drain", end);
    stream.on("close", end);
  });
}

/** Ending it closes the command's input and leaves its output open. */
function toStdin(duplex: Duplex): Writable {
  const stdin = new Writable({
    write: (chunk, _encoding, done) => void duplex.write(chunk, done),
    final: (done) => void duplex.end(done),
  });
  // Input that comes after the command has ended is nobody's fault.
  stdin.on("error", () => {});
  duplex.on("error", () => stdin.destroy());
  return stdin;
}
