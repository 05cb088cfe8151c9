import { describe, expect, it } from "vitest";
import { createSettingsHolder, SettingsError } from "../../backends/guard/settings.ts";
import type { GuardConfig, GuardRule } from "../../controller/ports/guard.ts";

const RULE: GuardRule = {
  name: "model",
  host: "api.example",
  ports: [443],
  protocol: "HTTPS",
  action: "Allow",
  cidrs: [],
  webSocket: false,
  uninspected: "Refuse",
  inject: [{ header: "x-api-key", valueTemplate: "{value}", secret: "model/key" }],
};

function config(part: Partial<GuardConfig> = {}): GuardConfig {
  return {
    digest: "digest-1",
    token: "t".repeat(32),
    policy: { rules: [RULE], dlp: "Block", audit: "Full", budget: {} },
    placeholders: { "model/key": "placeholder-of-the-model-key" },
    secretRefs: ["model/key"],
    secrets: { "model/key": "canary-of-the-model-key" },
    ...part,
  };
}

function refusal(given: GuardConfig): SettingsError {
  try {
    createSettingsHolder().apply(given);
  } catch (error) {
    if (error instanceof SettingsError) return error;
    throw error;
  }
  throw new Error("the settings were taken");
}

describe("settings", () => {
  it("there are none before the first, so that everything is refused", () => {
    expect(createSettingsHolder().current()).toBeUndefined();
  });

  it("settings are in force as a whole when apply returns, and listeners hear of it", () => {
    const settings = createSettingsHolder();
    const heard: (string | undefined)[] = [];
    settings.onChange(() => heard.push(settings.current()?.digest));

    settings.apply(config());
    settings.apply(config({ digest: "digest-2" }));

    expect(heard).toEqual(["digest-1", "digest-2"]);
    expect(settings.current()).toMatchObject({ token: "t".repeat(32), source: config().policy });
    expect(settings.current()?.secrets).toEqual({ "model/key": "canary-of-the-model-key" });
  });

  it("settings that cannot be used leave the ones in force, and no listener hears of them", () => {
    const settings = createSettingsHolder();
    settings.apply(config());
    const before = settings.current();
    let heard = 0;
    settings.onChange(() => (heard += 1));

    for (const part of [{ token: "short" }, { secrets: {} }]) {
      expect(() => settings.apply(config({ digest: "digest-2", ...part }))).toThrow(SettingsError);
    }

    expect(settings.current()).toBe(before);
    expect(heard).toBe(0);
  });

  it("a rule whose secret has no value refuses the whole policy, and names rule and secret", () => {
    const given: Record<string, string>[] = [{}, { "model/key": "" }, { "other/key": "canary-of-another" }];
    for (const secrets of given) {
      const error = refusal(config({ secrets }));

      expect(error.reason).toBe("SecretMissing");
      expect(error.message).toContain('"model/key" of rule "model"');
      expect(error.message).not.toContain("canary");
    }
  });

  it("a secret named as a property of every object is not taken for a value", () => {
    const inject = [{ header: "x-api-key", valueTemplate: "{value}", secret: "constructor" }];

    expect(refusal(config({ policy: { ...config().policy, rules: [{ ...RULE, inject }] } })).reason).toBe(
      "SecretMissing",
    );
  });

  it("a guard that is closed needs no secret: a missing one may be why it is closed", () => {
    const settings = createSettingsHolder();
    const closed = { reason: "SecretMissing", message: 'Secret "model" is not there' };

    settings.apply(config({ secrets: {}, closed }));

    expect(settings.current()?.closed).toEqual(closed);
  });

  it("a token is long enough not to be guessed and needs no escape in a URL", () => {
    for (const token of ["", "t".repeat(15), "t".repeat(257), `${"t".repeat(20)}@`, `${"t".repeat(20)} `]) {
      const error = refusal(config({ token }));

      expect(error.reason).toBe("TokenInvalid");
      if (token !== "") expect(error.message).not.toContain(token);
    }
  });

  it("a policy that cannot be compiled is refused with the rule's name", () => {
    const rule: GuardRule = { ...RULE, name: "broken", paths: [{ type: "Regex", value: "(" }] };

    const error = refusal(config({ policy: { ...config().policy, rules: [rule] } }));

    expect(error.reason).toBe("PolicyInvalid");
    expect(error.message).toContain("broken");
  });

  it("what a caller changes in its config later does not change the settings", () => {
    const given = config({ secrets: { "model/key": "canary-of-the-model-key" } });
    const settings = createSettingsHolder();
    settings.apply(given);

    Object.assign(given.secrets, { "model/key": "another" });

    expect(settings.current()?.secrets["model/key"]).toBe("canary-of-the-model-key");
  });
});
