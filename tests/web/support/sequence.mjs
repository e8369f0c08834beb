// Whether something is missing, comes twice, or comes in another order.

import assert from 'node:assert/strict';
import { until } from './wait.mjs';

/** What a failure says of followers: how many there are, and those that are furthest behind. */
function told(followers) {
  const behind = [...followers].sort((one, other) => one.received.length - other.received.length);
  return `${followers.length} followers, the last of which: ${behind.slice(0, 3)}`;
}

/** Has followers see steps of the lane "probe" until each has seen one: from then on nothing may be missing. */
export async function begun(followers, feed) {
  const before = followers.map(({ received }) => received.length);
  const have = () => followers.every(({ received }, index) => received.length > before[index]);
  let number = 0;
  let due = 0;
  await until(
    () => `each subscription begins: ${told(followers)}`,
    async () => {
      // One more now and then: it may have come before the subscription of somebody had begun.
      if (!have() && Date.now() >= due) {
        await feed.add('probe', number, (number += 1));
        due = Date.now() + 500;
      }
      return have();
    },
  );
}

/** Waits until each follower has this many of a lane, and asserts that it has each of them once and in order. */
export async function assertWhole(followers, lane, count) {
  await until(
    () => `${count} events at each: ${told(followers)}`,
    () => followers.every((one) => one.received.length >= count && one.numbers(lane).length >= count),
  );
  const expected = Array.from({ length: count }, (_, number) => number);
  for (const follower of followers) {
    assert.deepEqual(follower.numbers(lane), expected);
    assert.deepEqual(follower.errors, []);
  }
}
