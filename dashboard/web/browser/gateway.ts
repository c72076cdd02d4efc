// A gateway before a hub: it serves it below a path, as nginx and Caddy do, and can stand in the way as others do.

import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';

export class Gateway {
  /** refused: an upgrade is answered as any other request. swallowed: it is answered, and then nothing passes. */
  upgrades: 'pass' | 'refused' | 'swallowed' = 'pass';
  /** held: an answer is gathered until it is whole, so that one that has no end never arrives. */
  answers: 'pass' | 'held' = 'pass';
  private readonly sockets = new Set<Socket>();

  private constructor(
    private readonly server: Server,
    private readonly prefix: string,
    private readonly port: number,
    readonly url: string,
  ) {
    server.on('request', (req, res) => this.answer(req, res));
    server.on('upgrade', (req, socket) => this.upgrade(req, socket as Socket));
    server.on('connection', (socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
    });
  }

  static async start(prefix: string, port: number): Promise<Gateway> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    return new Gateway(server, prefix, port, `http://127.0.0.1:${address.port}${prefix}/`);
  }

  /** Breaks every connection, as a network does that goes away. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  close(): void {
    this.cut();
    this.server.close();
  }

  private answer(req: IncomingMessage, res: ServerResponse): void {
    if (req.url === undefined || !req.url.startsWith(`${this.prefix}/`)) {
      res.writeHead(404).end();
      return;
    }
    const path = req.url.slice(this.prefix.length);
    const headers = { ...req.headers };
    delete headers.upgrade;
    delete headers.connection;
    const onward = request({ port: this.port, host: '127.0.0.1', path, method: req.method, headers }, (answer) => {
      if (this.answers === 'pass') {
        res.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(res);
        answer.on('error', () => res.destroy());
        return;
      }
      const parts: Buffer[] = [];
      answer.on('data', (part: Buffer) => parts.push(part));
      answer.on('end', () => res.writeHead(answer.statusCode ?? 502, answer.headers).end(Buffer.concat(parts)));
      answer.on('error', () => res.destroy());
    });
    onward.on('error', () => res.destroy());
    res.on('close', () => onward.destroy());
    req.pipe(onward);
  }

  private upgrade(req: IncomingMessage, socket: Socket): void {
    socket.on('error', () => socket.destroy());
    if (this.upgrades === 'refused') {
      socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    const onward = connect(this.port, '127.0.0.1');
    onward.on('error', () => socket.destroy());
    onward.on('close', () => socket.destroy());
    socket.on('close', () => onward.destroy());
    const headers = Object.entries(req.headers).map(([name, value]) => `${name}: ${String(value)}\r\n`);
    onward.write(`GET ${req.url?.slice(this.prefix.length)} HTTP/1.1\r\n${headers.join('')}\r\n`);
    onward.pipe(socket);
    if (this.upgrades === 'pass') socket.pipe(onward);
    else socket.resume();
  }
}
