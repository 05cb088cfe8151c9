import { expect } from "vitest";
import { keyOf } from "../../controller/api/meta.ts";
import type { BackendType } from "../../controller/api/template.ts";
import type { Draft } from "../../controller/ports/store.ts";
import type { Bottle } from "../../controller/api/bottle.ts";
import { bottleManifest, restsAfter } from "./bottles.ts";
import { createInstallation, type Installation } from "./installation.ts";
import { traces } from "./traces.ts";

/**
 * Leaves a line for each time it is run, and shows all of them after what its guard says: an agent without a guard would hear nothing, and one
 * whose guard was not told the rules would hear 503.
 * Nothing but the end of the prompt differs between the turns.
 */
const SCRIPT = [
  `echo "turn $BOT_BOTTLE_TURN attempt $BOT_BOTTLE_ATTEMPT" >> runs`,
  "busybox wget -O /dev/null http://denied.test/ 2>&1 | busybox grep -o 'HTTP/1.1 [0-9].*'",
  "cat runs",
].join("\n");
const REFUSED = "HTTP/1.1 403 Forbidden";
/** Deaths of one controller beyond this mean that it does not come up again. */
const DEATHS_MAX = 2;

export interface Life {
  owner: string;
  /** Points that the controller passed before it died, with `count` all of them. */
  points: string[];
  /** How often the controller was killed. */
  deaths: number;
}

/**
 * One whole life of a bottle: launched, turn 1, frozen, woken by turn 2, frozen, deleted. The controller is killed at `failpoint` and started
 * anew each time it dies. Whatever happens to the controller, the life must be the same.
 */
export async function live(type: BackendType, failpoint: string): Promise<Life> {
  await using here = createInstallation({ env: { BOT_BOTTLE_BACKEND: type.toLowerCase() } });
  const watched = supervise(here, failpoint);
  try {
    await here.store.create(bottleManifest("life", [SCRIPT]) as Draft<Bottle>);
    const first = await here.until("life", "frozen after turn 1", restsAfter("1"));
    await addTurn(here, first);
    const second = await here.until("life", "frozen after turn 2", restsAfter("2"));

    expect(second.status?.turns).toMatchObject([
      { id: "1", state: "Ended", outcome: "Done", exitCode: 0, attempts: 1 },
      { id: "2", state: "Ended", outcome: "Done", exitCode: 0, attempts: 1 },
    ]);
    expect(await here.logs("life", "1")).toBe(`${REFUSED}\nturn 1 attempt 1\n`);
    expect(await here.logs("life", "2")).toBe(`${REFUSED}\nturn 1 attempt 1\nturn 2 attempt 1\n`);

    await here.store.delete("Bottle", keyOf(second));
    await here.untilGone("life");
  } finally {
    await watched.end();
  }
  expect(await traces(here)).toEqual([]);
  return { owner: here.owner, ...watched.life() };
}

/** The new turn's script is that of the first one. */
async function addTurn(here: Installation, { metadata }: Bottle): Promise<void> {
  // The controller may be writing metadata at the same time (it does not, at rest; but it may just have been started again).
  const bottle = await here.store.get("Bottle", keyOf({ metadata }));
  if (bottle === undefined) throw new Error("the bottle is gone");
  const turns = [...(bottle.spec.turns ?? []), { id: "2", prompt: SCRIPT }];
  await here.store.update({ ...bottle, spec: { ...bottle.spec, turns } });
}

function supervise(here: Installation, failpoint: string): { end(): Promise<void>; life(): Omit<Life, "owner"> } {
  let said = "";
  let deaths = 0;
  let ending = false;
  const begin = (env: Record<string, string>) => {
    const serve = here.start(["serve"], env);
    void serve.ended.then(({ signal, stderr }) => {
      said += stderr;
      if (signal !== "SIGKILL" || ending) return;
      deaths += 1;
      if (deaths <= DEATHS_MAX) running = begin({});
    });
    return serve;
  };
  let running = begin({ BOT_BOTTLE_FAILPOINT: failpoint });
  return {
    async end() {
      ending = true;
      await running.end();
    },
    life: () => ({ deaths, points: [...said.matchAll(/^failpoint (\S+?)$/gm)].map(([, point]) => point ?? "") }),
  };
}
