// Waiting for conditions, never for time to pass.

/** How long to wait for what must come, in milliseconds. */
export const PATIENCE = 60_000;

/** Waits until `condition` gives something true, and gives that. `what` says what did not come about. */
export async function until(what, condition, patience = PATIENCE) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) {
      throw new Error(`did not come about: ${typeof what === 'function' ? what() : what}`);
    }
    await pause(10);
  }
}

/** Lets others have their turn. */
export function pause(millis) {
  return new Promise((resolve) => setTimeout(resolve, millis));
}
