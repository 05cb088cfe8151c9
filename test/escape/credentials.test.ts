import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { exchange, rawConnection } from "../helpers/raw-http.ts";
import { startUpstream, type UpstreamHandler } from "../helpers/upstreams.ts";
import { attempt, CANARY, escapeSettings, get, PLACEHOLDER, post, useEscapeWorld } from "./attempts.ts";

const { world, expectNothingLeft, at } = useEscapeWorld();

/** Answers that show the credential in different ways. Each is asked for at the host that the credential is bound to. */
const ECHOES: Readonly<Record<string, UpstreamHandler>> = {
  "in the body": (request, response) => {
    response.end(`you sent ${request.headers.authorization}`);
    return true;
  },
  "in a header": (request, response) => {
    response.writeHead(200, { "x-echo": String(request.headers.authorization) }).end("ok");
    return true;
  },
  "in a cookie": (request, response) => {
    response.writeHead(200, { "set-cookie": `session=${request.headers["x-api-key"]}; Path=/` }).end("ok");
    return true;
  },
  "in a redirect": (request, response) => {
    response.writeHead(302, { location: `/next?key=${request.headers["x-api-key"]}` }).end();
    return true;
  },
  "in base64": (request, response) => {
    response.end(Buffer.from(String(request.headers["x-api-key"])).toString("base64"));
    return true;
  },
  "in hex": (request, response) => {
    response.end(Buffer.from(String(request.headers["x-api-key"])).toString("hex"));
    return true;
  },
  "split over chunks": (request, response) => {
    const text = String(request.headers["x-api-key"]);
    response.write(text.slice(0, 9));
    setImmediate(() => response.end(text.slice(9)));
    return true;
  },
  "in a compressed body": (request, response) => {
    const body = gzipSync(String(request.headers["x-api-key"]));
    response.writeHead(200, { "content-encoding": "gzip", "content-length": body.length }).end(body);
    return true;
  },
  "in the reason phrase": (request, response) => {
    response.writeHead(200, String(request.headers["x-api-key"])).end("ok");
    return true;
  },
};

describe("the credential of a rule", () => {
  it("reaches the host it is bound to, in place of what the agent sent", async () => {
    const sent = ["Authorization: Bearer of-the-agent", "AUTHORIZATION: twice", "x-api-key: mine", "X_Api_Key: mine"];

    const outcome = await attempt(world(), { authority: at("bound.test"), request: get(at("bound.test"), "/", sent) });

    expect(outcome.status).toBe(200);
    const [seen] = world().upstream.seen;
    const values = (seen?.rawHeaders ?? []).filter((_, at2, all) =>
      /^(authorization|x.api.key)$/i.test(all[at2 - 1] ?? ""),
    );
    expect(values.toSorted()).toEqual([`Bearer ${CANARY}`, CANARY].toSorted());
  });

  it.each(["allowed.test", "other.test"])("does not reach another host: %s", async (host) => {
    await attempt(world(), { authority: at(host) });

    expect(world().upstream.seen).toHaveLength(1);
    expect(JSON.stringify(world().upstream.seen)).not.toContain(CANARY);
  });

  it("is not added to a request for another host on a connection to its own", async () => {
    await attempt(world(), { authority: at("bound.test"), request: get(at("allowed.test")) });
    await attempt(world(), { authority: at("allowed.test"), request: get(at("bound.test")) });

    expectNothingLeft();
  });

  it.each(Object.keys(ECHOES))("is in nothing that the agent gets back, when upstream repeats it %s", async (how) => {
    const handler = ECHOES[how];
    const tls = await world().authority.issue({ hosts: ["bound.test"] });
    await using echo = await startUpstream({ tls, ...(handler === undefined ? {} : { handler }) });
    const settings = escapeSettings(world());
    const rules = settings.policy.rules?.map((one) => (one.name === "bound" ? { ...one, ports: [echo.port] } : one));
    await world().configure({ ...settings, policy: { ...settings.policy, rules } });
    const authority = `bound.test:${echo.port}`;

    const outcome = await attempt(world(), { authority });

    expect(echo.seen).toHaveLength(1);
    expect(echo.seen[0]?.headers["x-api-key"]).toBe(CANARY);
    for (const form of [CANARY, Buffer.from(CANARY).toString("base64"), Buffer.from(CANARY).toString("hex")]) {
      expect(outcome.text).not.toContain(form);
    }
    expect(outcome.text).not.toContain(gzipSync(CANARY).toString("latin1").slice(10, -8));
  });

  it.each([
    ["of another name", { hosts: ["elsewhere.test"] }],
    ["that has expired", { hosts: ["bound.test"], expired: true }],
    ["of nobody we trust", { hosts: ["bound.test"], selfSigned: true }],
  ])("does not leave towards a certificate %s", async (_what, request) => {
    await using impostor = await startUpstream({ tls: await world().authority.issue(request) });
    const settings = escapeSettings(world());
    const rules = settings.policy.rules?.map((one) =>
      one.name === "bound" ? { ...one, ports: [impostor.port] } : one,
    );
    await world().configure({ ...settings, policy: { ...settings.policy, rules } });

    const outcome = await attempt(world(), { authority: `bound.test:${impostor.port}` });

    expect(outcome).toMatchObject({ status: 502, rule: "upstream-failed" });
    expect(impostor.seen).toEqual([]);
  });

  it("is in no line of the audit and in nothing the guard writes", async () => {
    await attempt(world(), { authority: at("bound.test"), request: get(at("bound.test"), `/?key=${CANARY}`) });
    await attempt(world(), { authority: at("bound.test"), request: get(at("bound.test"), `/${CANARY}`) });

    const lines = JSON.stringify(await world().guard.auditLines());
    expect(lines).not.toContain(CANARY);
    expect(world().guard.stderr()).not.toContain(CANARY);
  });
});

