/** The part of a writable stream that both Node's streams and those of tar-stream have. */
export interface Sink {
  write(chunk: Uint8Array): boolean;
  end(chunk: null): unknown;
  on(event: "drain" | "close" | "error", listener: (error?: unknown) => void): unknown;
  off(event: "drain" | "close", listener: () => void): unknown;
}

/** Writes a whole source into a sink at the sink's pace, and ends it. Rejects if the sink breaks or is closed before. */
export async function writeAll(source: AsyncIterable<unknown>, sink: Sink): Promise<void> {
  const state: { error?: unknown; closed: boolean } = { closed: false };
  sink.on("error", (error) => {
    state.error ??= error;
  });
  sink.on("close", () => {
    state.closed = true;
  });
  for await (const chunk of source) {
    if (!(chunk instanceof Uint8Array)) throw new Error("a stream of bytes yielded something else");
    if (!state.closed && !sink.write(chunk)) await drained(sink, state);
    if (state.closed) throw state.error ?? new Error("the stream was closed before all was written");
  }
  sink.end(null);
}

function drained(sink: Sink, state: { closed: boolean }): Promise<void> {
  if (state.closed) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      sink.off("drain", end);
      sink.off("close", end);
      resolve();
    };
    sink.on("drain", end);
    sink.on("close", end);
  });
}
