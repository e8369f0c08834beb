// What a test has begun ends with it, the last first: clients before their servers.

const begun = new WeakMap();

/** Has `end` called when the test is over. */
export function atEnd(t, end) {
  if (!begun.has(t)) {
    begun.set(t, []);
    t.after(async () => {
      const failures = [];
      for (const each of begun.get(t).reverse()) {
        try {
          await each();
        } catch (error) {
          // The others end all the same: the process would stay for what goes on.
          failures.push(error);
        }
      }
      if (failures.length > 0) throw new AggregateError(failures, 'what the test has begun does not end');
    });
  }
  begun.get(t).push(end);
}
