import { createSocket } from "node:dgram";
import { promises } from "node:dns";
import { connect, isIPv6 } from "node:net";
import { DOORS, type Door } from "./doors.ts";
import { checkInterfaces, type Finding } from "./probe-interfaces.ts";

interface Target {
  host: string;
  port: number;
}

/** What the agent must not reach: the internet over IPv4 and IPv6, cloud metadata, name servers, the host's Docker bridge, a private network. */
const FORBIDDEN: readonly Target[] = [
  { host: "1.1.1.1", port: 443 },
  { host: "8.8.8.8", port: 53 },
  { host: "169.254.169.254", port: 80 },
  { host: "100.100.100.200", port: 80 },
  { host: "168.63.129.16", port: 80 },
  { host: "172.17.0.1", port: 2375 },
  { host: "10.0.0.1", port: 80 },
  { host: "2606:4700:4700::1111", port: 443 },
  { host: "fd00:ec2::254", port: 80 },
];
/** Single addresses, then everybody on the link: those need no route of their own on a host that is set up badly. */
const FORBIDDEN_DATAGRAMS: readonly Target[] = [
  { host: "1.1.1.1", port: 53 },
  { host: "8.8.8.8", port: 53 },
  { host: "255.255.255.255", port: 9 },
  { host: "224.0.0.251", port: 5353 },
  { host: "ff02::1", port: 9 },
];
/** Where an engine may put a name server of its own, inside the namespace: there loopback itself leads out. */
const INNER_NAME_SERVER: Target = { host: "127.0.0.11", port: 53 };
/** On the host's addresses: its shell, web servers, Docker, the Kubernetes API. */
const HOST_PORTS: readonly number[] = [22, 80, 443, 2375, 6443];
/** No name server knows it, and no search list makes it another one: an answer, even that there is none, proves that one was asked. */
const UNKNOWN_NAME = "bottle-probe.invalid.";
/** Errors of a kernel that has no way to the address. ECONNREFUSED is none of them: somebody answered. */
const NO_WAY = new Set(["ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT", "EACCES", "EPERM"]);
/** Errors of a query that no name server has seen. */
const UNASKED = new Set(["ECONNREFUSED", "ENOSERVER"]);
const CONNECT_MS_MAX = 2_000;
const GUARD_MS_MAX = 15_000;
const RETRY_MS = 20;

/**
 * Proves from inside the bottle's network namespace that the guard answers and nothing else is in reach. The agent joins the same
 * namespace, so what holds here holds for it. The detail names the failed checks, or what was checked, and is the same on every run.
 */
export async function probeNamespace(options: {
  hostAddresses: readonly string[];
  doors?: readonly Door[];
}): Promise<{ passed: boolean; detail: string }> {
  const doors = options.doors ?? DOORS;
  const hosts = options.hostAddresses.filter((address) => !/^127\.|^::1$/.test(address));
  const hostTargets = hosts.flatMap((host) => HOST_PORTS.map((port) => ({ host, port })));
  const checks = await Promise.all([
    ...checkInterfaces(),
    ...[...FORBIDDEN, ...hostTargets].map((target) => checkUnreachable(target)),
    ...FORBIDDEN_DATAGRAMS.map(checkDatagram),
    checkNobody(INNER_NAME_SERVER),
    checkNames(),
    ...doors.map((door) => checkDoor(door.port)),
  ]);
  const failed = checks.filter((check) => check !== undefined);
  if (failed.length > 0) return { passed: false, detail: failed.join("; ") };
  return { passed: true, detail: [...outOfReach(hosts.length > 0), answering(doors)].join("; ") };
}

function outOfReach(hosts: boolean): string[] {
  const unreachable = [
    ...FORBIDDEN.map(label),
    ...FORBIDDEN_DATAGRAMS.map((target) => `${label(target)}/udp`),
    ...(hosts ? [`the host's addresses on ports ${HOST_PORTS.join(", ")}`] : []),
  ];
  return ["loopback only", "no route", `out of reach: ${unreachable.join(", ")}`, "no name server"];
}

function answering(doors: readonly Door[]): string {
  return `guard answers on ${doors.map(({ port }) => port).join(", ")}`;
}

function label({ host, port }: Target): string {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}`;
}

function checkUnreachable(target: Target, sealed: ReadonlySet<string> = NO_WAY): Promise<Finding> {
  return new Promise((resolve) => {
    const socket = connect(target);
    const end = (found: Finding) => {
      socket.destroy();
      resolve(found);
    };
    socket.setTimeout(CONNECT_MS_MAX, () => end(`TCP to ${label(target)} was not refused at once`));
    socket.once("connect", () => end(`TCP to ${label(target)} connected`));
    socket.once("error", (error) => {
      const code = codeOf(error);
      end(sealed.has(code) ? undefined : `TCP to ${label(target)} left the bottle (${code})`);
    });
  });
}

function checkDatagram(target: Target): Promise<Finding> {
  return new Promise((resolve) => {
    const socket = createSocket(isIPv6(target.host) ? "udp6" : "udp4");
    const end = (error: unknown) => {
      socket.close();
      const code = codeOf(error);
      if (error === null) resolve(`UDP to ${label(target)} was sent`);
      else resolve(NO_WAY.has(code) ? undefined : `UDP to ${label(target)} left the bottle (${code})`);
    };
    socket.once("error", end);
    socket.bind(0, () => {
      // Without this the kernel refuses such an address to everybody, and the check would prove nothing.
      socket.setBroadcast(true);
      socket.send("probe", target.port, target.host, end);
    });
  });
}

/** On loopback a refusal is what a port without a listener answers. */
async function checkNobody(target: Target): Promise<Finding> {
  const refused = new Set([...NO_WAY, "ECONNREFUSED"]);
  const socket = createSocket("udp4");
  const datagram = new Promise<Finding>((resolve) => {
    const late = setTimeout(() => end(`UDP to ${label(target)} was taken`), CONNECT_MS_MAX);
    const end = (found: Finding) => {
      clearTimeout(late);
      resolve(found);
    };
    socket.once("message", () => end(`UDP to ${label(target)} was answered`));
    socket.on("error", (error) => {
      end(refused.has(codeOf(error)) ? undefined : `UDP to ${label(target)} failed oddly (${codeOf(error)})`);
    });
    socket.connect(target.port, target.host, () => socket.send("probe"));
  }).finally(() => socket.close());
  const found = await Promise.all([datagram, checkUnreachable(target, refused)]);
  return found.find((one) => one !== undefined);
}

/** Asks the name servers that this namespace was given, whatever they are. */
async function checkNames(): Promise<Finding> {
  const resolver = new promises.Resolver({ timeout: CONNECT_MS_MAX, tries: 1 });
  try {
    await resolver.resolve4(UNKNOWN_NAME);
    return "a name server answered";
  } catch (error) {
    return UNASKED.has(codeOf(error)) ? undefined : `a name server was asked (${codeOf(error)})`;
  }
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

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "unknown error";
}
