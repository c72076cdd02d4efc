const base = 500;
const cap = 15_000;
const least = 100;

/** Milliseconds to wait before attempt n, counted from 0: full jitter, so that many pages do not come back at once. */
export function backoff(attempt: number, random: () => number): number {
  return least + random() * (Math.min(cap, base * 2 ** Math.min(attempt, 10)) - least);
}