describe("a placeholder", () => {
  it.each([
    ["a header", () => get(at("other.test"), "/", [`Authorization: Bearer ${PLACEHOLDER}`])],
    ["the query", () => get(at("other.test"), `/?key=${PLACEHOLDER}`)],
    ["a body", () => post(at("other.test"), "/", JSON.stringify({ key: PLACEHOLDER }))],
    ["Basic authentication", () => get(at("other.test"), "/", [`Authorization: Basic ${btoa(`user:${PLACEHOLDER}`)}`])],
  ])("is refused at a host it is not bound to, in %s", async (_where, request) => {
    const outcome = await attempt(world(), { authority: at("other.test"), request: request() });

    expect(outcome).toMatchObject({ status: 403, rule: "dlp" });
    expectNothingLeft();
    const line = await world().guard.auditLine((one) => one.host === "other.test" && one.rule === "dlp");
    expect(line.dlp).toContain("placeholder:canary/key");
  });

  it("is replaced at the host it is bound to", async () => {
    const request = get(at("bound.test"), "/", [`Authorization: Bearer ${PLACEHOLDER}`]);

    expect(await attempt(world(), { authority: at("bound.test"), request })).toMatchObject({ status: 200 });
    expect(world().upstream.seen[0]?.headers.authorization).toBe(`Bearer ${CANARY}`);
  });

  it("that is only begun in a text is left alone", async () => {
    const request = post(at("other.test"), "/", `the word ${PLACEHOLDER.slice(0, 12)} in a prompt`);

    expect(await attempt(world(), { authority: at("other.test"), request })).toMatchObject({ status: 200 });
  });
});

describe("plain HTTP", () => {
  it("is refused for a host that has a rule for HTTPS only", async () => {
    const { guard } = world();
    const login = `Proxy-Authorization: Basic ${btoa(`bottle:${guard.token}`)}`;

    const text = await exchange(
      await rawConnection(guard.port),
      get(at("bound.test"), `http://${at("bound.test")}/`, [login]),
    );

    expect(text).toMatch(/^HTTP\/1\.1 403 /);
    expectNothingLeft();
  });
});
