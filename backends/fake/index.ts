export { createFakeBackend, type FakeBackendOptions } from "./backend.ts";
export {
  CALL_FAULTS,
  ControllerCrash,
  WORLD_VERBS,
  type ControllerProcess,
  type Fault,
  type Faults,
  type WorldCall,
  type WorldVerb,
} from "./faults.ts";
export type { FakeGuard } from "./guard.ts";
export { InvariantViolation, type StartedRun } from "./invariants.ts";
export { World, type Container, type Program, type ProgramResult, type ProgramRun, type Volume } from "./world.ts";
