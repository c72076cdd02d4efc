// A proxy that serves a hub below a path, as nginx and Caddy do.

import { createServer, request } from 'node:http';
import { connect } from 'node:net';

export interface Proxy {
  url: string;
  close(): void;
}

export async function prefixProxy(prefix: string, port: number): Promise<Proxy> {
  const server = createServer((req, res) => {
    if (req.url === undefined || !req.url.startsWith(`${prefix}/`)) {
      res.writeHead(404).end();
      return;
    }
    const path = req.url.slice(prefix.length);
    const onward = request({ port, host: '127.0.0.1', path, method: req.method, headers: req.headers }, (answer) => {
      res.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(res);
    });
    onward.on('error', () => res.destroy());
    req.pipe(onward);
  });
  server.on('upgrade', (req, socket) => {
    const onward = connect(port, '127.0.0.1');
    const headers = Object.entries(req.headers).map(([name, value]) => `${name}: ${String(value)}\r\n`);
    onward.write(`GET ${req.url?.slice(prefix.length)} HTTP/1.1\r\n${headers.join('')}\r\n`);
    onward.pipe(socket).pipe(onward);
    onward.on('error', () => socket.destroy());
    socket.on('error', () => onward.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://127.0.0.1:${address.port}${prefix}/`,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
