// Reads server-sent events (WHATWG HTML, section 9.2) from a stream that arrives in pieces.

export interface ServerEvent {
  /** "message" if the stream does not say. */
  name: string;
  data: string;
}

export class EventReader {
  private rest = '';
  private name = '';
  private data: string[] = [];

  constructor(
    private readonly event: (e: ServerEvent) => void,
    /** Called for each comment: they keep the line open. */
    private readonly comment: () => void,
  ) {}

  /** Takes the next piece, which may end anywhere. */
  push(text: string): void {
    // A CR may be the first half of a line end, and a piece that ends with it does not tell.
    const whole = this.rest + text;
    const lines = whole.split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? '';
    for (const line of lines) this.line(line);
  }

  private line(line: string): void {
    if (line === '') {
      const e = { name: this.name || 'message', data: this.data.join('\n') };
      const empty = this.data.length === 0;
      this.name = '';
      this.data = [];
      if (!empty) this.event(e);
      return;
    }
    const [, field, value = ''] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === '') this.comment();
    else if (field === 'event') this.name = value;
    else if (field === 'data') this.data.push(value);
    // id is in the frames too, and retry is for those who have no back-off of their own.
  }
}
