/** What an event is about. `File` stands for a declaration that names no object; its name is the path made fit for a name. */
export interface EventSubject {
  kind: string;
  namespace: string;
  name: string;
  uid?: string;
}

/** Something that has happened. `reason` is CamelCase and for machines, `message` one line for people, without times and secrets. */
export interface EventText {
  type: "Normal" | "Warning";
  reason: string;
  message: string;
}

/** Tells people what happened, as core/v1 Events. */
export interface EventRecorder {
  /**
   * Told again, the same event only counts up. An object that floods is cut off for a while. Never fails: an event that cannot be stored
   * is dropped, because nothing may depend on one.
   */
  record(about: EventSubject, event: EventText): Promise<void>;
}
