import { execFile, spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { BUSYBOX_IMAGE } from "./busybox-image.ts";

const execute = promisify(execFile);
const START_MS = 60_000;

/** A Docker Engine of the test's own, to be stopped and started at will without disturbing anybody. */
export interface OwnEngine {
  /** As DOCKER_HOST. */
  host: string;
  start(): Promise<void>;
  /** As an administrator stops it: its containers end, its state stays. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Starts an engine without networks of its own and gives it the image of test agents. */
export async function ownEngine(): Promise<OwnEngine> {
  const dir = mkdtempSync(join(tmpdir(), "bot-bottle-engine-"));
  const host = `unix://${dir}/docker.sock`;
  let daemon: { child: ChildProcess; ended: Promise<void> } | undefined;
  const engine: OwnEngine = {
    host,
    async start() {
      daemon = startDaemon(dir, host);
      await untilAnswers(host, daemon.ended);
    },
    async stop() {
      daemon?.child.kill("SIGTERM");
      await daemon?.ended;
      daemon = undefined;
    },
    async [Symbol.asyncDispose]() {
      await engine.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
  mkdirSync(join(dir, "data"));
  await engine.start();
  await execute("sh", ["-c", `docker save ${BUSYBOX_IMAGE} | docker -H '${host}' load`]);
  return engine;
}

function startDaemon(dir: string, host: string): { child: ChildProcess; ended: Promise<void> } {
  const paths = { "data-root": "data", "exec-root": "exec", pidfile: "docker.pid" };
  const places = Object.entries(paths).flatMap(([option, name]) => [`--${option}`, join(dir, name)]);
  const args = [...places, "--host", host, "--bridge", "none", "--iptables=false", "--log-level", "error"];
  // In a network namespace of its own: an engine without a bridge removes docker0, and that belongs to the machine's own engine.
  const child = spawn("unshare", ["--net", "dockerd", ...args], { stdio: "ignore" });
  return { child, ended: new Promise((resolve) => child.once("close", () => resolve())) };
}

async function untilAnswers(host: string, ended: Promise<void>): Promise<void> {
  let isOver = false;
  void ended.then(() => (isOver = true));
  const deadline = Date.now() + START_MS;
  for (;;) {
    try {
      await execute("docker", ["-H", host, "info"], { timeout: 5_000 });
      return;
    } catch (error) {
      if (isOver || Date.now() > deadline) throw error;
    }
  }
}
