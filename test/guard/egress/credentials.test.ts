import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startRig, type Rig, type RigRequest } from "./rig.ts";

const SECRET = "correct-horse-battery-staple-42";
const OTHER_SECRET = "another-secret-of-another-host-7";
const PLACEHOLDER = "placeholder-8f2a61c09d3e47b5";
const OTHER_PLACEHOLDER = "placeholder-17c4e0aa92bd4f6f";

describe("a credential", () => {
  let rig: Rig;
  beforeAll(async () => {
    rig = await startRig({ hosts: ["allowed.test", "free.test", "other.test"] });
  });
  afterAll(() => rig[Symbol.asyncDispose]());

  const bearer = { header: "authorization", valueTemplate: "Bearer {value}", secret: "s/k" };
  beforeEach(() => {
    rig.lines.length = 0;
    rig.upstream.seen.length = 0;
    rig.dns.queries.length = 0;
    configure();
  });

  function configure(dlp: "Off" | "Audit" | "Block" = "Block"): void {
    const rules = [
      rig.rule({ inject: [bearer], paths: [{ type: "Prefix", value: "/" }], methods: ["GET", "POST"] }),
      rig.rule({ name: "without", methods: ["PUT"] }),
      rig.rule({ name: "free", host: "free.test" }),
      rig.rule({
        name: "other",
        host: "other.test",
        inject: [{ header: "x-api-key", valueTemplate: "{base64:user:}", secret: "o/k" }],
      }),
    ];
    rig.configure({
      secrets: { "s/k": `${SECRET}\n`, "o/k": OTHER_SECRET },
      placeholders: { "s/k": PLACEHOLDER, "o/k": OTHER_PLACEHOLDER },
      policy: { rules, dlp },
    });
  }

  for (const version of ["h1", "h2"] as const) {
    it(`takes the place of whatever the agent sent, once, over ${version}`, async () => {
      const headers = {
        Authorization: "Bearer mine",
        "x-api-key": "mine",
        X_Api_Key: "mine",
        cookie: "session=mine",
        "private-token": "mine",
        accept: "text/plain",
      };

      await rig.request({ version, headers });

      const { rawHeaders = [] } = rig.upstream.seen[0] ?? {};
      const names = rawHeaders.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase());
      expect(names.filter((name) => name === "authorization")).toHaveLength(1);
      expect(rig.upstream.seen[0]?.headers).toMatchObject({ authorization: `Bearer ${SECRET}`, accept: "text/plain" });
      expect(JSON.stringify(rawHeaders)).not.toContain("mine");
      expect(await rig.line()).toMatchObject({ injected: ["authorization"] });
      expect(JSON.stringify(rig.lines)).not.toContain(SECRET);
    });
  }

  it("is made by its template", async () => {
    await rig.request({ host: "other.test" });

    expect(rig.upstream.seen[0]?.headers["x-api-key"]).toBe(Buffer.from(`user:${OTHER_SECRET}`).toString("base64"));
  });

  it("of the agent's own does not go to a bound host by a rule that has none", async () => {
    expect((await rig.request({ method: "PUT", headers: { authorization: "Bearer mine" } })).status).toBe(200);

    expect(rig.upstream.seen[0]?.headers).not.toHaveProperty("authorization");
  });

  it("of the agent's own goes to a host that is not bound", async () => {
    await rig.request({ host: "free.test", headers: { authorization: "Bearer mine", cookie: "a=1" } });

    expect(rig.upstream.seen[0]?.headers).toMatchObject({ authorization: "Bearer mine", cookie: "a=1" });
  });

  it("may be asked for by its placeholder, in a header that is replaced", async () => {
    for (const name of ["authorization", "x-api-key"]) {
      const headers = { [name]: `Bearer ${PLACEHOLDER}` };
      expect((await rig.request({ headers })).status).toBe(200);
      expect(rig.upstream.seen.at(-1)?.headers.authorization).toBe(`Bearer ${SECRET}`);
      expect(JSON.stringify(rig.upstream.seen.at(-1)?.rawHeaders)).not.toContain(PLACEHOLDER);
    }
  });

  it("is not to be had by its placeholder anywhere else, whatever the DLP mode says of the head", async () => {
    const encoded = Buffer.from(`user:${PLACEHOLDER}`).toString("base64");
    for (const dlp of ["Block", "Audit", "Off"] as const) {
      configure(dlp);
      const attempts = {
        "another header": { headers: { "x-other": PLACEHOLDER } },
        "the query": { path: `/?k=${PLACEHOLDER}` },
        "the path": { path: `/${PLACEHOLDER}` },
        "another host": { host: "free.test", headers: { authorization: `Bearer ${PLACEHOLDER}` } },
        "another host, in Basic": { host: "free.test", headers: { authorization: `Basic ${encoded}` } },
        "another bound host": { host: "other.test", headers: { "x-api-key": PLACEHOLDER } },
      };
      for (const [where, request] of Object.entries(attempts)) {
        expect(await rig.request(request), `${where}, ${dlp}`).toMatchObject({ status: 403, rule: "dlp" });
      }
      for (const body of dlp === "Off"
        ? []
        : [[`{"k":"${PLACEHOLDER}"}`], [PLACEHOLDER.slice(0, 12), PLACEHOLDER.slice(12)]]) {
        const chunks = body.map((text) => Buffer.from(text));
        expect(await rig.request({ host: "free.test", method: "POST", body: chunks })).toMatchObject({
          status: 403,
          rule: "dlp",
        });
      }
    }
    expect(rig.upstream.seen).toEqual([]);
    expect(rig.lines.every(({ dlp, verdict }) => dlp[0] === "placeholder:s/k" && verdict === "Denied")).toBe(true);
  });

  it("is not refused over text that only begins as a placeholder does", async () => {
    const body = `the variable holds placeholder- and more: ${PLACEHOLDER.slice(0, -1)}`;

    expect((await rig.request({ host: "free.test", method: "POST", path: "/echo", body })).text).toBe(body);
  });

  it("leaves only over TLS that is verified", async () => {
    for (const certificate of [{ selfSigned: true }, { expired: true }, { hosts: ["somebody.test"] }]) {
      const careless = await startRig({ certificate });
      careless.configure({ secrets: { "s/k": SECRET }, policy: { rules: [careless.rule({ inject: [bearer] })] } });

      const answer = await careless.request({ method: "POST", body: "x" });

      expect(answer, JSON.stringify(certificate)).toMatchObject({ status: 502, rule: "upstream-failed" });
      expect(answer.text).not.toContain(SECRET);
      expect(careless.upstream.seen).toEqual([]);
      await careless[Symbol.asyncDispose]();
    }
  });

  it("is not told in the audit or in a refusal, wherever the agent wrote it", async () => {
    const rules = [rig.rule({ host: "*.allowed.test", name: "wild" }), rig.rule({ name: "free", host: "free.test" })];
    rig.configure({ secrets: { "s/k": SECRET, "t/k": "MiXeD-Case-Secret-9" }, policy: { rules } });
    const attempts = [
      { host: "free.test", path: `/x/${SECRET}` },
      { host: "free.test", path: `/${"a".repeat(1010)}/${SECRET}` },
      { host: "free.test", path: `/x/%63orrect-horse-battery-staple-42` },
      { host: "unknown.test", path: `/${SECRET}?a=1` },
      { host: `${SECRET}.unknown.test` },
      { host: `${SECRET}.allowed.test` },
      { host: "mixed-case-secret-9.allowed.test" },
      { host: "free.test", path: `/ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8` },
    ];
    for (const attempt of attempts) {
      const answer = await rig.request(attempt);
      expect(answer.status, JSON.stringify(attempt)).toBe(403);
      expect(answer.text).toContain("(redacted)");
      expect(answer.text).not.toMatch(/horse|mixed-case|ghp_/);
    }
    const lines = await rig.lineCount(attempts.length);
    expect(JSON.stringify(lines)).not.toMatch(/horse|mixed-case|ghp_/);
    expect(lines[0]).toMatchObject({ host: "free.test", path: "(redacted)", rule: "dlp", dlp: ["secret:s/k"] });
    expect(lines[5]).toMatchObject({ host: "(redacted)", rule: "dlp", dlp: ["secret:s/k"] });
    expect(rig.dns.queries).toEqual([]);
  });

  it("in the name of a host is not asked of a name server, for a tunnel that is passed on unread either", async () => {
    rig.configure({
      secrets: { "s/k": SECRET },
      policy: { rules: [rig.rule({ host: "*.allowed.test", protocol: "TCP" })] },
    });

    await expect(rig.tunnel(`${SECRET}.allowed.test:${rig.upstream.port}`)).rejects.toThrow("HTTP/1.1 403");

    expect(rig.dns.queries).toEqual([]);
    expect(await rig.line()).toMatchObject({ rule: "dlp", host: "(redacted)", dlp: ["secret:s/k"] });
  });

  it("that is a JSON web token goes in Authorization to a host without a credential of its own, and the audit says so", async () => {
    const token = `eyJhbGciOiJSUzI1NiIsInR5cCI6.eyJpc3MiOiJhdXRoLnRlc3QiLCJh.c2lnbmF0dXJl`;
    const sent = { authorization: `Bearer ${token}` };

    expect((await rig.request({ host: "free.test", headers: sent })).status).toBe(200);

    expect(rig.upstream.seen[0]?.headers).toMatchObject(sent);
    expect(await rig.line()).toMatchObject({ verdict: "Allowed", path: "/", dlp: ["pattern:jwt"] });
    const attempts: RigRequest[] = [
      { headers: { "x-token": token } },
      { headers: { ...sent, "x-token": token } },
      { path: `/?t=${token}`, headers: sent },
      { method: "POST", headers: sent, body: token },
      { headers: { authorization: `Bearer ${OTHER_SECRET}` } },
      { headers: { authorization: "Bearer ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8" } },
    ];
    for (const attempt of attempts) {
      const answer = await rig.request({ host: "free.test", ...attempt });
      expect(answer, JSON.stringify(attempt)).toMatchObject({ status: 403, rule: "dlp" });
    }
  });

  it("that cannot stand in a header lets nothing through", async () => {
    rig.configure({
      secrets: { "s/k": "two lines\r\nx-evil: 1" },
      policy: { rules: [rig.rule({ inject: [bearer] })] },
    });

    expect(await rig.request()).toMatchObject({ status: 403, rule: "closed" });
    expect(rig.upstream.seen).toEqual([]);
  });
});
