// Places for streams that stay. A browser opens six connections to one HTTP/1.1 server, for all its tabs: with six such
// streams nothing else of this server would come any more. Four are counted over all tabs, so that the charts of the
// map, a page and a click find theirs.

export const PLACES = [0, 1, 2, 3];
export const FULL = "Your other tabs have all the connections that a browser opens.";

const free = () => {};

/** Whether nobody needs to count: HTTP/2 has one connection for all, and without Web Locks nobody can. */
const uncounted = () =>
  !navigator.locks || /^h[23]/.test(performance.getEntriesByType("navigation")[0]?.nextHopProtocol ?? "");

/** Take a place, of `places` in this order, if one is free: what gives it back, or null. */
export async function takePlace(places = PLACES) {
  if (uncounted()) return free;
  for (const place of places) {
    const leave = await new Promise((resolve) => {
      const held = (lock) => (lock ? new Promise((left) => resolve(left)) : resolve(null));
      navigator.locks.request(`place ${place}`, { ifAvailable: true }, held).catch(() => resolve(free));
    });
    if (leave) return leave;
  }
  return null;
}

/** Have a place, as soon as there is one, until `signal` aborts; resolves with whether it has come to that. */
export async function holdPlace(signal, waits, places = PLACES) {
  const leave = await waitPlace(signal, waits, places).catch(() => null);
  if (signal.aborted) leave?.();
  if (!leave || signal.aborted) return false;
  signal.addEventListener("abort", leave);
  return true;
}

/** Take a place as soon as there is one, and call `waits()` if that is not now. Rejects when `signal` aborts. */
export async function waitPlace(signal, waits, places = PLACES) {
  const now = await takePlace(places);
  if (now && signal.aborted) now();
  signal.throwIfAborted();
  if (now) return now;
  waits();
  const found = new AbortController();
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => (found.abort(), reject(signal.reason)));
    const held = () => {
      if (found.signal.aborted) return null; // two places have become free at once
      found.abort();
      return new Promise(resolve);
    };
    for (const place of places) {
      navigator.locks.request(`place ${place}`, { signal: found.signal }, held).catch(() => {});
    }
  });
}
