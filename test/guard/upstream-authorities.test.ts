import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { startDnsDouble } from "../helpers/dns-double.ts";
import { guardConfig, rule, startGuardProgram } from "../helpers/guard-program.ts";
import { exchange, rawConnect, rawTls, statusOf } from "../helpers/raw-http.ts";
import { createTestAuthority } from "../helpers/test-certificates.ts";
import { startUpstream } from "../helpers/upstreams.ts";

it("a guard that was given authorities still believes those of NODE_EXTRA_CA_CERTS", async () => {
  const [given, extra, stranger] = await Promise.all([
    createTestAuthority(),
    createTestAuthority(),
    createTestAuthority(),
  ]);
  const dir = mkdtempSync(join(tmpdir(), "bb-authorities-"));
  try {
    const file = join(dir, "extra.pem");
    writeFileSync(file, extra.certificate);
    await using dns = await disposable(await startDnsDouble({ records: { "a.test": ["127.0.0.1"] } }));
    const env = { NODE_EXTRA_CA_CERTS: file };
    await using guard = await startGuardProgram({ dns: dns.address, upstreamCa: given.certificate, env });
    const statuses: number[] = [];
    for (const authority of [given, extra, stranger]) {
      await using upstream = await startUpstream({ tls: await authority.issue({ hosts: ["a.test"] }) });
      const rules = [rule({ name: "a", host: "a.test", ports: [upstream.port] })];
      await guard.configure(guardConfig({ token: guard.token, policy: { rules } }));
      const login = { authority: `a.test:${upstream.port}`, credentials: `bottle:${guard.token}` };
      const { socket } = await rawConnect(guard.port, login);
      const tls = await rawTls(socket, { serverName: "a.test" });
      if (tls === undefined) throw new Error("no TLS with the guard");
      const request = `GET / HTTP/1.1\r\nHost: ${login.authority}\r\nConnection: close\r\n\r\n`;
      statuses.push(statusOf(await exchange(tls, request)));
      socket.destroy();
    }

    expect(statuses).toEqual([200, 200, 502]);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

async function disposable<T extends { close(): Promise<unknown> }>(part: T): Promise<T & AsyncDisposable> {
  return Object.assign(part, { [Symbol.asyncDispose]: async () => void (await part.close()) });
}
