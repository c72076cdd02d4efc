// A WebSocket client for devices (RFC 6455): Node 20 has none that sends a token.

import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import type { Device, HubProcess } from './rig';

interface Message {
  m?: string;
  s?: number;
}

/** A device that declares its metrics, numbers its batches, and waits until they are acknowledged. */
export class SocketDevice {
  private buffer = Buffer.alloc(0);
  private upgraded = false;
  private readonly inbox: Message[] = [];
  private wake: (() => void) | undefined;
  private seq = 0;

  private constructor(private readonly socket: Socket) {
    socket.on('data', (chunk) => {
      this.buffer = Buffer.concat([this.buffer, chunk]);
      this.read();
      this.wake?.();
    });
    socket.on('error', () => this.wake?.());
  }

  /** Connects, says hello and sends the birth. */
  static async connect(
    hub: HubProcess,
    device: Device,
    metrics: readonly object[],
    model = 'rpi4',
  ): Promise<SocketDevice> {
    const socket = connect(hub.port, '127.0.0.1');
    const d = new SocketDevice(socket);
    socket.write(
      `GET /device/v1 HTTP/1.1\r\nHost: 127.0.0.1:${hub.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\nSec-WebSocket-Version: 13\r\n` +
        `Authorization: Bearer ${device.token}\r\n\r\n`,
    );
    while (!d.upgraded) await d.news();
    const stream = randomBytes(6).toString('hex');
    d.send({ m: 'hello', dev: device.id, st: stream, next: 1, have: 1, schema: stream, fw: '1.4.2', model, tq: 2 });
    await d.until((m) => m.m === 'welcome');
    d.send({ m: 'birth', id: stream, metrics });
    return d;
  }

  /** Sends rows [alias, ms after t, value], and returns once they are on disk. */
  async data(t: number, rows: readonly (readonly [number, number, number | boolean | string])[]): Promise<void> {
    const s = ++this.seq;
    this.send({ m: 'data', s, t, r: rows });
    await this.until((m) => m.m === 'ack' && (m.s ?? 0) >= s);
  }

  /** Reports readings that the device has lost. */
  async gap(from: number, to: number, count: number, why: string): Promise<void> {
    const s = ++this.seq;
    this.send({ m: 'gap', s, n: count, t0: from, t1: to, why });
    await this.until((m) => m.m === 'ack' && (m.s ?? 0) >= s);
  }

  close(): void {
    this.socket.destroy();
  }

  private send(message: object): void {
    const body = Buffer.from(JSON.stringify(message));
    const mask = randomBytes(4);
    const head =
      body.length < 126
        ? Buffer.from([0x81, 0x80 | body.length])
        : Buffer.from([0x81, 0xfe, body.length >> 8, body.length & 0xff]);
    this.socket.write(Buffer.concat([head, mask, body.map((b, i) => b ^ (mask[i % 4] ?? 0))]));
  }

  private news(): Promise<void> {
    if (this.socket.destroyed) throw new Error('the hub has closed the connection of the device');
    return new Promise((resolve) => {
      this.wake = resolve;
    });
  }

  private async until(fits: (m: Message) => boolean): Promise<void> {
    for (;;) {
      for (let m = this.inbox.shift(); m !== undefined; m = this.inbox.shift()) if (fits(m)) return;
      await this.news();
    }
  }

  private read(): void {
    if (!this.upgraded) {
      const end = this.buffer.indexOf('\r\n\r\n');
      if (end < 0) return;
      const head = this.buffer.subarray(0, end).toString();
      if (!head.includes(' 101 ')) throw new Error(`the hub answers ${head}`);
      this.buffer = this.buffer.subarray(end + 4);
      this.upgraded = true;
    }
    for (;;) {
      const [first, second] = this.buffer;
      if (first === undefined || second === undefined) return;
      let size = second & 0x7f;
      let at = 2;
      if (size === 126) {
        if (this.buffer.length < 4) return;
        size = this.buffer.readUInt16BE(2);
        at = 4;
      }
      if (this.buffer.length < at + size) return;
      const body = this.buffer.subarray(at, at + size);
      if ((first & 0x0f) === 1) this.inbox.push(JSON.parse(body.toString()) as Message);
      this.buffer = this.buffer.subarray(at + size);
    }
  }
}
