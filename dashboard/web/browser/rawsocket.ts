// A WebSocket client (RFC 6455) as small as the tests need it: Node 20 has none that sends a token.

import { randomBytes } from 'node:crypto';
import { type Socket as Connection, connect } from 'node:net';
import type { Socket } from '../src/feed/transport';

const text = 1;
const close = 8;
const ping = 9;
const pong = 10;

export class RawSocket implements Socket {
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  private readonly connection: Connection;
  private buffer = Buffer.alloc(0);
  private upgraded = false;
  private ended = false;

  constructor(address: string, headers: Record<string, string>) {
    const url = new URL(address);
    this.connection = connect(Number(url.port), url.hostname);
    this.connection.write(
      `GET ${url.pathname} HTTP/1.1\r\nHost: ${url.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\nSec-WebSocket-Version: 13\r\n` +
        `${Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)}\r\n`,
    );
    this.connection.on('data', (chunk) => {
      this.buffer = Buffer.concat([this.buffer, chunk]);
      this.read();
    });
    this.connection.on('error', () => this.end(1006, ''));
    this.connection.on('close', () => this.end(1006, ''));
  }

  send(message: string): void {
    this.write(text, Buffer.from(message));
  }

  close(): void {
    this.ended = true;
    this.connection.destroy();
  }

  private end(code: number, reason: string): void {
    if (this.ended) return;
    this.close();
    this.onclose?.({ code, reason } as never);
  }

  private write(opcode: number, body: Buffer): void {
    const mask = randomBytes(4);
    const head =
      body.length < 126
        ? Buffer.from([0x80 | opcode, 0x80 | body.length])
        : Buffer.from([0x80 | opcode, 0xfe, body.length >> 8, body.length & 0xff]);
    this.connection.write(Buffer.concat([head, mask, body.map((b, i) => b ^ (mask[i % 4] ?? 0))]));
  }

  private read(): void {
    if (!this.upgraded) {
      const end = this.buffer.indexOf('\r\n\r\n');
      if (end < 0) return;
      if (!this.buffer.subarray(0, end).toString().includes(' 101 ')) {
        this.end(1006, '');
        return;
      }
      this.buffer = this.buffer.subarray(end + 4);
      this.upgraded = true;
      this.onopen?.({} as never);
    }
    for (let frame = this.next(); frame !== undefined && !this.ended; frame = this.next()) {
      const [opcode, body] = frame;
      if (opcode === text) this.onmessage?.({ data: body.toString() } as never);
      else if (opcode === ping) this.write(pong, body);
      else if (opcode === close) this.end(body.length < 2 ? 1005 : body.readUInt16BE(0), body.subarray(2).toString());
    }
  }

  /** The next whole frame, of which the hub sends each message in one. */
  private next(): [opcode: number, body: Buffer] | undefined {
    const [first = 0, second = 0] = this.buffer;
    const long = { 126: 2, 127: 8 }[second] ?? 0;
    const at = 2 + long;
    if (this.buffer.length < at) return undefined;
    let size = second;
    if (long === 2) size = this.buffer.readUInt16BE(2);
    if (long === 8) size = Number(this.buffer.readBigUInt64BE(2));
    if (this.buffer.length < at + size) return undefined;
    const body = this.buffer.subarray(at, at + size);
    this.buffer = this.buffer.subarray(at + size);
    return [first & 0x0f, body];
  }
}
