// Ages and times in words.

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;

/** How long ago, short enough for a table: 3 s, 5 min, 2 h 5 min, 4 d. */
export function duration(ms: number): string {
  if (ms < minute) return `${Math.max(0, Math.floor(ms / second))} s`;
  if (ms < hour) return `${Math.floor(ms / minute)} min`;
  if (ms < day) {
    const m = Math.floor((ms % hour) / minute);
    return m === 0 ? `${Math.floor(ms / hour)} h` : `${Math.floor(ms / hour)} h ${m} min`;
  }
  return `${Math.floor(ms / day)} d`;
}

/** The same to the second, for gaps. */
export function precise(ms: number): string {
  if (ms >= day) return `${Math.floor(ms / day)} d ${Math.floor((ms % day) / hour)} h`;
  if (ms >= hour) return `${Math.floor(ms / hour)} h ${Math.floor((ms % hour) / minute)} min`;
  if (ms >= minute) return `${Math.floor(ms / minute)} min ${Math.floor((ms % minute) / second)} s`;
  return ms < 10 * second ? `${(ms / second).toFixed(1)} s` : `${Math.floor(ms / second)} s`;
}

export function ago(ms: number): string {
  return ms < second ? 'now' : `${duration(ms)} ago`;
}

const clockFormat = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const dayFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const minuteFormat = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

/** A time of day, with its date if that is not today's. */
export function clock(ms: number, now: number): string {
  const same = new Date(ms).toDateString() === new Date(now).toDateString();
  return (same ? clockFormat : dayFormat).format(ms);
}

export function dateTime(ms: number): string {
  return minuteFormat.format(ms);
}

/** The zone that all times of the page are in. */
export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
