// A device on a socket.

import { randomBytes } from 'node:crypto';
import { RawSocket } from './rawsocket';
import type { Device, HubProcess } from './rig';

interface Message {
  m?: string;
  s?: number;
}

/** A device that declares its metrics, numbers its batches, and waits until they are acknowledged. */
export class SocketDevice {
  private readonly inbox: Message[] = [];
  private wake: (() => void) | undefined;
  private gone = false;
  private seq = 0;

  private constructor(private readonly socket: RawSocket) {
    socket.onmessage = (event: { data: string }) => {
      this.inbox.push(JSON.parse(event.data) as Message);
      this.wake?.();
    };
    socket.onclose = () => {
      this.gone = true;
      this.wake?.();
    };
  }

  /** Connects, says hello and sends the birth. */
  static async connect(
    hub: HubProcess,
    device: Device,
    metrics: readonly object[],
    model = 'rpi4',
  ): Promise<SocketDevice> {
    const socket = new RawSocket(`ws://127.0.0.1:${hub.port}/device/v1`, { Authorization: `Bearer ${device.token}` });
    const d = new SocketDevice(socket);
    const stream = randomBytes(6).toString('hex');
    socket.onopen = () =>
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
    this.socket.close();
  }

  private send(message: object): void {
    this.socket.send(JSON.stringify(message));
  }

  private async until(fits: (m: Message) => boolean): Promise<void> {
    for (;;) {
      for (let m = this.inbox.shift(); m !== undefined; m = this.inbox.shift()) if (fits(m)) return;
      if (this.gone) throw new Error('the hub has closed the connection of the device');
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }
}
