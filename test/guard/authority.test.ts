import { execFileSync, spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkServerIdentity, connect, createServer } from "node:tls";
import { describe, expect, it } from "vitest";
import { createAuthority, type Leaf } from "../../backends/guard/authority.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const openssl = spawnSync("openssl", ["version"]).status === 0;

function runOpenssl(...args: string[]): string {
  return execFileSync("openssl", args, { encoding: "utf8" });
}

/** What a client says who trusts the authority and asks for `host`. */
async function handshake(
  certificate: string,
  leaf: Leaf,
  host: string,
): Promise<{ authorized: boolean; error: string }> {
  const server = createServer({ key: leaf.key, cert: leaf.cert }, (socket) => socket.end());
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    return await new Promise((resolve) => {
      const socket = connect({
        port: (server.address() as AddressInfo).port,
        host: "127.0.0.1",
        servername: "",
        ca: certificate,
        checkServerIdentity: (_name, peer) => checkServerIdentity(host, peer),
      });
      socket.on("secureConnect", () => {
        resolve({ authorized: socket.authorized, error: "" });
        socket.destroy();
      });
      socket.on("error", (error) => resolve({ authorized: false, error: error.message }));
    });
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
}

describe("authority", () => {
  it("is a certificate authority of its own, for 30 days, that makes no further authorities", async () => {
    const nowMs = Date.now();
    const [one, other] = await Promise.all([
      createAuthority({ now: () => nowMs }),
      createAuthority({ now: () => nowMs }),
    ]);
    const certificate = new X509Certificate(one.certificate);

    expect(certificate.ca).toBe(true);
    expect(certificate.verify(certificate.publicKey)).toBe(true);
    expect(certificate.subject).toMatch(/^CN=bot-bottle [0-9a-f]{8}$/);
    expect(certificate.subject).not.toBe(new X509Certificate(other.certificate).subject);
    expect(certificate.publicKey.asymmetricKeyDetails).toEqual({ namedCurve: "prime256v1" });
    expect(new Date(certificate.validTo).getTime() - nowMs).toBeGreaterThan(30 * DAY_MS - 1_000);
    expect(new Date(certificate.validTo).getTime() - nowMs).toBeLessThanOrEqual(30 * DAY_MS);
  });

  it("a client that trusts it accepts its leaves, for names and addresses, and for no other host", async () => {
    const authority = await createAuthority({ now: Date.now });

    for (const host of ["api.example", "127.0.0.1", "2001:db8::5", `${"long-label-of-a-host.".repeat(6)}example`]) {
      const leaf = await authority.leaf(host);
      expect(await handshake(authority.certificate, leaf, host), host).toEqual({ authorized: true, error: "" });
      expect((await handshake(authority.certificate, leaf, "other.example")).authorized).toBe(false);
    }
  });

  it("a client that trusts another bottle's authority refuses it", async () => {
    const [mine, other] = await Promise.all([createAuthority({ now: Date.now }), createAuthority({ now: Date.now })]);

    const answer = await handshake(other.certificate, await mine.leaf("api.example"), "api.example");

    expect(answer.authorized).toBe(false);
  });

  it("a leaf is for a server only, lasts 7 days and allows for a clock that is an hour behind", async () => {
    const nowMs = Date.now();
    const authority = await createAuthority({ now: () => nowMs });
    const leaf = new X509Certificate((await authority.leaf("api.example")).cert);

    expect(leaf.ca).toBe(false);
    expect(leaf.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
    expect(leaf.subjectAltName).toBe("DNS:api.example");
    expect(leaf.checkIssued(new X509Certificate(authority.certificate))).toBe(true);
    expect(Math.abs(new Date(leaf.validFrom).getTime() - (nowMs - HOUR_MS))).toBeLessThan(1_000);
    expect(Math.abs(new Date(leaf.validTo).getTime() - (nowMs + 7 * DAY_MS))).toBeLessThan(1_000);
  });

  it("leaves of one process share a key and no serial number", async () => {
    const authority = await createAuthority({ now: Date.now });

    const [one, other] = await Promise.all([authority.leaf("one.example"), authority.leaf("other.example")]);

    expect(one.key).toBe(other.key);
    expect(new X509Certificate(one.cert).serialNumber).not.toBe(new X509Certificate(other.cert).serialNumber);
  });

  it("a leaf is made once, until an hour before its end", async () => {
    let nowMs = Date.now();
    const authority = await createAuthority({ now: () => nowMs });
    const [first, again] = await Promise.all([authority.leaf("api.example"), authority.leaf("api.example")]);
    expect(again).toBe(first);

    nowMs += 7 * DAY_MS - HOUR_MS - 1;
    expect(await authority.leaf("api.example")).toBe(first);
    nowMs += 1;
    expect(await authority.leaf("api.example")).not.toBe(first);
  });

  it("no leaf outlives the authority, and after its end there is none", async () => {
    const startMs = Date.now();
    let nowMs = startMs;
    const authority = await createAuthority({ now: () => nowMs });
    const end = new Date(new X509Certificate(authority.certificate).validTo).getTime();

    nowMs = startMs + 29 * DAY_MS;
    const leaf = await authority.leaf("api.example");
    expect(new Date(new X509Certificate(leaf.cert).validTo).getTime()).toBeLessThanOrEqual(end);
    nowMs = startMs + 30 * DAY_MS - 1;
    expect(await authority.leaf("api.example")).toBe(leaf);

    nowMs = startMs + 30 * DAY_MS;
    await expect(authority.leaf("api.example")).rejects.toThrow(/has ended/);
  });

  it("of more than 256 hosts the one that was not asked for longest is forgotten", async () => {
    const authority = await createAuthority({ now: Date.now });
    const first = await authority.leaf("host-0.example");
    const second = await authority.leaf("host-1.example");
    for (let n = 2; n < 256; n += 1) await authority.leaf(`host-${n}.example`);
    expect(await authority.leaf("host-0.example")).toBe(first);

    await authority.leaf("one-more.example");

    expect(await authority.leaf("host-0.example")).toBe(first);
    expect(await authority.leaf("host-1.example")).not.toBe(second);
  });

  it.skipIf(!openssl)("openssl accepts the chain and finds every extension where it belongs", async () => {
    const dir = mkdtempSync(join(tmpdir(), "bb-authority-"));
    try {
      const authority = await createAuthority({ now: Date.now });
      const [ca, leaf] = [join(dir, "ca.pem"), join(dir, "leaf.pem")];
      writeFileSync(ca, authority.certificate);
      writeFileSync(leaf, (await authority.leaf("api.example")).cert);

      const strict = ["-x509_strict", "-purpose", "sslserver", "-verify_hostname", "api.example"];
      expect(runOpenssl("verify", ...strict, "-CAfile", ca, leaf)).toBe(`${leaf}: OK\n`);
      const shown = runOpenssl("x509", "-in", ca, "-noout", "-text");
      expect(shown).toMatch(/Basic Constraints: critical\s+CA:TRUE, pathlen:0/);
      expect(shown).toMatch(/Key Usage: critical\s+Certificate Sign, CRL Sign\n/);
      expect(shown).toContain("Subject Key Identifier");
      expect(runOpenssl("x509", "-in", leaf, "-noout", "-text")).toContain("Authority Key Identifier");
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
