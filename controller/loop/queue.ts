/** Waits between tries of a key that fails: 1 s, 2 s, 4 s … at most five minutes, each shortened at random by up to a fifth. */
export const BACKOFF_FIRST_MS = 1_000;
export const BACKOFF_LAST_MS = 300_000;
/** Node's timers overflow after 24 days; a longer wait is slept in pieces. */
const SLEEP_MAX_MS = 3_600_000;

export interface QueueOptions {
  /** Passes at once. One key is never in two of them. */
  workers: number;
  now: () => number;
  /** In [0, 1). */
  random: () => number;
  /** One pass. A rejection is a failure: the key comes back after a growing wait. */
  process: (key: string) => Promise<{ requeueAfterMs?: number } | undefined>;
}

interface KeyState {
  inLine: boolean;
  inWork: boolean;
  /** Add again when the pass under way is over. */
  again: boolean;
  failures: number;
  /** When it comes back by itself. */
  dueMs?: number;
}

/** A work queue: each key at most once in line, never twice in work, failures with backoff. */
export class Queue {
  readonly #options: QueueOptions;
  readonly #states = new Map<string, KeyState>();
  #line: string[] = [];
  /** The part of the line before it is taken already. */
  #head = 0;
  #working = 0;
  #closed = false;
  #timer: NodeJS.Timeout | undefined;
  #timerMs = Infinity;
  #waiters: { done: () => void; whenDrained: boolean }[] = [];

  constructor(options: QueueOptions) {
    this.#options = options;
  }

  /** Puts a key in line. One that waits already is not put in twice; one in work is processed once more afterwards. */
  add(key: string): void {
    if (this.#closed) return;
    this.#enqueue(key, this.#stateOf(key));
    this.#pump();
  }

  /** Keys in line, without those that wait for a time. */
  get depth(): number {
    return this.#line.length - this.#head;
  }

  /** Takes no more keys, and resolves when the passes under way are done. */
  drain(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    return this.#wait(true);
  }

  /** Resolves when nothing is in line or in work. */
  idle(): Promise<void> {
    return this.#wait(false);
  }

  #wait(whenDrained: boolean): Promise<void> {
    return new Promise((done) => {
      this.#waiters.push({ done, whenDrained });
      this.#settle();
    });
  }

  #stateOf(key: string): KeyState {
    const known = this.#states.get(key);
    if (known !== undefined) return known;
    const made = { inLine: false, inWork: false, again: false, failures: 0 };
    this.#states.set(key, made);
    return made;
  }

  #enqueue(key: string, state: KeyState): void {
    state.dueMs = undefined;
    if (state.inWork) state.again = true;
    else if (!state.inLine) {
      state.inLine = true;
      this.#line.push(key);
    }
  }

  #take(): string | undefined {
    const key = this.#line[this.#head];
    if (key === undefined) return undefined;
    this.#head += 1;
    // The line is cut only when most of it is taken, so that taking from a long one stays cheap.
    if (this.#head > 1024 && this.#head * 2 > this.#line.length) {
      this.#line = this.#line.slice(this.#head);
      this.#head = 0;
    }
    return key;
  }

  #pump(): void {
    while (!this.#closed && this.#working < this.#options.workers) {
      const key = this.#take();
      if (key === undefined) break;
      void this.#work(key, this.#stateOf(key));
    }
    this.#settle();
  }

  async #work(key: string, state: KeyState): Promise<void> {
    state.inLine = false;
    state.inWork = true;
    this.#working += 1;
    try {
      const result = await this.#options.process(key);
      state.failures = 0;
      state.dueMs = result?.requeueAfterMs === undefined ? undefined : this.#options.now() + result.requeueAfterMs;
    } catch {
      const waitMs = Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** state.failures);
      state.failures += 1;
      state.dueMs = this.#options.now() + waitMs * (1 - this.#options.random() / 5);
    }
    this.#working -= 1;
    state.inWork = false;
    this.#finish(key, state);
  }

  #finish(key: string, state: KeyState): void {
    const due = state.dueMs !== undefined && state.dueMs <= this.#options.now();
    if (state.again || due) {
      state.again = false;
      this.#enqueue(key, state);
    } else if (state.dueMs === undefined) this.#states.delete(key);
    else this.#schedule(state.dueMs);
    this.#pump();
  }

  /** Sees to it that a timer goes off at `dueMs` or earlier. */
  #schedule(dueMs: number): void {
    if (this.#closed || dueMs >= this.#timerMs) return;
    clearTimeout(this.#timer);
    this.#timerMs = dueMs;
    this.#timer = setTimeout(() => this.#wake(), Math.min(SLEEP_MAX_MS, Math.max(0, dueMs - this.#options.now())));
  }

  #wake(): void {
    this.#timerMs = Infinity;
    let next = Infinity;
    for (const [key, state] of this.#states) {
      if (state.dueMs === undefined) continue;
      if (state.dueMs <= this.#options.now()) this.#enqueue(key, state);
      else next = Math.min(next, state.dueMs);
    }
    if (next !== Infinity) this.#schedule(next);
    this.#pump();
  }

  #settle(): void {
    this.#waiters = this.#waiters.filter((waiter) => {
      const over = this.#working === 0 && (waiter.whenDrained || this.depth === 0);
      if (over) waiter.done();
      return !over;
    });
  }
}
