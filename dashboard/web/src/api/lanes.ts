/** Lets so many jobs run at a time, the others wait in order. A job that is aborted before its turn does not run. */
export class Lanes {
  private free: number;
  private readonly waiting: (() => void)[] = [];

  constructor(lanes: number) {
    this.free = lanes;
  }

  async run<T>(job: () => Promise<T>, signal: AbortSignal): Promise<T> {
    if (this.free === 0) await new Promise<void>((resolve) => this.waiting.push(resolve));
    else this.free--;
    try {
      signal.throwIfAborted();
      return await job();
    } finally {
      const next = this.waiting.shift();
      if (next === undefined) this.free++;
      else next();
    }
  }
}
