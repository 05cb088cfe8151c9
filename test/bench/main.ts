import { execFileSync } from "node:child_process";
import { availableParallelism, loadavg } from "node:os";
import { benchDocker, traceDocker } from "./docker.ts";
import { benchEgress } from "./egress.ts";
import { benchGuard } from "./guard.ts";
import type { Measurement } from "./measurement.ts";
import { benchObserve } from "./observe.ts";
import { benchResync } from "./resync.ts";
import { benchSoak } from "./soak.ts";
import { benchStore } from "./store.ts";
import { table } from "./table.ts";

const BENCHES: Readonly<Record<string, () => Promise<Measurement[]>>> = {
  store: benchStore,
  resync: benchResync,
  docker: benchDocker,
  observe: benchObserve,
  guard: benchGuard,
  egress: benchEgress,
  soak: benchSoak,
};

/** Runs the benches that are named, or all, one after the other, and prints one table. `trace` prints where the time of one bottle goes instead. */
async function run(names: readonly string[]): Promise<void> {
  if (names[0] === "trace") {
    process.stdout.write(await traceDocker());
    return;
  }
  const unknown = names.filter((name) => BENCHES[name] === undefined);
  if (unknown.length > 0) {
    throw new Error(`no bench "${unknown.join('", "')}": choose from ${Object.keys(BENCHES).join(", ")}, trace`);
  }
  const before = loadText();
  const rows: Measurement[] = [];
  for (const name of names.length > 0 ? names : Object.keys(BENCHES)) {
    process.stderr.write(`bench ${name} …\n`);
    rows.push(...((await BENCHES[name]?.()) ?? []));
  }
  process.stdout.write(`${table(rows)}\n${machine()}, load ${before} before and ${loadText()} after\n`);
}

function machine(): string {
  return `${availableParallelism()} cores, Node ${process.version}, Docker ${dockerVersion()}`;
}

function dockerVersion(): string {
  try {
    const stdio: ["ignore", "pipe", "ignore"] = ["ignore", "pipe", "ignore"];
    return execFileSync("docker", ["version", "--format", "{{.Server.Version}}"], { encoding: "utf8", stdio }).trim();
  } catch {
    return "none";
  }
}

function loadText(): string {
  return loadavg()[0]?.toFixed(1) ?? "";
}

try {
  await run(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
