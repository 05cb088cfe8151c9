import { join } from "node:path";
import { expect, it } from "vitest";
import { ensureBusyboxImage } from "../helpers/busybox-image.ts";
import { ownEngine } from "../helpers/engine.ts";
import { describeWith } from "../helpers/needs.ts";
import { bottleYaml, condition, restsAfter, runsTurn, untilFile } from "./bottles.ts";
import { createInstallation } from "./installation.ts";
import { traces } from "./traces.ts";

describeWith(["docker", "busybox", "bubblewrap", "root"], "an engine that stops midway", () => {
  ensureBusyboxImage();

  it("is told as such, loses nothing, and its bottle goes on when it is back; a bottle elsewhere does not notice", async () => {
    await using engine = await ownEngine();
    await using here = createInstallation({ env: { DOCKER_HOST: engine.host } });
    const serve = await here.serve(["--watch", here.bottles]);
    const hang = "while :; do sleep 1; done";
    const script = `echo "attempt $BOT_BOTTLE_ATTEMPT" >> seen; [ $BOT_BOTTLE_ATTEMPT = 1 ] && { ${hang}; }; cat seen`;
    here.write("docker.yaml", bottleYaml("docker", ["echo first > seen", script], { backend: { type: "Docker" } }));
    here.write("other.yaml", bottleYaml("other", [untilFile("go")], { backend: { type: "Bubblewrap" } }));
    await here.until("docker", "running turn 2", runsTurn("2"));
    await here.until("other", "running turn 1", runsTurn("1"));

    await engine.stop();
    const down = await here.until(
      "docker",
      "without its backend",
      (bottle) => condition(bottle, "Ready")?.reason === "BackendUnavailable",
    );
    expect(condition(down, "Ready")).toMatchObject({ status: "False", message: expect.stringContaining(engine.host) });
    expect(condition(down, "Stalled")?.status).toBe("False");

    here.write("go", "");
    expect((await here.cli(["cp", join(here.bottles, "go"), "other:/workspace/go"])).code).toBe(0);
    const other = await here.until("other", "frozen after turn 1", restsAfter("1"));
    expect(other.status?.turns).toMatchObject([{ id: "1", outcome: "Done", attempts: 1 }]);

    await engine.start();
    const ended = await here.until("docker", "frozen after turn 2", restsAfter("2"), 120_000);
    expect(ended.status?.turns).toMatchObject([
      { id: "1", outcome: "Done", attempts: 1 },
      { id: "2", outcome: "Done", attempts: 2 },
    ]);
    expect(await here.logs("docker", "2")).toBe("first\nattempt 1\nattempt 2\n");

    here.remove("docker.yaml");
    here.remove("other.yaml");
    await here.untilGone("docker");
    await here.untilGone("other");
    expect((await serve.end()).code).toBe(0);
    expect(await traces({ ...here, dockerHost: engine.host })).toEqual([]);
  }, 300_000);
});
