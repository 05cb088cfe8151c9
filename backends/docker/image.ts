import { BackendError } from "../../controller/ports/backend.ts";
import type { Context } from "./context.ts";
import { isKind, oneLine } from "./errors.ts";

const PULL_MS_MAX = 600_000;

/** Makes the agent's image present: what is there is used as it is, else it is pulled. */
export async function ensureImage(context: Context, image: string | undefined, signal?: AbortSignal): Promise<void> {
  if (image === undefined) {
    throw new BackendError(
      "Invalid",
      "ImageRequired",
      "the Docker backend runs agents from images and this bottle names none: set image in one of its templates",
    );
  }
  const { docker, call } = context.engine;
  try {
    // What is there is used as it is: a tag that moved on at its registry would change an agent between two turns.
    await call("image.inspect", () => docker.getImage(image).inspect(), {
      signal,
      subject: image,
    });
  } catch (error) {
    if (!isKind(error, "NotFound")) throw error;
    await pull(context, image, signal);
  }
}

/** For containers made from an image that `prepare` saw: somebody removed it since. */
export function namingImage(error: unknown, image: string): unknown {
  if (!(error instanceof BackendError) || error.reason !== "ImageNotFound") return error;
  const message = `image "${image}" is not on the Docker Engine any more: docker pull ${image}, or launch the bottle again`;
  return new BackendError("Invalid", "ImageNotFound", message, { cause: error });
}

async function pull(context: Context, image: string, signal?: AbortSignal): Promise<void> {
  const { docker, call } = context.engine;
  context.log.info({ image }, "pulling image");
  try {
    await call(
      "image.pull",
      async (abortSignal) => {
        const stream = await docker.pull(tagged(image), { abortSignal });
        await finishPull(context, image, stream);
      },
      { signal, timeoutMs: PULL_MS_MAX, subject: image },
    );
  } catch (error) {
    throw pullFailure(image, error);
  }
  context.log.info({ image }, "pulled image");
}

/** A reference without tag or digest would pull every tag of the repository. */
function tagged(image: string): string {
  const name = image.slice(image.lastIndexOf("/") + 1);
  return name.includes(":") || name.includes("@") ? image : `${image}:latest`;
}

/** Reads the engine's progress, one JSON object a line, to its end; each new status is logged once. */
async function finishPull(context: Context, image: string, stream: NodeJS.ReadableStream): Promise<void> {
  let rest = "";
  let last = "";
  for await (const chunk of stream) {
    const lines = (rest + String(chunk)).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line.trim() === "") continue;
      const progress: { status?: string; error?: string } = JSON.parse(line);
      if (progress.error !== undefined) throw new BackendError("Transient", "ImagePullFailed", oneLine(progress.error));
      if (progress.status !== undefined && progress.status !== last) {
        last = progress.status;
        context.log.debug({ image, status: last }, "pull progress");
      }
    }
  }
}

const NOT_THERE =
  /(not found|manifest unknown|repository does not exist|access denied|unauthorized|no such image|invalid reference)/i;
/** An engine without a way to the registry will not get the image by itself. */
const NO_REGISTRY = /(no such host|connection refused|network is unreachable|no route to host)/i;

function pullFailure(image: string, error: unknown): unknown {
  if (!(error instanceof BackendError) || error.kind === "Unavailable") return error;
  if (!NOT_THERE.test(error.message) && !NO_REGISTRY.test(error.message)) {
    if (error.reason === "Timeout" || error.reason === "Aborted") return error;
    return new BackendError("Transient", "ImagePullFailed", `cannot pull image "${image}": ${error.message}`, {
      cause: error,
    });
  }
  const remedy = `check its name, or bring it onto the engine with docker pull ${image}, docker load or docker build`;
  return new BackendError(
    "Invalid",
    "ImageNotFound",
    `image "${image}" is not on the Docker Engine and cannot be pulled: ${error.message}; ${remedy}`,
    { cause: error },
  );
}
