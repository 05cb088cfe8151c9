/**
 * `BOT_BOTTLE_FAILPOINT=7:after` kills this process, as hard as a power cut, after its seventh backend call (`before` instead: before it). With
 * `count` it counts calls to stderr. It is how tests prove that a controller may die anywhere; it is read once, and only by `serve`.
 */
export function failpointFromEnv(
  env: Readonly<Record<string, string | undefined>>,
  stderr: { write(text: string): void },
): ((label: string, phase: "before" | "after") => void) | undefined {
  const text = env["BOT_BOTTLE_FAILPOINT"];
  if (text === undefined || text === "") return undefined;
  const [number, phase] = text.split(":");
  let calls = 0;
  return (label, at) => {
    if (at === "before") calls += 1;
    if (number === "count" && at === "before") stderr.write(`failpoint ${calls} ${label}\n`);
    if (String(calls) !== number || at !== phase) return;
    stderr.write(`failpoint ${calls} ${label}: killed ${at}\n`);
    process.kill(process.pid, "SIGKILL");
  };
}
