import { once } from "node:events";
import { createServer, type AddressInfo, type Server } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createDialer, type Dialled } from "../../backends/guard/egress/dial.ts";
import { createResolver } from "../../backends/guard/egress/resolve.ts";
import { parseAddress, type Address } from "../../controller/policy/address.ts";
import { parseAuthority, type Destination } from "../../controller/policy/destination.ts";
import { compilePolicy, type CompiledRule } from "../../controller/policy/matcher.ts";
import { startDnsDouble, type DnsDouble } from "../helpers/dns-double.ts";

const HOST_ADDRESS = "203.0.113.9";
let dns: DnsDouble;
let server: Server;
let port: number;

beforeAll(async () => {
  server = createServer((socket) => socket.end("hello"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  port = (server.address() as AddressInfo).port;
  dns = await startDnsDouble({
    records: {
      "public.test": ["198.41.0.4", "2606:4700:4700::1111"],
      "local.test": ["127.0.0.1"],
      "mixed.test": ["198.41.0.4", "10.0.0.5"],
      "mixed-families.test": ["198.41.0.4", "fd00:ec2::254"],
      // The first does not answer to anybody there, the second does.
      "second.test": ["127.0.0.2", "127.0.0.1"],
      "rebinding.test": (n) => (n === 1 ? ["127.0.0.1"] : ["127.0.0.2"]),
      "own.test": [HOST_ADDRESS],
      ...Object.fromEntries(DANGEROUS.map((address, index) => [`dangerous-${index}.test`, [address]])),
    },
  });
});

afterAll(async () => {
  server.close();
  await dns.close();
});

const DANGEROUS = [
  "127.0.0.1",
  "169.254.169.254",
  "100.100.100.200",
  "168.63.129.16",
  "fd00:ec2::254",
  "10.1.2.3",
  "172.16.0.1",
  "192.168.1.1",
  "0.0.0.0",
  "::1",
  "fe80::1",
  "::ffff:127.0.0.1",
  "64:ff9b::a00:1",
];

describe("a dialer", () => {
  it("gives the addresses of a public name", async () => {
    const dialled = await dial("public.test:443", rule());
    expect(dialled.ok && dialled.addresses.map(({ text }) => text).sort()).toEqual([
      "198.41.0.4",
      "2606:4700:4700::1111",
    ]);
  });

  it.each(DANGEROUS.map((address, index) => [address, index] as const))(
    "refuses a name that leads to %s",
    async (_, index) => {
      expect(await dial(`dangerous-${index}.test:443`, rule())).toMatchObject({ ok: false, rule: "address-refused" });
    },
  );

  it.each(["127.0.0.1:80", "[::1]:80", "169.254.169.254:80", "10.0.0.1:80"])(
    "refuses %s itself and asks nobody for it",
    async (text) => {
      const before = dns.queries.length;
      expect(await dial(text, rule())).toMatchObject({ ok: false, rule: "address-refused" });
      expect(dns.queries.length).toBe(before);
    },
  );

  it("refuses a name as a whole if one of its answers is refused", async () => {
    for (const name of ["mixed.test", "mixed-families.test"]) {
      expect(await dial(`${name}:443`, rule())).toMatchObject({ ok: false, rule: "address-refused" });
    }
  });

  it("refuses an address of the machine that the guard runs on, though it is public", async () => {
    expect(await dial("own.test:443", rule())).toMatchObject({ ok: false, rule: "address-refused" });
    expect(await dial("own.test:443", rule([`${HOST_ADDRESS}/32`]))).toMatchObject({ ok: true });
  });

  it("says that a name has no address", async () => {
    const refused = await dial("no-such.test:443", rule());
    expect(refused).toMatchObject({
      ok: false,
      rule: "resolve-failed",
      reason: 'the name "no-such.test" has no address',
    });
  });

  it("dials an address that the rule opens", async () => {
    expect(await read(await dial(`local.test:${port}`, rule(["127.0.0.0/8"])))).toEqual({
      text: "hello",
      from: "127.0.0.1",
    });
  });

  it("tries the next address when one does not answer", async () => {
    const answered = await read(await dial(`second.test:${port}`, rule(["127.0.0.0/8"])));
    expect(answered).toEqual({ text: "hello", from: "127.0.0.1" });
  });

  it("dials what it checked: a name is asked once, and a later answer changes nothing", async () => {
    const before = dns.queries.length;
    const dialled = await dial(`rebinding.test:${port}`, rule(["127.0.0.0/8"]));
    expect(await read(dialled)).toEqual({ text: "hello", from: "127.0.0.1" });
    expect(await read(dialled)).toEqual({ text: "hello", from: "127.0.0.1" });
    const asked = dns.queries.slice(before).map(({ type }) => type);
    expect(asked.sort()).toEqual(["A", "AAAA"]);
  });
});

function dial(text: string, by: CompiledRule): Promise<Dialled> {
  const dialer = createDialer({
    resolver: createResolver({ dns: [dns.address] }),
    hostAddresses: [addressOf(HOST_ADDRESS)],
  });
  return dialer.dial(destination(text), by);
}

async function read(dialled: Dialled): Promise<{ text: string; from: string | undefined }> {
  if (!dialled.ok) throw new Error(dialled.reason);
  const socket = dialled.connect();
  await once(socket, "connect");
  const from = socket.remoteAddress;
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk);
  return { text: Buffer.concat(chunks).toString(), from };
}

function rule(cidrs: readonly string[] = []): CompiledRule {
  const compiled = compilePolicy({
    rules: [
      {
        name: "any",
        host: "any.test",
        ports: [443],
        protocol: "HTTPS",
        action: "Allow",
        cidrs,
        webSocket: false,
        uninspected: "Refuse",
        inject: [],
      },
    ],
    dlp: "Block",
    audit: "Full",
    budget: {},
  });
  const [first] = compiled.ok ? compiled.policy.rules : [];
  if (first === undefined) throw new Error("the rule of the test does not compile");
  return first;
}

function destination(text: string): Destination {
  const parsed = parseAuthority(text);
  if (!parsed.ok) throw new Error(parsed.reason);
  return parsed.destination;
}

function addressOf(text: string): Address {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`"${text}" is no address`);
  return parsed;
}
