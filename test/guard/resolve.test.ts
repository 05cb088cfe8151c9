import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createResolver } from "../../backends/guard/egress/resolve.ts";
import { startDnsDouble, type DnsDouble } from "../helpers/dns-double.ts";

let dns: DnsDouble;

beforeAll(async () => {
  dns = await startDnsDouble({
    records: {
      "both.test": ["192.0.2.1", "2001:db8::1"],
      "four.test": ["192.0.2.4", "192.0.2.5"],
      "many.test": Array.from({ length: 60 }, (_, index) => `198.51.100.${index}`),
      "empty.test": [],
      "turning.test": (n) => [`192.0.2.${n}`],
    },
    failing: ["broken.test"],
    silent: ["silent.test"],
  });
});

afterAll(() => dns.close());

describe("a resolver", () => {
  it("gives every address of both families", async () => {
    const texts = (await resolve("both.test")).map(({ text }) => text);
    expect(texts.sort()).toEqual(["192.0.2.1", "2001:db8::1"]);
    expect((await resolve("four.test")).length).toBe(2);
  });

  it("gives answers too long for one datagram", async () => {
    expect((await resolve("many.test")).length).toBe(60);
  });

  it("tells a name without an address from a server that fails", async () => {
    await expect(resolve("no-such.test")).rejects.toMatchObject({ kind: "NotFound" });
    await expect(resolve("empty.test")).rejects.toMatchObject({ kind: "NotFound" });
    await expect(resolve("broken.test")).rejects.toMatchObject({ kind: "Failed" });
  });

  it("asks anew each time and remembers nothing", async () => {
    expect((await resolve("turning.test")).map(({ text }) => text)).toEqual(["192.0.2.1"]);
    expect((await resolve("turning.test")).map(({ text }) => text)).toEqual(["192.0.2.2"]);
  });

  it("asks for the name as it is, once for each family, and for nothing else", async () => {
    const before = dns.queries.length;
    await resolve("both.test");
    expect(
      dns.queries
        .slice(before)
        .map(({ name, type }) => `${type} ${name}`)
        .sort(),
    ).toEqual(["A both.test", "AAAA both.test"]);
  });

  it("gives up on a server that does not answer, at once if asked to", async () => {
    const stop = new AbortController();
    const lookup = createResolver({ dns: [dns.address] }).resolve("silent.test", stop.signal);
    stop.abort();
    await expect(lookup).rejects.toMatchObject({ kind: "Failed" });
    await expect(resolve("silent.test")).rejects.toMatchObject({ kind: "Failed" });
  }, 20_000);

  it("asks nobody when it is given up before it begins", async () => {
    const before = dns.queries.length;
    const lookup = createResolver({ dns: [dns.address] }).resolve("both.test", AbortSignal.abort());
    await expect(lookup).rejects.toMatchObject({ kind: "Failed" });
    expect(dns.queries.length).toBe(before);
  });

  it("takes names of the hosts file first, unless it is told its servers", async () => {
    const hostsFile = join(await mkdtemp(join(tmpdir(), "hosts-")), "hosts");
    await writeFile(
      hostsFile,
      "# names\n192.0.2.77\tForge.test forge # the forge\n2001:db8::77 forge.test\nnonsense both.test\n",
    );
    const own = await createResolver({ hostsFile }).resolve("forge.test");
    expect(own.map(({ text }) => text)).toEqual(["192.0.2.77", "2001:db8::77"]);
    await expect(createResolver({ hostsFile, dns: [dns.address] }).resolve("forge.test")).rejects.toMatchObject({
      kind: "NotFound",
    });
  });
});

function resolve(host: string): ReturnType<ReturnType<typeof createResolver>["resolve"]> {
  return createResolver({ dns: [dns.address] }).resolve(host);
}
