/**
 * `BOT_BOTTLE_FAILPOINT=container.start:guard#2:after` kills this process, as hard as a power cut, after its second backend call of that label
 * (`before` instead: before it). With `count` every such point is written to stderr as it is passed. Points are counted by label, because calls run
 * side by side and their order among each other changes. It is how tests prove that a controller may die anywhere; read once, by the control loop alone.
 */
export function failpointFromEnv(
  env: Readonly<Record<string, string | undefined>>,
  stderr: { write(text: string): void },
): ((label: string, phase: "before" | "after") => void) | undefined {
  const wanted = env["BOT_BOTTLE_FAILPOINT"];
  if (wanted === undefined || wanted === "") return undefined;
  const calls = new Map<string, number>();
  return (label, phase) => {
    const nth = (calls.get(`${label}:${phase}`) ?? 0) + 1;
    calls.set(`${label}:${phase}`, nth);
    const point = `${label}#${nth}:${phase}`;
    if (wanted === "count") stderr.write(`failpoint ${point}\n`);
    if (point !== wanted) return;
    stderr.write(`failpoint ${point}: killed\n`);
    process.kill(process.pid, "SIGKILL");
  };
}
