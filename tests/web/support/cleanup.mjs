// What a test has begun ends with it, the last first: clients before their servers.

const begun = new WeakMap();

/** Has `end` called when the test is over. */
export function atEnd(t, end) {
  if (!begun.has(t)) {
    begun.set(t, []);
    t.after(async () => {
      for (const each of begun.get(t).reverse()) await each();
    });
  }
  begun.get(t).push(end);
}
