import { afterAll, beforeAll, beforeEach, expect } from "vitest";
import type { GuardConfig, GuardPolicy } from "../../controller/ports/guard.ts";
import { exchange, rawConnect, rawTls, statusOf } from "../helpers/raw-http.ts";
import { startWorld, type World } from "../helpers/world.ts";

/** Stands for a credential of the operator: it must be in nothing that the agent can see, and at no host but its own. */
export const CANARY = "canary-credential-7f3a9c51d2e84b60";
/** One with characters that forms, JSON and URLs write differently. */
export const ODD_CANARY = 'odd "canary" of p@ss/words + 100%';
export const PLACEHOLDER = "placeholder-5d1c0b7e9a2f4c83";

/** What became of one try. `connect` 0: closed without a word. Without `status` it ended before a request was answered. */
export interface Outcome {
  connect: number;
  status?: number;
  rule?: string;
  text: string;
}

export interface Attempt {
  /** As it stands in CONNECT. */
  authority: string;
  /** `false`: none is sent. Absent: the host of the authority. */
  serverName?: string | false;
  /** The request inside. Absent: a GET to the authority. */
  request?: string;
  credentials?: string;
}

/** Names that all lead to the sink: whatever reaches it, reached the outside. */
const HOSTS = [
  "allowed.test",
  "bound.test",
  "other.test",
  "api.allowed.test",
  "pinned.test",
  "evil.test",
  "allowed.test.evil.test",
  "evilallowed.test",
];

/** Hosts of other addresses, by what their names answer. */
const RECORDS = {
  "loopback.test": ["127.0.0.1"],
  "metadata.test": ["169.254.169.254"],
  "alibaba.test": ["100.100.100.200"],
  "azure.test": ["168.63.129.16"],
  "aws6.test": ["fd00:ec2::254"],
  "private.test": ["10.0.0.5"],
  "zero.test": ["0.0.0.0"],
  "mapped.test": ["::ffff:127.0.0.1"],
  "mixed.test": ["127.0.0.1", "10.0.0.5"],
};
export const REBINDING = Object.keys(RECORDS);

function rebinding(n: number): string[] {
  return n === 1 ? ["127.0.0.1"] : ["10.0.0.5"];
}

/** `allowed.test` and `other.test` are open, `bound.test` is open with a credential; the rest is not. */
function escapeWorld(): Promise<World> {
  return startWorld({ hosts: HOSTS, records: { ...RECORDS, "rebind.test": rebinding } });
}

export function escapeSettings(
  world: World,
  policy: Partial<GuardPolicy> = {},
): Partial<Omit<GuardConfig, "policy">> & { policy: Partial<GuardPolicy> } {
  const inject = [
    { header: "authorization", valueTemplate: "Bearer {value}", secret: "canary/key" },
    { header: "x-api-key", valueTemplate: "{value}", secret: "canary/key" },
  ];
  const rules = [
    world.rule({ name: "allowed", host: "allowed.test" }),
    world.rule({ name: "other", host: "other.test" }),
    world.rule({ name: "bound", host: "bound.test", webSocket: true, inject }),
    world.rule({
      name: "api",
      host: "api.allowed.test",
      methods: ["GET", "POST"],
      paths: [{ type: "Prefix", value: "/repos/x" }],
    }),
    world.rule({ name: "pinned", host: "pinned.test", protocol: "TLS" }),
    world.rule({ name: "rebind", host: "rebind.test" }),
    world.rule({ name: "mixed", host: "mixed.test" }),
    ...REBINDING.filter((host) => host !== "mixed.test").map((host, n) =>
      world.rule({ name: `rebinding-${n}`, host, cidrs: [] }),
    ),
  ];
  return {
    secrets: { "canary/key": CANARY, "canary/odd": ODD_CANARY },
    placeholders: { "canary/key": PLACEHOLDER },
    policy: { rules, ...policy },
  };
}

/** The world of one test file. Each test begins with the settings of `escapeSettings` and a sink that has seen nothing. */
export function useEscapeWorld(): { world(): World; expectNothingLeft(): void; at(host: string): string } {
  const state: { world?: World; connections: number } = { connections: 0 };
  const world = (): World => {
    if (state.world === undefined) throw new Error("the world was not made");
    return state.world;
  };
  beforeAll(async () => {
    state.world = await escapeWorld();
  });
  afterAll(async () => {
    await state.world?.[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    await world().configure(escapeSettings(world()));
    world().upstream.seen.length = 0;
    world().dns.queries.length = 0;
    state.connections = world().upstream.connections();
  });
  return {
    world,
    /** Not even a connection reached the sink. */
    expectNothingLeft() {
      expect(world().upstream.seen).toEqual([]);
      expect(world().upstream.connections()).toBe(state.connections);
    },
    at: (host) => `${host}:${world().upstream.port}`,
  };
}

/** One tunnel and one request through it, as an agent that speaks HTTP/1.1 by hand would make it. */
export async function attempt(
  world: World,
  { authority, serverName, request, credentials }: Attempt,
): Promise<Outcome> {
  const { guard } = world;
  const login = credentials ?? `bottle:${guard.token}`;
  const { status, socket, text } = await rawConnect(guard.port, { authority, credentials: login });
  try {
    if (status !== 200) return { connect: status, text, ...ruleOf(text) };
    const host = authority.slice(0, authority.lastIndexOf(":"));
    const name = serverName === false ? undefined : (serverName ?? host);
    const tls = await rawTls(socket, name === undefined ? {} : { serverName: name });
    if (tls === undefined) return { connect: status, text };
    const answer = await exchange(tls, request ?? get(authority));
    return { connect: status, status: statusOf(answer), text: answer, ...ruleOf(answer) };
  } finally {
    socket.destroy();
  }
}

export function get(host: string, path = "/", headers: readonly string[] = []): string {
  return [`GET ${path} HTTP/1.1`, `Host: ${host}`, ...headers, "Connection: close", "", ""].join("\r\n");
}

export function post(host: string, path: string, body: string, headers: readonly string[] = []): string {
  const length = `Content-Length: ${Buffer.byteLength(body, "latin1")}`;
  return [`POST ${path} HTTP/1.1`, `Host: ${host}`, length, ...headers, "Connection: close", "", body].join("\r\n");
}

/** Whether anything came back that a server outside may have sent. */
export function isRefused({ connect, status }: Outcome): boolean {
  return connect !== 200 || status === undefined || status === 0 || status >= 400;
}

function ruleOf(text: string): { rule?: string } {
  const rule = /"rule":"([^"]*)"/.exec(text)?.[1];
  return rule === undefined ? {} : { rule };
}
