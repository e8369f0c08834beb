// Whether something is missing, comes twice, or comes in another order.

import assert from 'node:assert/strict';
import { until } from './wait.mjs';

/** Has followers see steps of the lane "probe" until each has seen one: from then on nothing may be missing. */
export async function begun(followers, feed) {
  const before = followers.map(({ received }) => received.length);
  let number = 0;
  await until(
    () => `all of ${followers.length} subscriptions begin: ${followers}`,
    async () => {
      await feed.add('probe', number, (number += 1));
      return followers.every(({ received }, index) => received.length > before[index]);
    },
  );
}

/** Waits until each follower has this many of a lane, and asserts that it has each of them once and in order. */
export async function assertWhole(followers, lane, count) {
  await until(
    () => `${count} events at each: ${followers}`,
    () => followers.every((one) => one.received.length >= count && one.numbers(lane).length >= count),
  );
  const expected = Array.from({ length: count }, (_, number) => number);
  for (const follower of followers) {
    assert.deepEqual(follower.numbers(lane), expected);
    assert.deepEqual(follower.errors, []);
  }
}
