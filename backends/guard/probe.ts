import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { DOORS } from "./doors.ts";

/** What the agent must not reach: the internet over IPv4 and IPv6, cloud metadata, the host's Docker bridge, a private network. */
const FORBIDDEN: readonly { host: string; port: number; label: string }[] = [
  { host: "1.1.1.1", port: 443, label: "1.1.1.1:443" },
  { host: "169.254.169.254", port: 80, label: "169.254.169.254:80" },
  { host: "172.17.0.1", port: 2375, label: "172.17.0.1:2375" },
  { host: "10.0.0.1", port: 80, label: "10.0.0.1:80" },
  { host: "2606:4700:4700::1111", port: 443, label: "[2606:4700:4700::1111]:443" },
];
/** Errors of a kernel that has no way to the address. ECONNREFUSED is none of them: somebody answered. */
const NO_WAY = new Set(["ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT", "EACCES", "EPERM"]);
const CONNECT_MS_MAX = 2_000;
const GUARD_MS_MAX = 15_000;
const RETRY_MS = 20;
const IFF_UP = 1;

/**
 * Proves from inside the bottle's network namespace that the guard answers and nothing else is in reach. The agent joins the same
 * namespace, so what holds here holds for it. The detail names the failed checks, or what was checked, and is the same on every run.
 */
export async function probeNamespace(): Promise<{ passed: boolean; detail: string }> {
  const checks = await Promise.all([
    ...checkInterfaces(),
    ...FORBIDDEN.map(checkUnreachable),
    checkDatagram("1.1.1.1", 53),
    ...DOORS.map((door) => checkDoor(door.port)),
  ]);
  const failed = checks.filter((check) => check !== undefined);
  if (failed.length > 0) return { passed: false, detail: failed.join("; ") };
  const unreachable = [...FORBIDDEN.map(({ label }) => label), "1.1.1.1:53/udp"].join(", ");
  const doors = DOORS.map(({ port }) => port).join(", ");
  return { passed: true, detail: `loopback only; no route; out of reach: ${unreachable}; guard answers on ${doors}` };
}

/** `undefined` for a check that held, else what was found. */
type Finding = string | undefined;

function checkInterfaces(): Finding[] {
  // The first two lines of this table are headings.
  const devices = lines("/proc/net/dev")
    .slice(2)
    .map((line) => line.slice(0, line.indexOf(":")).trim())
    .filter((name) => name !== "lo" && !isDown(name));
  const addressed = lines("/proc/net/if_inet6")
    .map(lastWord)
    .filter((name) => name !== "lo");
  const routes = [
    ...lines("/proc/net/route")
      .slice(1)
      .map((line) => line.split(/\s+/)[0] ?? ""),
    ...lines("/proc/net/ipv6_route")
      .map(lastWord)
      .filter((name) => name !== "lo"),
  ];
  return [
    finding("interface besides lo", devices),
    finding("IPv6 address on", addressed),
    finding("route through", routes),
  ];
}

function finding(what: string, names: string[]): Finding {
  return names.length === 0 ? undefined : `${what}: ${[...new Set(names)].sort().join(", ")}`;
}

/** Some kernels put tunnel devices (tunl0, sit0, …) into every new namespace. They are down, and raising one takes a capability the agent lacks. */
function isDown(device: string): boolean {
  const [flags] = lines(`/sys/class/net/${device}/flags`);
  return flags !== undefined && (Number(flags) & IFF_UP) === 0;
}

function lastWord(line: string): string {
  return line.trim().split(/\s+/).at(-1) ?? "";
}

/** Lines of a kernel table. A kernel without IPv6 has no IPv6 tables, which proves the same as empty ones. */
function lines(path: string): string[] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line.trim() !== "");
  } catch (error) {
    if (isCode(error, "ENOENT")) return [];
    throw error;
  }
}

function checkUnreachable(target: { host: string; port: number; label: string }): Promise<Finding> {
  return new Promise((resolve) => {
    const socket = connect({ host: target.host, port: target.port });
    const end = (found: Finding) => {
      socket.destroy();
      resolve(found);
    };
    socket.setTimeout(CONNECT_MS_MAX, () => end(`TCP to ${target.label} was not refused at once`));
    socket.once("connect", () => end(`TCP to ${target.label} connected`));
    socket.once("error", (error) => {
      const code = "code" in error ? String(error.code) : "unknown error";
      end(NO_WAY.has(code) ? undefined : `TCP to ${target.label} left the bottle (${code})`);
    });
  });
}

function checkDatagram(host: string, port: number): Promise<Finding> {
  return new Promise((resolve) => {
    const socket = createSocket("udp4");
    const end = (found: Finding) => {
      socket.close();
      resolve(found);
    };
    socket.once("error", () => end(undefined));
    socket.send("probe", port, host, (error) => {
      end(error === null ? `UDP to ${host}:${port} was sent` : undefined);
    });
  });
}

/** Holder and guard start side by side, so the guard may take a moment. Any HTTP answer proves the way through. */
async function checkDoor(port: number): Promise<Finding> {
  const deadline = performance.now() + GUARD_MS_MAX;
  while (performance.now() < deadline) {
    if (await answers(port)) return undefined;
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
  return `guard does not answer on 127.0.0.1:${port}`;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port });
    const end = (answered: boolean) => {
      socket.destroy();
      resolve(answered);
    };
    socket.setTimeout(CONNECT_MS_MAX, () => end(false));
    socket.once("connect", () => socket.write("GET / HTTP/1.1\r\nhost: guard\r\nconnection: close\r\n\r\n"));
    socket.once("data", (chunk) => end(chunk.toString("latin1").startsWith("HTTP/1.1 ")));
    socket.once("error", () => end(false));
    socket.once("close", () => end(false));
  });
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
